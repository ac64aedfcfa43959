//! What can be derived: expressions, the built-in ones, and a step of a whole VAE.

use super::expression::{Expression, functions};
use super::point::{self, NamedValue};
use super::record::Derivation;
use crate::engine::error::{Error, Result};
use crate::engine::gradcheck::Point;
use crate::engine::graph::{Graph, Var};
use crate::engine::interp::Interp;
use crate::engine::nn::Activation;
use crate::engine::ops::{Leaf, Op};
use crate::vae::{Vae, VaeConfig, terms};

/// A function that comes with the crate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BuiltIn {
    /// How it is asked for.
    pub name: &'static str,
    /// What it is.
    pub what: &'static str,
    /// As one would write it; empty for the VAE, which is a model.
    pub expression: &'static str,
    /// Its values, unless others are given.
    pub at: &'static str,
}

/// All of them.
pub const BUILT_IN: &[BuiltIn] = &[
    BuiltIn {
        name: "kl",
        what: "KL(N(μ, e^lv) ‖ N(0, 1)), what it costs to say z",
        expression: "0.5 * (mu^2 + expm1mx(lv))",
        at: "mu=0.8, lv=-0.5",
    },
    BuiltIn {
        name: "bce",
        what: "-log p(x|l) of a Bernoulli pixel on its logit",
        expression: "softplus(l) - x*l",
        at: "l=2, x=1",
    },
    BuiltIn {
        name: "gaussian_nll",
        what: "-log N(x; μ, e^lv)",
        expression: "0.5 * ((x - mu)^2 * exp(-lv) + lv + ln(2*pi))",
        at: "x=1.2, mu=0.5, lv=-1",
    },
    BuiltIn {
        name: "logsumexp",
        what: "ln Σ e^x without overflow; its gradient is the softmax",
        expression: "logsumexp(x)",
        at: "x=[1 2 3]",
    },
    BuiltIn {
        name: "softmax",
        what: "the cross-entropy of a softmax, one kernel with a rule of its own",
        expression: "-sum(t * ln(softmax(x)))",
        at: "x=[1 2 3], t=[0 1 0]",
    },
    BuiltIn {
        name: "matmul",
        what: "a linear layer with a squared error: dW = dY·xᵀ, db = Σ dY",
        expression: "0.5 * sum((w @ x + b - t)^2)",
        at: "w=[1 -2; 0.5 3], x=[2; 1], b=[0.5; -1], t=[1; 2]",
    },
    BuiltIn {
        name: "vae",
        what: "one step of a VAE 3-2-1-2-3 on one image: -ELBO and the gradient of every parameter",
        expression: "",
        at: "",
    },
];

/// A scalar function of named arrays, at a point.
#[derive(Clone, Debug)]
pub struct Subject {
    title: String,
    formula: Formula,
    point: Point,
}

#[derive(Clone, Debug)]
enum Formula {
    Expression(Expression),
    Vae(Box<Vae>),
}

/// The image of the VAE step.
const IMAGE: [f64; 3] = [1.0, 0.0, 1.0];
/// Of its initial parameters.
const SEED: u64 = 1;

impl Subject {
    /// A built-in function by its name, with the values `at` instead of its own, or else an expression.
    ///
    /// # Errors
    /// [`Error::Argument`]: see [`Subject::expression`].
    pub fn find(text: &str, at: &str) -> Result<Subject> {
        match BUILT_IN.iter().find(|known| known.name == text.trim()) {
            Some(BuiltIn { expression: "", .. }) if !at.trim().is_empty() => {
                Err(Error::argument("at", format!("\"{at}\""), "no values: the VAE's parameters are its own"))
            }
            Some(BuiltIn { expression: "", .. }) => Subject::vae(),
            Some(known) => Subject::made(Expression::parse(known.expression)?, overridden(known.at, at)?),
            None => Subject::expression(text, at),
        }
    }

    /// An expression at values such as `l=2, x=1` or `w=[1 2; 3 4], x=[1; 2]`. An array as its value is summed.
    ///
    /// # Errors
    /// [`Error::Argument`] with the column of what cannot be read, or whose shapes do not fit; for a name without a value
    /// and a value without a name.
    pub fn expression(text: &str, at: &str) -> Result<Subject> {
        Subject::made(Expression::parse(text)?, point::parse(at)?)
    }

