//! What a pixel is taken to be.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::data::Dataset;
use crate::engine::error::{Error, Result};
use crate::engine::graph::Var;

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
    /// Every kind.
    pub const ALL: [Binarisation; 4] =
        [Binarisation::Grey, Binarisation::Dynamic, Binarisation::Threshold, Binarisation::Fixed];

    /// The name, as in [`FromStr`] and in configuration files.
    pub fn name(self) -> &'static str {
        match self {
            Binarisation::Grey => "grey",
            Binarisation::Dynamic => "dynamic",
            Binarisation::Threshold => "threshold",
            Binarisation::Fixed => "fixed",
        }
    }

    /// The data set to keep in memory: what can be done once is done here, and [`Binarisation::apply`] does the rest.
    ///
    /// The draw of [`Binarisation::Fixed`] does not depend on a run's seed: it belongs to the data.
    pub fn prepare(self, data: &Dataset) -> Cow<'_, Dataset> {
        match self {
            Binarisation::Grey | Binarisation::Dynamic => Cow::Borrowed(data),
            Binarisation::Threshold => Cow::Owned(data.binarise_threshold()),
            Binarisation::Fixed => Cow::Owned(data.binarise_fixed(0)),
        }
    }

    /// The images to model, `[B, D]`, from prepared ones; `stream` is the noise of a new draw.
    #[track_caller]
    pub fn apply(self, prepared: Var<'_>, stream: u32) -> Var<'_> {
        match self {
            // u in [0, 1) is below p with probability p: never for p = 0, always for p = 1.
            Binarisation::Dynamic => prepared.graph().uniform(&prepared.shape(), stream).lt(prepared),
            _ => prepared,
        }
    }
}

impl fmt::Display for Binarisation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Binarisation {
    type Err = Error;

    fn from_str(text: &str) -> Result<Binarisation> {
        let known = Binarisation::ALL.into_iter().find(|b| b.name() == text);
        known.ok_or_else(|| {
            Error::argument("binarisation", format!("\"{text}\""), "one of grey, dynamic, threshold, fixed")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Split;
    use crate::engine::graph::Graph;
    use crate::engine::interp::Interp;

    #[test]
    fn binarisations_do_what_their_names_say() {
        let images = (0..=255).cycle().take(25600).collect();
        let (name, split, labels) = ("ramps".to_string(), Split::Train, None);
        let data = Dataset { name, split, images, rows: 100, cols: 256, width: 16, height: 16, labels };
        assert_eq!(*Binarisation::Grey.prepare(&data), data);
        let cut = Binarisation::Threshold.prepare(&data);
        assert_eq!((cut.images[127], cut.images[128]), (0, 255));
        let fixed = Binarisation::Fixed.prepare(&data);
        assert_eq!(fixed, Binarisation::Fixed.prepare(&data));
        let white = fixed.images.iter().filter(|&&b| b == 255).count();
        assert!(fixed.images.iter().all(|b| [0, 255].contains(b)) && (12_300..13_300).contains(&white), "{white}");

        let g = Graph::new();
        let drawn = Binarisation::Dynamic.apply(g.tensor(&[1, 3], &[0.0, 0.5, 1.0]), 5);
        let mut run = Interp::<f64>::new(&g);
        let mut ones = [0.0; 3];
        for step in 0..200 {
            run.control.step = step;
            run.forget();
            ones.iter_mut().zip(run.eval(drawn)).for_each(|(n, x)| *n += x);
        }
        assert!(ones[0] == 0.0 && (70.0..130.0).contains(&ones[1]) && ones[2] == 200.0, "{ones:?}");
    }
}
