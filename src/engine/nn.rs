//! Layers: small values that know their parameters' names and push nodes when they are applied.
//!
//! A layer owns no memory. Its parameters are slots of the graph found by name, so two graphs built from one layer (a
//! training step and an evaluation, say) use the same numbers.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::engine::error::{Error, Result};
use crate::engine::grad::grad;
use crate::engine::graph::{Graph, Var};
use crate::engine::isa::Isa;
use crate::engine::rng::{Draw, PARAMETERS};

/// y = x·W + b with x `[B, in]`, W `[in, out]`, b `[out]`.
///
/// W is stored the way the product reads it; PyTorch stores the transpose, and a
/// [checkpoint](crate::train::checkpoint) has PyTorch's layout.
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

/// A parameter's name, shape and initial values.
pub struct Init {
    /// The slot.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its values, row-major.
    pub values: Vec<f32>,
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

    /// Initial values, a pure function of `seed` and of the layer's number `index` in the model.
    pub fn init(&self, scheme: Initialisation, seed: u64, index: usize) -> [Init; 2] {
        let (rows, columns) = (self.fan_in, self.fan_out);
        let width = columns / self.parts.len().max(1);
        let uniform = |stream: usize, bound: f32, count: usize| {
            let mut values = vec![0.0; count];
            let draw = Draw { seed, step: 0, stream: PARAMETERS + stream as u32 };
            draw.fill_uniform(Isa::detect(), 0, &mut values);
            values.iter_mut().for_each(|v| *v = (2.0 * *v - 1.0) * bound);
            values
        };
        let (weight, bias) = match scheme {
            Initialisation::Torch => {
                let bound = 1.0 / (self.fan_in as f32).sqrt();
                (uniform(2 * index, bound, rows * columns), uniform(2 * index + 1, bound, columns))
            }
            Initialisation::Glorot => {
                let bound = (6.0 / (rows + width) as f32).sqrt();
                (uniform(2 * index, bound, rows * columns), vec![0.0; columns])
            }
            Initialisation::GlorotEqual => {
                // One matrix of this shape, drawn row by row, and as often as there are parts.
                let one = uniform(0, (6.0 / (rows + width) as f32).sqrt(), rows * width);
                let copies = columns / width;
                let weight = one.chunks_exact(width).flat_map(|row| row.repeat(copies)).collect();
                (weight, vec![0.0; columns])
            }
        };
        [
            Init { name: self.weight_name(), shape: vec![rows, columns], values: weight },
            Init { name: self.bias_name(), shape: vec![columns], values: bias },
        ]
    }
}

/// How the parameters of layers are drawn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
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
    /// Every activation.
    pub const ALL: [Activation; 8] = [
        Activation::Identity,
        Activation::Relu,
        Activation::LeakyRelu,
        Activation::Tanh,
        Activation::Sigmoid,
        Activation::Softplus,
        Activation::Silu,
        Activation::Gelu,
    ];

    /// The name, as in [`FromStr`] and in configuration files.
    pub fn name(self) -> &'static str {
        match self {
            Activation::Identity => "identity",
            Activation::Relu => "relu",
            Activation::LeakyRelu => "leaky_relu",
            Activation::Tanh => "tanh",
            Activation::Sigmoid => "sigmoid",
            Activation::Softplus => "softplus",
            Activation::Silu => "silu",
            Activation::Gelu => "gelu",
        }
    }

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

impl fmt::Display for Activation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Activation {
    type Err = Error;

    fn from_str(text: &str) -> Result<Activation> {
        let known = Activation::ALL.into_iter().find(|a| a.name() == text);
        known.ok_or_else(|| {
            let names: Vec<&str> = Activation::ALL.iter().map(|a| a.name()).collect();
            Error::argument("activation", format!("\"{text}\""), format!("one of {}", names.join(", ")))
        })
    }
}

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
        self.layers.iter().fold(x, |x, layer| self.activation.apply(layer.apply(x)))
    }

    /// f′ at x·W + b of every layer, `[B, width]` each: the factor of all gradients that go through a unit. Where it
    /// is 0, a row of x moves neither the weights into the unit nor anything before it.
    #[track_caller]
    pub fn slopes<'g>(&self, x: Var<'g>) -> Vec<Var<'g>> {
        let mut slopes = Vec::new();
        self.layers.iter().fold(x, |x, layer| {
            let before = layer.apply(x);
            let after = self.activation.apply(before);
            slopes.push(grad(after.sum_all(), &[before])[0]);
            after
        });
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
            assert_eq!(a.name().parse::<Activation>().unwrap(), a);
            assert_eq!(serde_json::to_string(&a).unwrap(), format!("\"{a}\""));
        }
        let message = "rellu".parse::<Activation>().unwrap_err().to_string();
        assert!(message.contains("rellu") && message.contains("leaky_relu"), "{message}");
    }

    #[test]
    fn initial_values_fill_the_bound_and_depend_on_the_seed() {
        let layer = Linear::new("a", 100, 50);
        let [w, b] = layer.init(Initialisation::Torch, 7, 0);
        assert_eq!((w.shape.as_slice(), b.shape.as_slice()), ([100, 50].as_slice(), [50].as_slice()));
        assert!(w.values.iter().all(|v| v.abs() <= 0.1));
        let variance = w.values.iter().map(|v| v * v).sum::<f32>() / 5000.0;
        assert!((variance - 0.01 / 3.0).abs() < 2e-4, "uniform ±a has variance a²/3, found {variance}");
        assert_eq!(w.values, layer.init(Initialisation::Torch, 7, 0)[0].values);
        assert_ne!(w.values, layer.init(Initialisation::Torch, 8, 0)[0].values);
        assert_ne!(w.values, layer.init(Initialisation::Torch, 7, 1)[0].values);
        assert_ne!(w.values[..50], b.values);
    }

    #[test]
    fn glorot_has_its_bound_and_equal_shapes_may_start_equal() {
        let parts = ["q.mu".to_string(), "q.logvar".to_string()];
        let (heads, plain) = (Linear::side_by_side("q", &parts, 30, 20), Linear::new("p", 30, 20));
        let [w, b] = heads.init(Initialisation::Glorot, 1, 3);
        let bound = (6.0f32 / 50.0).sqrt();
        let largest = w.values.iter().fold(0.0f32, |a, v| a.max(v.abs()));
        assert!(largest <= bound && largest > 0.99 * bound && b.values == [0.0; 40]);
        assert_ne!(w.values[..20], w.values[20..40]);
        let [w, _] = heads.init(Initialisation::GlorotEqual, 1, 3);
        let [p, _] = plain.init(Initialisation::GlorotEqual, 1, 9);
        assert!(w.values.chunks(40).zip(p.values.chunks(20)).all(|(w, p)| w[..20] == *p && w[20..] == *p));
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