    fn made(expression: Expression, values: Vec<NamedValue>) -> Result<Subject> {
        let names = expression.names();
        let missing: Vec<&String> = names.iter().filter(|n| values.iter().all(|v| v.name != **n)).collect();
        if let Some(first) = missing.first() {
            let found = format!("no value of {}", missing.iter().map(|n| n.as_str()).collect::<Vec<_>>().join(", "));
            let expected = format!("one for each name of {}: --at \"{first}=…\"", expression.text());
            return Err(Error::argument("at", found, expected));
        }
        if let Some(extra) = values.iter().find(|v| !names.contains(&v.name)) {
            let expected = format!("names of {}: {}", expression.text(), names.join(", "));
            return Err(Error::argument("at", format!("\"{}\"", extra.name), expected));
        }
        if names.is_empty() {
            let expected = "a variable to differentiate by, as in x^2 with --at x=3";
            return Err(Error::argument("expression", format!("\"{}\"", expression.text()), expected));
        }
        let point = values.iter().fold(Point::new(), |point, v| point.input(v.name.clone(), &v.shape, &v.values));
        // Whether shapes fit is found by trying.
        let g = Graph::new();
        let xs: Vec<(&str, Var)> = values.iter().map(|v| (v.name.as_str(), g.param(&v.name, &v.shape))).collect();
        let y = expression.build(&g, &xs)?;
        let scalar = y.shape().size() == 1;
        let title = if scalar { expression.text().into() } else { format!("sum({})", expression.text()) };
        Ok(Subject { title, formula: Formula::Expression(expression), point })
    }

    /// One step of a VAE on an image of three pixels, two tanh units on each side, one latent dimension. The parameters
    /// are the initial ones rounded to two digits, so that one can follow with a pocket calculator.
    fn vae() -> Result<Subject> {
        let config = VaeConfig {
            image: [1, 3],
            encoder: vec![2],
            decoder: vec![2],
            activation: Activation::Tanh,
            ..VaeConfig::new(1)
        };
        let vae = Vae::new(config)?;
        let mut point = Point::new();
        for param in vae.params().iter() {
            let rounded = (param.initial)(SEED).into_iter().map(|v| (f64::from(v) * 100.0).round() / 100.0);
            point = point.input(param.name.clone(), &param.shape, &rounded.collect::<Vec<_>>());
        }
        let title = "-ELBO of a VAE 3-2-1-2-3 on the image [1 0 1]".into();
        Ok(Subject { title, formula: Formula::Vae(Box::new(vae)), point })
    }

    /// What it is, as one would write it.
    pub fn title(&self) -> &str {
        &self.title
    }

    /// Where it is differentiated.
    pub fn point(&self) -> &Point {
        &self.point
    }

