//! Layers: small values that know their parameters' names and push nodes when they are applied.
//!
//! A layer owns no memory. Its parameters are slots of the graph found by name, so two graphs built from one layer (a
//! training step and an evaluation, say) use the same numbers.

use serde::{Deserialize, Serialize};

use crate::engine::grad::grad;
use crate::engine::graph::{Graph, Var};
use crate::engine::isa::Isa;
use crate::engine::names::names;
use crate::engine::params::{Columns, Tensor};
use crate::engine::rng::{Draw, PARAMETERS};

/// y = x·W + b with x `[B, in]`, W `[in, out]`, b `[out]`.
///
/// W is stored the way the product reads it; PyTorch stores the transpose, and a
/// checkpoint has PyTorch's layout.
#[derive(Clone, Debug, PartialEq)]
pub struct Linear {
    /// The slots are `{name}.weight` and `{name}.bias`.
    pub name: String,
    /// The width of x.
    pub fan_in: usize,
    /// The width of y.
    pub fan_out: usize,
    /// The names of the layers of equal width that lie side by side in this one; empty for a plain layer. They share
    /// their input, and a checkpoint has them apart.
    pub parts: Vec<String>,
}

impl Linear {
    /// A layer from `fan_in` to `fan_out` numbers.
    pub fn new(name: impl Into<String>, fan_in: usize, fan_out: usize) -> Linear {
        Linear { name: name.into(), fan_in, fan_out, parts: Vec::new() }
    }

    /// Layers of `width` outputs each, side by side: one product instead of several that read the same input.
    pub fn side_by_side(name: impl Into<String>, parts: &[String], fan_in: usize, width: usize) -> Linear {
        Linear { name: name.into(), fan_in, fan_out: width * parts.len(), parts: parts.to_vec() }
    }

    /// The name of W's slot.
    pub fn weight_name(&self) -> String {
        format!("{}.weight", self.name)
    }

    /// The name of b's slot.
    pub fn bias_name(&self) -> String {
        format!("{}.bias", self.name)
    }

    /// The parameters W and b in the graph `g`.
    #[track_caller]
    pub fn params<'g>(&self, g: &'g Graph) -> [Var<'g>; 2] {
        [g.param(&self.weight_name(), &[self.fan_in, self.fan_out]), g.param(&self.bias_name(), &[self.fan_out])]
    }

    /// x·W + b, `[B, out]`.
    #[track_caller]
    pub fn apply<'g>(&self, x: Var<'g>) -> Var<'g> {
        let [w, b] = self.params(x.graph());
        x.matmul(w) + b
    }

    /// As [`Linear::apply`], with W and b as constants of the reverse pass.
    #[track_caller]
    pub fn apply_frozen<'g>(&self, x: Var<'g>) -> Var<'g> {
        let [w, b] = self.params(x.graph());
        x.matmul(w.stop_gradient()) + b.stop_gradient()
    }

    /// Initial values of W, a pure function of `seed` and of the layer's number `index` in the model. `[in · out]`
    pub fn initial_weight(&self, scheme: Initialisation, seed: u64, index: usize) -> Vec<f32> {
        let (rows, columns) = (self.fan_in, self.fan_out);
        let width = columns / self.parts.len().max(1);
        let glorot = (6.0 / (rows + width) as f32).sqrt();
        match scheme {
            Initialisation::Torch => uniform(seed, 2 * index, self.torch_bound(), rows * columns),
            Initialisation::Glorot => uniform(seed, 2 * index, glorot, rows * columns),
            Initialisation::GlorotEqual => {
                // One matrix of this shape, drawn row by row, and as often as there are parts.
                let one = uniform(seed, 0, glorot, rows * width);
                one.chunks_exact(width).flat_map(|row| row.repeat(columns / width)).collect()
            }
        }
    }

    /// Initial values of b, likewise. `[out]`
    pub fn initial_bias(&self, scheme: Initialisation, seed: u64, index: usize) -> Vec<f32> {
        match scheme {
            Initialisation::Torch => uniform(seed, 2 * index + 1, self.torch_bound(), self.fan_out),
            Initialisation::Glorot | Initialisation::GlorotEqual => vec![0.0; self.fan_out],
        }
    }

    fn torch_bound(&self) -> f32 {
        1.0 / (self.fan_in as f32).sqrt()
    }

    /// W in a file: `[out, in]` of each part, as PyTorch's `nn.Linear` has it.
    pub(crate) fn weight_tensors(&self) -> Vec<Tensor> {
        self.tensors("weight", |len| vec![len, self.fan_in])
    }

    /// b in a file, each part's own.
    pub(crate) fn bias_tensors(&self) -> Vec<Tensor> {
        self.tensors("bias", |len| vec![len])
    }

    fn tensors(&self, kind: &str, shape: impl Fn(usize) -> Vec<usize>) -> Vec<Tensor> {
        let own = [self.name.clone()];
        let parts = if self.parts.is_empty() { &own[..] } else { &self.parts[..] };
        let (width, len) = (self.fan_out, self.fan_out / parts.len());
        let tensor = |(i, part): (usize, &String)| Tensor {
            name: format!("{part}.{kind}"),
            columns: Some(Columns { start: i * len, len, width }),
            shape: shape(len),
        };
        parts.iter().enumerate().map(tensor).collect()
    }
}

