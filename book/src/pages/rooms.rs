//! The pages of what is not in a table: composed operations, kernels, estimators; and small instances of the operations on
//! arrays.

use std::fmt::Write;

use anyhow::Result;
use elbo::engine::ops::Op;
use elbo::gradcheck::{GradCheck, Point, StepSweep};
use elbo::vae::Estimator;
use elbo::{Graph, Var, grad};

use super::Kind;
use super::functions::used;
use crate::source;

/// An operation that is no node of its own, or a source of numbers.
pub(super) struct Other {
    pub name: &'static str,
    pub summary: &'static str,
    file: &'static str,
    item: &'static str,
    calls: &'static [&'static str],
}

/// The operations that are composed of others, and the sources.
pub(super) const OTHERS: &[Other] = &[
    Other {
        name: "log_sum_exp",
        summary: "ln Σ exp over axes",
        file: "src/engine/ops/reduce.rs",
        item: "pub fn log_sum_exp",
        calls: &[".log_sum_exp("],
    },
    Other {
        name: "argmax",
        summary: "the index of the largest element over an axis",
        file: "src/engine/ops/reduce.rs",
        item: "pub fn argmax",
        calls: &[".argmax("],
    },
    Other {
        name: "mean",
        summary: "the mean over axes",
        file: "src/engine/ops/reduce.rs",
        item: "pub fn mean(",
        calls: &[".mean("],
    },
    Other {
        name: "leaky_relu",
        summary: "max(x, 0) + slope · min(x, 0)",
        file: "src/engine/ops/mod.rs",
        item: "pub fn leaky_relu",
        calls: &[".leaky_relu("],
    },
    Other {
        name: "normal",
        summary: "standard normal noise, a pure function of seed, step, stream and element",
        file: "src/engine/graph.rs",
        item: "pub fn normal",
        calls: &[".normal("],
    },
    Other {
        name: "uniform",
        summary: "uniform noise in [0, 1), a pure function of seed, step, stream and element",
        file: "src/engine/graph.rs",
        item: "pub fn uniform",
        calls: &[".uniform("],
    },
    Other {
        name: "custom_vjp",
        summary: "a value with a rule of differentiation of one's own",
        file: "src/engine/ops/custom.rs",
        item: "pub fn custom_vjp",
        calls: &["custom_vjp("],
    },
    Other {
        name: "custom_op",
        summary: "an operation with a kernel of one's own",
        file: "src/engine/ops/custom.rs",
        item: "pub fn custom_op",
        calls: &["custom_op("],
    },
];

/// The families of kernels: the room of `src/engine/steps`, and what it does.
pub(super) const KERNELS: &[(&str, &str)] = &[
    ("gemm", "the matrix product, with a pointwise program as its epilogue and column sums on the side"),
    ("pointwise", "pointwise programs on their own"),
    ("batch", "the batch, gathered from the resident data"),
    ("reduce", "sums and maxima over axes"),
    ("softmax", "the softmax of rows and its logarithm, with their gradients"),
    ("layout", "everything that only moves elements"),
    ("scalars", "partial sums to scalars, and arithmetic on scalars"),
    ("custom", "operations that users of the library bring"),
    ("optimize", "the update of all parameters"),
];

/// The estimators of log p(x): name, file of `src/study/evidence`, what they are.
pub(super) const EVIDENCE: &[(&str, &str, &str)] = &[
    ("importance", "importance", "the importance weighted bound L_k, with draws from the encoder's q(z|x)"),
    ("prior", "importance", "naive Monte Carlo: the same with draws from the prior"),
    ("quadrature", "quadrature", "the trapezoid rule, for one or two latent dimensions"),
    ("ais", "ais", "annealed importance sampling with Hamiltonian transitions"),
    ("harmonic", "harmonic", "the harmonic mean of p(x|z) over the posterior, which fails"),
];

/// What the estimator says of itself.
pub(super) fn estimator(i: usize) -> Result<String> {
    let variant = format!("{:?},", Estimator::ALL[i]);
    Ok(source::prose(&source::comment("src/vae/bound.rs", &variant)?))
}