    /// Pushes its nodes; the inputs are those of [`Subject::point`], in their order. A scalar.
    ///
    /// # Panics
    /// When the inputs are others.
    #[track_caller]
    pub fn build<'g>(&self, g: &'g Graph, inputs: &[Var<'g>]) -> Var<'g> {
        match &self.formula {
            Formula::Expression(expression) => {
                let names = self.point.inputs().map(|(name, ..)| name);
                let names: Vec<(&str, Var)> = names.zip(inputs.iter().copied()).collect();
                let y = expression.build(g, &names).expect("it was built before");
                if y.shape().size() == 1 { y.reshape(&[]) } else { y.sum_all() }
            }
            Formula::Vae(vae) => {
                let terms = terms(vae, g.tensor(&[1, 3], &IMAGE));
                terms.rec + terms.kl
            }
        }
    }

    /// Its derivation, of order 1 or 2.
    pub fn derivation(&self, order: usize) -> Derivation {
        let g = Graph::new();
        let inputs: Vec<(&str, &[usize], &[f64])> = self.point.inputs().collect();
        let xs: Vec<Var> = inputs.iter().map(|(name, shape, _)| g.param(name, shape)).collect();
        let y = self.build(&g, &xs);
        let mut run = Interp::<f64>::new(&g);
        for (name, _, values) in &inputs {
            run.set(name, values).expect("the graph has its inputs");
        }
        let leaves: Vec<(&str, Var)> = inputs.iter().zip(&xs).map(|((name, ..), x)| (*name, *x)).collect();
        let given = g.live(&[y.id()]).into_iter().filter(|&id| matches!(g.node(id).op, Op::Leaf(Leaf::Tensor(_))));
        // There is one array that is given and no leaf: the VAE's image.
        let image: Vec<(&str, Var)> = match self.formula {
            Formula::Vae(_) => given.map(|id| ("x", g.var(id))).collect(),
            Formula::Expression(_) => Vec::new(),
        };
        Derivation::of(&self.title, y, &leaves, &image, &mut run, order)
    }

    /// The functions that an expression may call, for help and messages.
    pub fn functions() -> String {
        functions()
    }
}

/// Values with some of them replaced.
fn overridden(defaults: &str, at: &str) -> Result<Vec<NamedValue>> {
    let mut values = point::parse(defaults)?;
    for new in point::parse(at)? {
        match values.iter_mut().find(|old| old.name == new.name) {
            Some(old) => *old = new,
            None => values.push(new),
        }
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::grad::grad;

    #[test]
    fn the_last_sum_at_every_leaf_is_its_gradient_exactly() {
        for known in BUILT_IN {
            let subject = Subject::find(known.name, "").unwrap();
            let d = subject.derivation(1);
            let g = Graph::new();
            let inputs: Vec<_> = subject.point().inputs().collect();
            let xs: Vec<Var> = inputs.iter().map(|(name, shape, _)| g.param(name, shape)).collect();
            let slopes = grad(subject.build(&g, &xs), &xs);
            let mut run = Interp::<f64>::new(&g);
            inputs.iter().for_each(|(name, _, values)| run.set(name, values).unwrap());
            for (leaf, slope) in d.leaves.iter().zip(slopes) {
                let slope = run.eval(slope);
                let mut contributions = d.steps.iter().flat_map(|step| &step.contributions);
                let last = contributions.rfind(|c| Some(c.input) == leaf.node).unwrap();
                assert_eq!(last.sum.values, slope, "{}: {}", known.name, leaf.name);
                assert_eq!(leaf.gradient.values, slope);
            }
        }
    }

    #[test]
    fn every_built_in_agrees_with_finite_differences_in_both_orders() {
        for known in BUILT_IN {
            let d = Subject::find(known.name, "").unwrap().derivation(2);
            assert!(d.error() < 1e-6, "{}: {}", known.name, d.error());
            assert!(!d.second.is_empty() && d.second.iter().all(|s| s.order == 2));
        }
    }

    #[test]
    fn the_second_order_of_scalars_is_the_hessian() {
        let d = Subject::expression("x^3 * y", "x=2, y=5").unwrap().derivation(2);
        let rows: Vec<Vec<f64>> =
            d.second.iter().map(|row| row.leaves.iter().map(|leaf| leaf.gradient.values[0]).collect()).collect();
        assert_eq!(rows, [[60.0, 12.0], [12.0, 0.0]]);
        assert_eq!(d.second[0].title, "∂y/∂x");
    }

    #[test]
    fn a_wrong_derivative_shows() {
        // The engine takes the derivative of a rule of one's own on trust; the difference does not.
        let g = Graph::new();
        let x = g.param("x", &[]);
        let y = crate::engine::ops::custom::custom_vjp(&[x], x.square(), |x, _, dy| vec![dy * x[0] * 3.0]);
        let mut run = Interp::<f64>::new(&g);
        run.set("x", &[2.0]).unwrap();
        let d = Derivation::of("x² with a wrong rule", y, &[("x", x)], &[], &mut run, 1);
        assert_eq!(d.leaves[0].gradient.values, [6.0]);
        assert!((d.leaves[0].difference[0] - 4.0).abs() < 1e-8 && d.leaves[0].error > 0.3);
    }

    #[test]
    fn the_record_survives_json() {
        let d = Subject::find("matmul", "").unwrap().derivation(2);
        let text = serde_json::to_string(&d).unwrap();
        assert_eq!(serde_json::from_str::<Derivation>(&text).unwrap(), d);
        let first: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(first["nodes"][0]["name"], "w");
        assert!(first["steps"][0]["cotangent"]["values"][0] == 1.0);
    }

    #[test]
    fn values_and_names_must_match() {
        let message = |text: &str, at: &str| Subject::find(text, at).unwrap_err().to_string();
        assert!(message("x*y", "x=1").contains("no value of y"));
        assert!(message("x*x", "x=1,z=2").contains("\"z\""));
        assert!(message("1 + 2", "").contains("a variable"));
        assert!(message("vae", "x=1").contains("no values"));
        assert!(message("a + b", "a=[1 2],b=[1 2 3]").contains("column 3"));
        let moved = Subject::find("bce", "l=-1").unwrap();
        assert_eq!(moved.point().inputs().next().unwrap().2, [-1.0]);
    }
}
