//! What training moves: a list of named arrays with their initial values, their order in memory, and their layout in files.

use std::fmt;
use std::rc::Rc;

use crate::engine::grad::grad;
use crate::engine::graph::{Graph, IntoRate, SlotKind, Var};
use crate::engine::nn::{Initialisation, Linear, Mlp};
use crate::engine::optim::{Optimizer, clip_scale};
use crate::engine::shape::Shape;

/// Initial values as a pure function of a seed.
pub type Initial = Rc<dyn Fn(u64) -> Vec<f32>>;

/// A part of an array as one tensor of a file: columns `start .. start + len` of a matrix, transposed, as PyTorch's
/// `nn.Linear` has them, or the array as it is.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    /// The name in the file.
    pub name: String,
    /// The columns of the matrix, and the matrix's width; none for an array that is stored as it is.
    pub columns: Option<Columns>,
    /// The shape in the file.
    pub shape: Vec<usize>,
}

/// Columns of a matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Columns {
    /// The first.
    pub start: usize,
    /// How many.
    pub len: usize,
    /// Of the whole matrix.
    pub width: usize,
}

impl Tensor {
    /// Where each number of the tensor, row-major, lies in the array.
    pub fn positions(&self) -> Box<dyn Iterator<Item = usize>> {
        let size: usize = self.shape.iter().product();
        let Some(Columns { start, len, width }) = self.columns else { return Box::new(0..size) };
        let rows = size / len.max(1);
        Box::new((start..start + len).flat_map(move |column| (0..rows).map(move |row| row * width + column)))
    }
}

/// One array.
#[derive(Clone)]
pub struct Param {
    /// Its name in graphs and in a [`State`](crate::engine::device::State).
    pub name: String,
    /// Its shape.
    pub shape: Shape,
    /// Whether an optimiser may move it; an array that is not is a [buffer](Graph::buffer).
    pub trainable: bool,
    /// Its first values.
    pub initial: Initial,
    /// How it is stored in a file, in parts that cover it.
    pub tensors: Vec<Tensor>,
}

impl fmt::Debug for Param {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.name, self.shape)
    }
}

/// The arrays of a model, in the order of their memory.
///
/// ```
/// use elbo::engine::params::Params;
/// let mut params = Params::new();
/// let up = params.linear("up", 784, 256);   // up.weight [784, 256] and up.bias [256]
/// let down = params.linear("down", 256, 10);
/// assert_eq!(params.count(), 784 * 256 + 256 + 256 * 10 + 10);
/// ```
#[derive(Clone, Debug, Default)]
pub struct Params {
    list: Vec<Param>,
    layers: usize,
}

impl Params {
    /// No arrays.
    pub fn new() -> Params {
        Params::default()
    }

    /// The parameters and buffers that a graph mentions, in the order of their first mention, at zero.
    pub fn of(graph: &Graph) -> Params {
        let mut params = Params::new();
        for slot in graph.slots() {
            let size = slot.shape.size();
            match slot.kind {
                SlotKind::Param => params.declare(&slot.name, &slot.shape, move |_| vec![0.0; size]),
                SlotKind::Buffer => params.buffer(&slot.name, &slot.shape, move |_| vec![0.0; size]),
                _ => {}
            }
        }
        params
    }

    /// Declares a trainable array. `initial` is a pure function of the seed and gives as many numbers as `shape` has.
    ///
    /// # Panics
    /// When the name is taken.
    #[track_caller]
    pub fn declare(&mut self, name: &str, shape: &[usize], initial: impl Fn(u64) -> Vec<f32> + 'static) {
        let tensor = Tensor { name: name.into(), columns: None, shape: shape.to_vec() };
        self.push(name, shape, true, Rc::new(initial), vec![tensor]);
    }

    /// Declares an array that no optimiser moves.
    ///
    /// # Panics
    /// When the name is taken.
    #[track_caller]
    pub fn buffer(&mut self, name: &str, shape: &[usize], initial: impl Fn(u64) -> Vec<f32> + 'static) {
        let tensor = Tensor { name: name.into(), columns: None, shape: shape.to_vec() };
        self.push(name, shape, false, Rc::new(initial), vec![tensor]);
    }

    #[track_caller]
    fn push(&mut self, name: &str, shape: &[usize], trainable: bool, initial: Initial, tensors: Vec<Tensor>) {
        assert!(self.list.iter().all(|p| p.name != name), "a parameter named {name} is declared already");
        self.list.push(Param { name: name.into(), shape: Shape::new(shape), trainable, initial, tensors });
    }

    /// Declares the weight and the bias of a layer.
    ///
    /// # Panics
    /// When a name is taken.
    #[track_caller]
    pub fn layer(&mut self, layer: &Linear, scheme: Initialisation) {
        let index = self.layers;
        self.layers += 1;
        let weight = layer.clone();
        let initial = Rc::new(move |seed| weight.initial_weight(scheme, seed, index));
        self.push(&layer.weight_name(), &[layer.fan_in, layer.fan_out], true, initial, layer.weight_tensors());
        let bias = layer.clone();
        let initial = Rc::new(move |seed| bias.initial_bias(scheme, seed, index));
        self.push(&layer.bias_name(), &[layer.fan_out], true, initial, layer.bias_tensors());
    }

