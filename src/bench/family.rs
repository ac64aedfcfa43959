//! The families of workloads and their sizes.

use std::fmt;
use std::str::FromStr;

use super::workload::{Arrays, TrainingStep, Workload};
use crate::engine::nn::Activation;
use crate::engine::optim::Optimizer;
use crate::vae::{Binarisation, Vae, VaeConfig};

/// Workloads of one kind over a range of sizes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Family {
    /// Products of square matrices, and those of a layer.
    Matmul,
    /// A chain of functions, element by element, fused into one kernel.
    Pointwise,
    /// The sum of all elements.
    Reduce,
    /// The update of parameters.
    Adam,
    /// A training step of 784-400-20-400-784, ReLU.
    V1,
    /// A training step of 784-200-200-50-200-200-784, tanh.
    V2,
}

/// A workload of a certain size.
pub struct Case {
    /// The size in words.
    pub label: String,
    /// The size as a number, in the family's unit.
    pub size: f64,
    /// Whether it is a point of the family's curve; others stand beside it.
    pub on_curve: bool,
    /// What is done.
    pub work: Box<dyn Workload>,
}

/// Columns of the arrays of elements and parameters.
const COLS: usize = 1000;

impl Family {
    /// All of them.
    pub const ALL: &'static [Family] =
        &[Family::Matmul, Family::Pointwise, Family::Reduce, Family::Adam, Family::V1, Family::V2];

    /// What is computed.
    pub fn title(self) -> &'static str {
        match self {
            Family::Matmul => "matrix product, n × n × n",
            Family::Pointwise => "fused pointwise chain, y = tanh(a·b + ½)·sigmoid(a) + b",
            Family::Reduce => "sum of all elements",
            Family::Adam => "Adam's update",
            Family::V1 => "training step of a VAE, 784-400-20-400-784, ReLU",
            Family::V2 => "training step of a VAE, 784-200-200-50-200-200-784, tanh",
        }
    }

    /// What the sizes count.
    pub fn unit(self) -> &'static str {
        match self {
            Family::Matmul => "n",
            Family::Pointwise | Family::Reduce => "elements",
            Family::Adam => "parameters",
            Family::V1 | Family::V2 => "images per batch",
        }
    }

    /// What travels when transfers are counted.
    pub fn transfers(self) -> &'static str {
        match self {
            Family::Matmul => "both factors up, the product down",
            Family::Pointwise => "a and b up, y down",
            Family::Reduce => "the elements up, the sum down",
            Family::Adam => "the gradient up, the parameters down; the moments stay",
            Family::V1 | Family::V2 => "the batch's images up, the loss down; the model stays",
        }
    }

    fn sizes(self, quick: bool) -> &'static [usize] {
        match (self, quick) {
            (Family::Matmul, true) => &[64, 128, 256],
            (Family::Matmul, false) => &[64, 128, 256, 512, 1024, 2048],
            (Family::Pointwise | Family::Reduce, true) => &[1_000, 10_000, 100_000],
            (Family::Pointwise | Family::Reduce, false) => &[1_000, 10_000, 100_000, 1_000_000, 10_000_000],
            (Family::Adam, true) => &[10_000, 100_000],
            (Family::Adam, false) => &[10_000, 100_000, 1_000_000, 10_000_000],
            (Family::V1 | Family::V2, true) => &[8, 32],
            (Family::V1, false) => &[32, 128, 1024, 8192],
            (Family::V2, false) => &[20, 128, 1024, 8192],
        }
    }

    /// The workloads in order of size, made one by one: the large ones hold much memory.
    pub fn cases(self, quick: bool) -> impl Iterator<Item = Case> {
        let batch = if quick { 32 } else { 128 };
        let layers = if self == Family::Matmul { layer_products(batch) } else { Vec::new() };
        let curve = self.sizes(quick).iter().map(move |&n| self.case(n));
        curve.chain(layers.into_iter().map(|(mnk, transposed)| layer_product(mnk, transposed)))
    }

    fn case(self, n: usize) -> Case {
        let work: Box<dyn Workload> = match self {
            Family::Matmul => Box::new(product((n, n, n), (false, false))),
            Family::Pointwise => Box::new(chain(n / COLS)),
            Family::Reduce => Box::new(sum(n / COLS)),
            Family::Adam => Box::new(update(n / COLS)),
            Family::V1 => Box::new(TrainingStep::new(vae(VaeConfig::new(20)), n)),
            Family::V2 => {
                let config = VaeConfig::new(50).hidden(&[200, 200]);
                let config = VaeConfig { activation: Activation::Tanh, ..config };
                Box::new(TrainingStep::new(vae(VaeConfig { binarisation: Binarisation::Threshold, ..config }), n))
            }
        };
        Case { label: n.to_string(), size: n as f64, on_curve: true, work }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Family::Matmul => "matmul",
            Family::Pointwise => "pointwise",
            Family::Reduce => "reduce",
            Family::Adam => "adam",
            Family::V1 => "v1",
            Family::V2 => "v2",
        })
    }
}