/// Uniform numbers in ±`bound`, from parameter stream `stream`.
fn uniform(seed: u64, stream: usize, bound: f32, count: usize) -> Vec<f32> {
    let mut values = vec![0.0; count];
    let draw = Draw { seed, step: 0, stream: PARAMETERS + stream as u32 };
    draw.fill_uniform(Isa::detect(), 0, &mut values);
    values.iter_mut().for_each(|v| *v = (2.0 * *v - 1.0) * bound);
    values
}

/// How the parameters of layers are drawn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
pub enum Initialisation {
    /// Weights and biases uniform in ±1/√in, as `torch.nn.Linear` has them (its `kaiming_uniform_` with a = √5 is this
    /// very bound).
    #[default]
    Torch,
    /// Weights uniform in ±√(6/(in + out)), biases 0 (Glorot & Bengio 2010).
    Glorot,
    /// The same from one sequence of numbers for every layer, so that layers of one shape start equal: what the code of
    /// Burda et al. 2015 does, which draws every layer from `RandomState(123)`. The two heads of its Gaussians are the same
    /// matrix at the start.
    GlorotEqual,
}

/// The nonlinearity between two layers, by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// x: the network is linear, and its optimum is known in closed form.
    Identity,
    /// max(x, 0).
    Relu,
    /// x for x > 0, else 0.01·x.
    LeakyRelu,
    /// tanh x.
    Tanh,
    /// 1/(1 + e⁻ˣ).
    Sigmoid,
    /// ln(1 + eˣ).
    Softplus,
    /// x·sigmoid(x).
    Silu,
    /// x·Φ(x) in its tanh form.
    Gelu,
}

impl Activation {
    /// The function, applied element by element.
    #[track_caller]
    pub fn apply(self, x: Var<'_>) -> Var<'_> {
        match self {
            Activation::Identity => x,
            Activation::Relu => x.relu(),
            Activation::LeakyRelu => x.leaky_relu(0.01),
            Activation::Tanh => x.tanh(),
            Activation::Sigmoid => x.sigmoid(),
            Activation::Softplus => x.softplus(),
            Activation::Silu => x.silu(),
            Activation::Gelu => x.gelu(),
        }
    }
}

names!(Activation, "activation":
    Identity "identity",
    Relu "relu",
    LeakyRelu "leaky_relu",
    Tanh "tanh",
    Sigmoid "sigmoid",
    Softplus "softplus",
    Silu "silu",
    Gelu "gelu",
);

/// A stack of layers with an activation after each: x ↦ f(…f(x·W₀ + b₀)…·Wₙ + bₙ). Without layers it is x itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Mlp {
    /// Named `{name}.0`, `{name}.1`, …
    pub layers: Vec<Linear>,
    /// f.
    pub activation: Activation,
}

impl Mlp {
    /// Layers of the given widths on top of `fan_in` inputs.
    pub fn new(name: &str, fan_in: usize, widths: &[usize], activation: Activation) -> Mlp {
        let inputs = std::iter::once(fan_in).chain(widths.iter().copied());
        let layers = inputs.zip(widths).enumerate();
        let layers = layers.map(|(i, (from, &to))| Linear::new(format!("{name}.{i}"), from, to)).collect();
        Mlp { layers, activation }
    }