    /// A layer from `fan_in` to `fan_out` numbers, declared, with PyTorch's initial values.
    ///
    /// # Panics
    /// When a name is taken.
    #[track_caller]
    pub fn linear(&mut self, name: &str, fan_in: usize, fan_out: usize) -> Linear {
        let layer = Linear::new(name, fan_in, fan_out);
        self.layer(&layer, Initialisation::Torch);
        layer
    }

    /// Declares every layer of a stack.
    ///
    /// # Panics
    /// When a name is taken.
    #[track_caller]
    pub fn mlp(&mut self, mlp: &Mlp, scheme: Initialisation) {
        mlp.layers.iter().for_each(|layer| self.layer(layer, scheme));
    }

    /// The arrays, in their order.
    pub fn iter(&self) -> impl Iterator<Item = &Param> {
        self.list.iter()
    }

    /// The array of this name.
    pub fn get(&self, name: &str) -> Option<&Param> {
        self.list.iter().find(|p| p.name == name)
    }

    /// The number of trainable numbers.
    pub fn count(&self) -> usize {
        self.list.iter().filter(|p| p.trainable).map(|p| p.shape.size()).sum()
    }

    /// The same arrays without those whose name `frozen` picks: what an update may move. Their order in a
    /// [`State`](crate::engine::device::State) is that of the whole list.
    pub fn without(&self, frozen: impl Fn(&str) -> bool) -> Params {
        let list = self.list.iter().filter(|p| !frozen(&p.name)).cloned().collect();
        Params { list, layers: self.layers }
    }

    /// These arrays, and a buffer `ema.{name}` for the moving average of each trainable one; see [`Graph::average`].
    pub fn averaged(&self) -> Params {
        let mut all = self.clone();
        for p in self.list.iter().filter(|p| p.trainable) {
            let name = average_of(&p.name);
            let tensors = p.tensors.iter().map(|t| Tensor { name: average_of(&t.name), ..t.clone() }).collect();
            all.push(&name, &p.shape, false, p.initial.clone(), tensors);
        }
        all
    }

    /// The trainable arrays as values of a graph, in their order.
    pub fn vars<'g>(&self, g: &'g Graph) -> Vec<Var<'g>> {
        self.list.iter().filter(|p| p.trainable).map(|p| g.param(&p.name, &p.shape)).collect()
    }
}

/// What the name of a parameter's moving average begins with.
pub(crate) const AVERAGE: &str = "ema.";

/// The buffer with the moving average of the parameter `name`.
fn average_of(name: &str) -> String {
    format!("{AVERAGE}{name}")
}

impl Graph {
    /// At the end of every step, moves the average of every trainable array of `params` towards its value by the share
    /// `weight`, a scalar: a ← a + w·(p − a), with p as the step found it. For an exponential moving average let `weight` be a
    /// schedule and give it [`Ema::schedule`](crate::engine::optim::Ema::schedule). The state must have the arrays of
    /// [`Params::averaged`]; [`State::swap_averages`](crate::engine::device::State::swap_averages) exchanges the two.
    ///
    /// # Panics
    /// When `weight` is no scalar of this graph.
    #[track_caller]
    pub fn average(&self, params: &Params, weight: Var<'_>) {
        self.owns("average", weight);
        let weight = self.var(weight.id());
        assert!(
            weight.shape().is_empty(),
            "the weight of an average must be a scalar, its shape is {}",
            weight.shape()
        );
        for p in params.iter().filter(|p| p.trainable) {
            let name = average_of(&p.name);
            let a = self.buffer(&name, &p.shape);
            self.store(&name, a + weight * (self.param(&p.name, &p.shape) - a));
        }
    }

    /// At the end of every step, moves the trainable arrays of `params` against the gradient of the scalar `loss`.
    /// `clip` limits the gradient's global norm ([`clip_scale`]).
    ///
    /// # Panics
    /// Without a trainable array, and as [`Graph::optimize`] and [`grad`].
    #[track_caller]
    pub fn minimise<'g>(
        &'g self,
        loss: Var<'g>,
        params: &Params,
        rule: Optimizer,
        rate: impl IntoRate<'g>,
        clip: Option<f64>,
    ) {
        self.owns("minimise", loss);
        let vars = params.vars(self);
        assert!(!vars.is_empty(), "minimise: there is no trainable array to move");
        let grads = grad(loss, &vars);
        let pairs: Vec<(Var, Var)> = vars.into_iter().zip(grads.iter().copied()).collect();
        match clip {
            None => self.optimize(rule, rate, &pairs),
            Some(limit) => self.optimize_scaled(rule, rate, &pairs, clip_scale(&grads, limit)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_transposed_in_a_file() {
        let columns = Some(Columns { start: 2, len: 2, width: 4 });
        let tensor = Tensor { name: "t".into(), columns, shape: vec![2, 3] };
        assert_eq!(tensor.positions().collect::<Vec<_>>(), [2, 6, 10, 3, 7, 11]);
        let whole = Tensor { name: "t".into(), columns: None, shape: vec![2, 1, 2] };
        assert_eq!(whole.positions().collect::<Vec<_>>(), [0, 1, 2, 3]);
    }
}