/// The text up to the full stop of its first sentence, on one line.
pub(super) fn first_sentence(text: &str) -> String {
    let line = text.replace('\n', " ");
    let end = line.find(". ").unwrap_or(line.len());
    line[..end].trim_end_matches('.').to_string()
}

pub(super) fn other(out: &mut String, i: usize) -> Result<()> {
    let Other { file, item, calls, .. } = &OTHERS[i];
    // Examples of the documentation are run as its tests; here stands the text before them.
    let comment = source::prose(&source::comment(file, item)?);
    let text = comment.split("```").next().unwrap_or("").split("# Panics").next().unwrap_or("").trim();
    writeln!(out, "{text}\n\n| | |\n|---|---|\n| defined in | [{file}](../../../../{file}) |")?;
    writeln!(out, "| used by | {} |\n", used(calls)?)?;
    out.push_str(&Kind::Other(i).derivation());
    writeln!(out, "## As it stands in the code\n\n```rust,ignore\n{}```\n", source::item(file, item)?)?;
    Ok(())
}

pub(super) fn kernels(out: &mut String, i: usize) -> Result<()> {
    let (room, summary) = KERNELS[i];
    let file = [format!("src/engine/steps/{room}.rs"), format!("src/engine/steps/{room}/mod.rs")];
    let file = file.iter().find(|f| crate::root().join(f).is_file()).map_or("", String::as_str);
    writeln!(out, "In short: {summary}.\n\n## On the CPU: [{file}](../../../../{file})\n")?;
    writeln!(out, "{}\n", source::prose(&source::head(file)?))?;
    out.push_str(&Kind::Kernels(i).derivation());
    let twin = format!("kernels/{room}.cu");
    if !crate::root().join(&twin).is_file() {
        writeln!(out, "## On a GPU\n\nThere is no such kernel: the operation is composed of others there.\n")?;
        return Ok(());
    }
    let names: Vec<String> = source::kernels(&twin)?.iter().map(|name| format!("`{name}`")).collect();
    writeln!(out, "## On a GPU: [{twin}](../../../../{twin})\n\nKernels: {}.\n", names.join(", "))?;
    writeln!(out, "```text\n{}\n```\n", source::head(&twin)?.trim_end())?;
    if room == "gemm" {
        ladder(out)?;
    }
    Ok(())
}

/// The steps from the definition of a product to the kernel in use.
fn ladder(out: &mut String) -> Result<()> {
    writeln!(out, "## The ladder\n\nFrom the definition to the tensor cores, one file each:\n")?;
    let mut files: Vec<String> = std::fs::read_dir(crate::root().join("kernels/dev"))?
        .flatten()
        .map(|e| e.file_name().to_string_lossy().into_owned())
        .filter(|file| file.ends_with(".cu"))
        .collect();
    // By their numbers: the tenth comes last.
    files.sort_by_key(|file| file.split('_').nth(1).and_then(|number| number.parse::<u32>().ok()));
    for file in files {
        let head = source::head(&format!("kernels/dev/{file}"))?;
        let first = head.split("\n\n").next().unwrap_or("").replace('\n', " ");
        writeln!(out, "* [{file}](../../../../kernels/dev/{file}): {first}")?;
    }
    writeln!(out)?;
    Ok(())
}

pub(super) fn gradient(out: &mut String, i: usize) -> Result<()> {
    writeln!(out, "{}\n", estimator(i)?)?;
    let name = Estimator::ALL[i].name();
    writeln!(
        out,
        "Chosen by `elbo train --estimator {name}`; defined in [src/vae/bound.rs](../../../../src/vae/bound.rs).\n"
    )?;
    out.push_str(&Kind::Gradient(i).derivation());
    writeln!(
        out,
        "## As it stands in the code\n\nAll estimators are one function of [src/vae/objective.rs](../../../../src/vae/objective.rs):\n"
    )?;
    let mut shown = source::item("src/vae/objective.rs", "fn sampled<'g>")?;
    if Estimator::ALL[i] == Estimator::DoublyReparameterised {
        shown.push('\n');
        shown.push_str(&source::item("src/vae/objective.rs", "fn doubly_reparameterised<'g>")?);
    }
    if Estimator::ALL[i] == Estimator::ScoreFunctionBaseline {
        shown.push('\n');
        shown.push_str(&source::item("src/vae/objective.rs", "fn mean_of_the_others")?);
    }
    writeln!(out, "```rust,ignore\n{shown}```\n")?;
    Ok(())
}