    /// `[B, in]` to `[B, last width]`.
    #[track_caller]
    pub fn apply<'g>(&self, x: Var<'g>) -> Var<'g> {
        let mut x = x;
        for layer in &self.layers {
            x = self.activation.apply(layer.apply(x));
        }
        x
    }

    /// f′ at x·W + b of every layer, `[B, width]` each: the factor of all gradients that go through a unit. Where it
    /// is 0, a row of x moves neither the weights into the unit nor anything before it.
    #[track_caller]
    pub fn slopes<'g>(&self, x: Var<'g>) -> Vec<Var<'g>> {
        let (mut x, mut slopes) = (x, Vec::new());
        for layer in &self.layers {
            let before = layer.apply(x);
            x = self.activation.apply(before);
            slopes.push(grad(x.sum_all(), &[before])[0]);
        }
        slopes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::interp::Interp;

    #[test]
    fn names_are_their_own_inverse() {
        for a in Activation::ALL {
            assert_eq!(a.name().parse::<Activation>().unwrap(), *a);
            assert_eq!(serde_json::to_string(a).unwrap(), format!("\"{a}\""));
        }
        let message = "rellu".parse::<Activation>().unwrap_err().to_string();
        assert!(message.contains("rellu") && message.contains("leaky_relu"), "{message}");
    }

    #[test]
    fn initial_values_fill_the_bound_and_depend_on_the_seed() {
        let layer = Linear::new("a", 100, 50);
        let weight = |seed, index| layer.initial_weight(Initialisation::Torch, seed, index);
        let (w, b) = (weight(7, 0), layer.initial_bias(Initialisation::Torch, 7, 0));
        assert_eq!((w.len(), b.len()), (5000, 50));
        assert!(w.iter().all(|v| v.abs() <= 0.1));
        let variance = w.iter().map(|v| v * v).sum::<f32>() / 5000.0;
        assert!((variance - 0.01 / 3.0).abs() < 2e-4, "uniform ±a has variance a²/3, found {variance}");
        assert_eq!(w, weight(7, 0));
        assert_ne!(w, weight(8, 0));
        assert_ne!(w, weight(7, 1));
        assert_ne!(w[..50], b);
    }

    #[test]
    fn glorot_has_its_bound_and_equal_shapes_may_start_equal() {
        let parts = ["q.mu".to_string(), "q.logvar".to_string()];
        let (heads, plain) = (Linear::side_by_side("q", &parts, 30, 20), Linear::new("p", 30, 20));
        let w = heads.initial_weight(Initialisation::Glorot, 1, 3);
        let bound = (6.0f32 / 50.0).sqrt();
        let largest = w.iter().fold(0.0f32, |a, v| a.max(v.abs()));
        assert!(largest <= bound && largest > 0.99 * bound);
        assert_eq!(heads.initial_bias(Initialisation::Glorot, 1, 3), [0.0; 40]);
        assert_ne!(w[..20], w[20..40]);
        let w = heads.initial_weight(Initialisation::GlorotEqual, 1, 3);
        let p = plain.initial_weight(Initialisation::GlorotEqual, 1, 9);
        assert!(w.chunks(40).zip(p.chunks(20)).all(|(w, p)| w[..20] == *p && w[20..] == *p));
    }

    #[test]
    fn an_mlp_is_its_formula() {
        let mlp = Mlp::new("net", 2, &[2, 1], Activation::Relu);
        let g = Graph::new();
        let y = mlp.apply(g.tensor(&[1, 2], &[1.0, 2.0]));
        let mut run = Interp::<f64>::new(&g);
        run.set("net.0.weight", &[1.0, -1.0, 0.5, -1.0]).unwrap();
        run.set("net.0.bias", &[0.25, 0.0]).unwrap();
        run.set("net.1.weight", &[2.0, 100.0]).unwrap();
        run.set("net.1.bias", &[-1.0]).unwrap();
        // hidden = relu(1 + 1 + ¼, −3) = (2¼, 0)
        assert_eq!(run.eval(y), [3.5]);
        let slopes = mlp.slopes(g.tensor(&[1, 2], &[1.0, 2.0]));
        assert_eq!((run.eval(slopes[0]), run.eval(slopes[1])), (vec![1.0, 0.0], vec![1.0]));
        assert_eq!(Mlp::new("none", 3, &[], Activation::Tanh).layers.len(), 0);
    }
}