impl FromStr for Family {
    type Err = String;

    fn from_str(name: &str) -> Result<Family, String> {
        let known = Family::ALL.iter().find(|f| f.to_string() == name).copied();
        let names: Vec<String> = Family::ALL.iter().map(Family::to_string).collect();
        known.ok_or_else(|| format!("\"{name}\" is no family of workloads; there are {}", names.join(", ")))
    }
}

fn vae(config: VaeConfig) -> Vae {
    Vae::new(config).expect("the configuration is a constant")
}

/// (m, n, k) and which factor is stored transposed.
type ProductShape = ((usize, usize, usize), (bool, bool));

/// C = op(A)·op(B).
fn product((m, n, k): (usize, usize, usize), (ta, tb): (bool, bool)) -> Arrays {
    let (b_rows, b_cols) = if tb { (n, k) } else { (k, n) };
    let arrays = Arrays::new(m, move |g, m| {
        let a = if ta { [k, m] } else { [m, k] };
        Some(g.input(&a).matmul_t(ta, g.input(&[b_rows, b_cols]), tb))
    });
    let arrays = arrays.product();
    // With Aᵀ stored, a row of the result is a column of the operand: then all rows are checked.
    let arrays = if ta { arrays.input(k, m) } else { arrays.row_input(k) };
    arrays.input(b_rows, b_cols)
}

/// The products of a training step of the layers 784 → 400 and 400 → 784: y = x·W, dx = dy·Wᵀ, dW = xᵀ·dy.
fn layer_products(batch: usize) -> Vec<ProductShape> {
    let of = |(i, o): (usize, usize)| {
        [((batch, o, i), (false, false)), ((batch, i, o), (false, true)), ((i, o, batch), (true, false))]
    };
    [(784, 400), (400, 784)].into_iter().flat_map(of).collect()
}

/// A product of V1; its place on the axis is the n of a product of square matrices with as many multiply-adds.
fn layer_product((m, n, k): (usize, usize, usize), transposed: (bool, bool)) -> Case {
    let mark = |t: bool| if t { "ᵀ" } else { "" };
    Case {
        label: format!("{m}×{k}{}·{k}×{n}{}", mark(transposed.0), mark(transposed.1)),
        size: ((m * n * k) as f64).cbrt(),
        on_curve: false,
        work: Box::new(product((m, n, k), transposed)),
    }
}

fn chain(rows: usize) -> Arrays {
    let arrays = Arrays::new(rows, |g, rows| {
        let (a, b) = (g.input(&[rows, COLS]), g.input(&[rows, COLS]));
        Some((a * b + 0.5).tanh() * a.sigmoid() + b)
    });
    arrays.row_input(COLS).row_input(COLS)
}

/// Positive numbers, so that the sum is as large as its terms.
fn sum(rows: usize) -> Arrays {
    Arrays::new(1, move |g, _| Some(g.input(&[rows, COLS]).sum_all())).input(rows, COLS).of(f32::abs)
}

/// Parameters as small as the steps they are moved by, so that the check sees the steps.
fn update(rows: usize) -> Arrays {
    let arrays = Arrays::new(rows, |g, rows| {
        let p = g.param("p", &[rows, COLS]);
        g.optimize(Optimizer::adam(), 1e-3, &[(p, g.input(&[rows, COLS]))]);
        None
    });
    arrays.param("p", COLS).of(|v| 1e-3 * v).row_input(COLS).steps(3)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::device::cpu::Cpu;
    use crate::engine::device::{Executor, Precision};
    use crate::engine::plan::Fusion;

    #[test]
    fn names_are_read_as_written() {
        for family in Family::ALL {
            assert_eq!(family.to_string().parse::<Family>(), Ok(*family));
        }
        assert!("gemm".parse::<Family>().unwrap_err().contains("matmul, pointwise"));
    }

    #[test]
    fn every_workload_is_right_on_the_cpu() {
        let small = Family::ALL[..4].iter().flat_map(|f| f.cases(true).filter(|c| c.size < 20_000.0));
        for case in small {
            let plan = case.work.plan(Fusion::all()).unwrap();
            let mut job = case.work.job(&Executor::new(Cpu::new(2)), Fusion::all()).unwrap();
            let (found, truth) = (case.work.result(&mut job).unwrap(), case.work.truth().unwrap());
            let error = super::super::measure::error(&found, &truth.values);
            assert!(error < case.work.bound(Precision::F32), "{}: {error:e}", case.label);
            assert!(plan.flops() > 0 && plan.bytes() > 0);
            case.work.round_trip(&mut job).unwrap();
        }
    }

    #[test]
    fn the_chain_is_one_kernel() {
        let plan = chain(10).plan(Fusion::all()).unwrap();
        assert_eq!(plan.steps().len(), 1, "{plan}");
        // Two arrays in, one out.
        assert_eq!(plan.bytes(), 3 * 4 * 10 * COLS as u64);
    }
}