pub(super) fn evidence(out: &mut String, i: usize) -> Result<()> {
    let (_, file, summary) = EVIDENCE[i];
    let path = format!("src/study/evidence/{file}.rs");
    writeln!(out, "In short: {}.\n\nDefined in [{path}](../../../../{path}):\n", summary.replace('|', "∣"))?;
    writeln!(out, "{}\n", source::prose(&source::head(&path)?))?;
    out.push_str(&Kind::Evidence(i).derivation());
    Ok(())
}

/// A small instance of an operation: the errors of its difference quotients in both orders, and its gradient's graph. None
/// for an operation without a gradient, and for one that needs a node of another to be made.
pub(super) fn example(op: Op) -> Option<(Vec<StepSweep>, String)> {
    type Make = for<'g> fn(&'g Graph, &[Var<'g>]) -> Var<'g>;
    let make: Make = match op {
        Op::Pow(_) => |_, x| (x[0].square() + 0.5).pow(1.5),
        Op::Select => |_, x| x[0].lt(x[1]).select(x[0].tanh(), x[1]),
        Op::MatMul { .. } => |_, x| x[0].matmul(x[1].t()),
        Op::Sum(_) => |_, x| x[0].sum(&[1]),
        Op::MaxOver(_) => |_, x| x[0].max(&[1]),
        Op::Softmax { log: false } => |_, x| x[0].softmax(1),
        Op::Softmax { log: true } => |_, x| x[0].log_softmax(1),
        Op::Broadcast => |_, x| x[0].reshape(&[2, 1, 3]).broadcast_to(&[2, 2, 3]),
        Op::Reshape => |_, x| x[0].reshape(&[3, 2]),
        Op::Transpose => |_, x| x[0].t(),
        Op::SliceCols(_) => |_, x| x[0].slice_cols(1, 2),
        Op::ConcatCols => |g, x| g.concat_cols(&[x[0], x[1]]),
        Op::GatherRows => |g, x| x[0].gather_rows(g.tensor(&[3], &[1.0, 0.0, 1.0])),
        Op::ScatterRows => |g, x| x[0].scatter_rows(g.tensor(&[2], &[2.0, 0.0]), 3),
        Op::Pick => |g, x| x[0].pick(g.tensor(&[2], &[2.0, 0.0])),
        _ => return None,
    };
    let values = [[0.3, -0.8, 1.1, 0.6, -1.4, 0.2], [1.2, 0.4, -0.7, -0.3, 0.9, 1.6]];
    let point = Point::new().input("a", &[2, 3], &values[0]).input("b", &[2, 3], &values[1]);
    let first = GradCheck::default().sweep(make, &point);
    let second = GradCheck::default().sweep(
        |g, x| {
            let bent = make(g, x).tanh().sum_all();
            grad(bent, x).into_iter().reduce(|a, b| a + b).expect("two inputs")
        },
        &point,
    );
    let g = Graph::new();
    let inputs = [g.param("a", &[2, 3]), g.param("b", &[2, 3])];
    let gradient = grad(make(&g, &inputs).sum_all(), &inputs);
    let mut graph = String::new();
    for (i, line) in g.to_string().lines().enumerate() {
        let columns: Vec<&str> = line.split("  ").map(str::trim).filter(|c| !c.is_empty()).collect();
        let shape =
            columns.get(1).and_then(|c| c.split("src/").next()).and_then(|c| c.split("book/").next()).unwrap_or("");
        let mark = ["a", "b"].iter().zip(&gradient).find(|(_, v)| v.id().index() == i);
        let mark = mark.map_or(String::new(), |(name, _)| format!("← d{name}"));
        let row = format!("{:<44} {:<8} {mark}", columns[0], shape.trim());
        writeln!(graph, "{}", row.trim_end()).expect("memory");
    }
    Some((vec![first, second], graph))
}
