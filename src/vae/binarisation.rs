//! What a pixel is taken to be.

use serde::{Deserialize, Serialize};

use super::share::Minibatch;
use crate::engine::graph::Var;
use crate::engine::names::names;

/// What is done to a grey value p in [0, 1] before it is modelled. These are four different data sets: their results
/// differ by several nats and must not be compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Binarisation {
    /// Nothing: x = p.
    Grey,
    /// x = 1 with probability p, drawn anew at every use (Burda et al. 2015).
    Dynamic,
    /// x = 1 if p > ½.
    Threshold,
    /// x = 1 with probability p, drawn once for all runs, as in Larochelle & Murray's file (but not its very draws).
    Fixed,
}

impl Binarisation {
    /// The images to model, `[rows, D]`, from those kept in memory, of which what can be done once was done (see
    /// [`Dataset::prepared`](crate::data::Dataset::prepared)); `stream` is the noise of a new draw.
    #[track_caller]
    pub fn apply<'g>(self, prepared: impl Into<Minibatch<'g>>, stream: u32) -> Var<'g> {
        let Minibatch { x, share } = prepared.into();
        match self {
            // u in [0, 1) is below p with probability p: never for p = 0, always for p = 1.
            Binarisation::Dynamic => share.of_noise(1, x.shape()[1], |shape| x.graph().uniform(shape, stream)).lt(x),
            _ => x,
        }
    }
}

names!(Binarisation, "binarisation": Grey "grey", Dynamic "dynamic", Threshold "threshold", Fixed "fixed");

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::device::{Key, Rows};
    use crate::engine::graph::Graph;
    use crate::engine::interp::Interp;

    #[test]
    fn a_pixel_is_drawn_anew_in_every_step() {
        let g = Graph::new();
        let drawn = Binarisation::Dynamic.apply(g.tensor(&[1, 3], &[0.0, 0.5, 1.0]), 5);
        let mut run = Interp::<f64>::new(&g);
        let mut ones = [0.0; 3];
        for step in 0..200 {
            run.at(Key { seed: 0, step }, Rows::in_order());
            ones.iter_mut().zip(run.eval(drawn)).for_each(|(n, x)| *n += x);
        }
        assert!(ones[0] == 0.0 && (70.0..130.0).contains(&ones[1]) && ones[2] == 200.0, "{ones:?}");
    }
}
