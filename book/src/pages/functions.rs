//! The pages of the functions of the table and of the operations on arrays.

use std::fmt::Write;

use anyhow::Result;
use elbo::engine::ops::{BinaryFn, Op, ScalarFn};
use elbo::gradcheck::StepSweep;

use super::Kind;
use crate::figure::{Figure, Range};
use crate::{facts, measure, source, timing};

/// Text as a cell of a table has it.
pub(super) fn cell(text: &str) -> String {
    text.replace('\n', " ").replace('|', "\\|").replace('<', "&lt;")
}

/// Code as a cell of a table has it.
fn code(text: &str) -> String {
    format!("`{}`", text.replace('|', "\\|"))
}

pub(super) fn scalar(out: &mut String, f: ScalarFn) -> Result<()> {
    let facts = facts::of(f);
    writeln!(out, "{}\n", cell(f.doc()))?;
    writeln!(out, "| | |\n|---|---|")?;
    writeln!(out, "| value, as in the table | {} |", code(&f.formula()))?;
    writeln!(out, "| `dx`, as in the table | {} |", code(&f.derivative()))?;
    writeln!(out, "| on a GPU | {} |", code(&source::cuda_line(f.name())?))?;
    writeln!(out, "| domain | {} |", facts.domain)?;
    writeln!(out, "| kinks | {} |", kinks(facts.kinks))?;
    time_and_users(out, f.name(), &[&format!(".{}()", f.name()), &format!("ScalarFn::{f:?}")])?;
    out.push_str(&Kind::Scalar(f).derivation());
    graphs(out, f)?;
    let mut figures = vec![curves(f, &facts)];
    if facts.at.iter().all(|x| f.eval(*x).is_finite()) && f.derivative() != "0" {
        figures.extend([1, 2].map(|order| v(f.name(), order, &measure::sweep(f, order, facts.at))));
    }
    writeln!(out, "## Drawn\n\n<div class=\"figures\">{}</div>\n", figures[0].svg())?;
    ulp(out, f)?;
    if figures.len() > 1 {
        checked(out, &figures[1..])?;
    }
    Ok(())
}

fn kinks(at: &[f64]) -> String {
    if at.is_empty() { "none".into() } else { at.iter().map(|x| format!("at {x}")).collect::<Vec<_>>().join(", ") }
}

/// The rows on speed and on who calls it, and the end of the table.
fn time_and_users(out: &mut String, name: &str, calls: &[&str]) -> Result<()> {
    if let Some(timing::Timings { machine, isa, date, nanoseconds }) = timing::read()?
        && let Some(ns) = nanoseconds.get(name)
    {
        writeln!(out, "| time | {ns} ns per element, one thread of {machine} ({isa}), {date} |")?;
    }
    writeln!(out, "| used by | {} |\n", used(calls)?)?;
    Ok(())
}

/// Files and functions that make such nodes.
pub(super) fn used(calls: &[&str]) -> Result<String> {
    let users = source::users(calls)?;
    let one = |(file, functions): &(String, Vec<String>)| {
        let names: Vec<String> = functions.iter().map(|name| format!("`{name}`")).collect();
        format!("[{file}](../../../../{file}): {}", names.join(", "))
    };
    let all: Vec<String> = users.iter().map(one).collect();
    Ok(if all.is_empty() { "nothing of the crate itself".into() } else { all.join("<br>") })
}

/// The printed graphs of f′ and f″.
fn graphs(out: &mut String, f: ScalarFn) -> Result<()> {
    writeln!(out, "## The graphs of f′ and f″\n\nWhat `grad` pushes, and what it pushes for that:\n")?;
    for order in [1, 2] {
        writeln!(out, "```text\n{}```\n", measure::derivative_graph(f, order))?;
    }
    Ok(())
}

fn curves(f: ScalarFn, facts: &facts::Facts) -> Figure {
    let (from, to) = facts.drawn;
    let curves = measure::curves(f, from, to);
    let values = || curves.orders.iter().flatten().map(|p| p.1).filter(|y| y.is_finite());
    // Poles are cut off, so that the rest can be seen.
    let (low, high) = (values().fold(0.0, f64::min).max(-6.0), values().fold(0.0, f64::max).min(8.0));
    let room = (high - low) * 0.06;
    let axes = (Range::plain("x", from, to), Range::plain("", low - room, high + room));
    let figure = Figure::new(format!("{} with its first and second derivative", f.name()), axes.0, axes.1);
    let [value, first, second] = curves.orders;
    // A jump is a gap, not a slope.
    let gap = |mut points: Vec<(f64, f64)>, jumps: bool| {
        if jumps {
            let at = points.iter().position(|p| p.0.abs() < 1e-9).unwrap_or(0);
            points[at].1 = f64::NAN;
        }
        points
    };
    let jumps = f.derivative() == "0";
    figure.line("f", gap(value, jumps)).line("f′", gap(first, !facts.kinks.is_empty())).line("f″", second)
}

/// The errors of the f32 kernel over the exponents.
fn ulp(out: &mut String, f: ScalarFn) -> Result<()> {
    let all = measure::errors(f);
    let side = |i: usize| -> Vec<(f64, f64)> {
        all.iter().filter_map(|e| e.worst[i].map(|w| (f64::from(e.exponent), w.1))).collect()
    };
    let worst = all.iter().flat_map(|e| e.worst).flatten().max_by(|a, b| a.1.total_cmp(&b.1)).unwrap_or((0.0, 0.0));
    writeln!(out, "## Error of the f32 kernel\n")?;
    if worst.1 <= 0.5 {
        writeln!(out, "At most {:.2} units in the last place: the exact value, correctly rounded.\n", worst.1)?;
        return Ok(());
    }
    let about = "in units in the last place of the exact value, over the exponents of x: 256 arguments of each sign and exponent \
                 against the same row of the table in f64. The CPU's kernel has these bits on every instruction set.";
    writeln!(out, "The largest error is {:.2}, at x = {}; it is given {about}\n", worst.1, place(worst.0))?;
    let x = Range { name: "|x|", from: -128.0, to: 128.0, step: 32.0, base: 2 };
    let figure =
        Figure::new(format!("largest error of {} in ulp", f.name()), x, Range::plain("ulp", 0.0, worst.1 * 1.1));
    let figure = figure.dots("x < 0", side(0)).dots("x > 0", side(1));
    writeln!(out, "<div class=\"figures\">{}</div>\n", figure.svg())?;
    Ok(())
}

/// An argument with five digits.
fn place(x: f32) -> String {
    let text = if (1e-3..1e4).contains(&x.abs()) { format!("{x:.4}") } else { format!("{x:.4e}") };
    text.replace('-', "−")
}

/// The error of difference quotients against h.
fn v(name: &str, order: usize, sweep: &StepSweep) -> Figure {
    let points = |all: &[(f64, f64)]| all.iter().map(|(h, e)| (h.log10(), e.max(1e-16).log10())).collect::<Vec<_>>();
    let x = Range { name: "h", from: -10.0, to: -1.0, step: 3.0, base: 10 };
    let y = Range { name: "error", from: -16.0, to: 0.0, step: 4.0, base: 10 };
    let what = if order == 1 { "first" } else { "second" };
    let figure =
        Figure::new(format!("{what} derivative of {name}: error of difference quotients against their step"), x, y);
    let (three, five) = (points(&sweep.three_point), points(&sweep.five_point));
    figure.line(format!("order {order}, 3 points"), three).line("5 points", five).unsure()
}

fn checked(out: &mut String, figures: &[Figure]) -> Result<()> {
    let about = "The derivative by the reverse pass against difference quotients of the value, for steps h from 10⁻¹ to 10⁻¹⁰ \
                 ([`GradCheck::sweep`](../../../../src/engine/gradcheck.rs)). Truncation falls with h² or h⁴, rounding grows as ε/h: \
                 a V. A wrong derivative has a floor instead.";
    let drawn: String = figures.iter().map(Figure::svg).collect();
    writeln!(out, "## Checked\n\n{about}\n\n<div class=\"figures\">{drawn}</div>\n")?;
    Ok(())
}

pub(super) fn binary(out: &mut String, f: BinaryFn) -> Result<()> {
    let [da, db] = f.derivatives();
    writeln!(out, "{}\n\n| | |\n|---|---|", cell(f.doc()))?;
    writeln!(out, "| value, as in the table | {} |", code(&f.formula()))?;
    writeln!(out, "| `da`, as in the table | {} |\n| `db`, as in the table | {} |", code(&da), code(&db))?;
    writeln!(
        out,
        "| on a GPU | {} |\n| domain and kinks | {} |",
        code(&source::cuda_line(f.name())?),
        facts::kinks_of(f)
    )?;
    let calls: &[&str] = match f {
        BinaryFn::Add => &[" + "],
        BinaryFn::Sub => &[" - "],
        BinaryFn::Mul => &[" * "],
        BinaryFn::Div => &[" / "],
        BinaryFn::Max => &[".maximum("],
        BinaryFn::Min => &[".minimum("],
        BinaryFn::Lt => &[".lt(", ".gt("],
        BinaryFn::Le => &[".le(", ".ge("],
        BinaryFn::Eq => &[".equal("],
    };
    time_and_users(out, f.name(), calls)?;
    out.push_str(&Kind::Binary(f).derivation());
    if da != "0" {
        let figures = [1, 2].map(|order| v(f.name(), order, &measure::sweep_binary(f, order)));
        checked(out, &figures)?;
    }
    Ok(())
}

pub(super) fn structured(out: &mut String, op: Op) -> Result<()> {
    let rule = op.rule();
    let at = Op::STRUCTURED.iter().position(|o| *o == op).unwrap_or_default();
    writeln!(out, "| | |\n|---|---|\n| inputs | {} |", code(&rule.inputs.join(", ")))?;
    writeln!(out, "| value | {} |", code(&rule.value))?;
    for line in rule.lines() {
        writeln!(out, "| rule | {} |", code(&line))?;
    }
    writeln!(out, "| used by | {} |\n", used(facts::calls(op))?)?;
    out.push_str(&Kind::Structured(at).derivation());
    let example = super::rooms::example(op);
    if let Some((sweeps, graph)) = example {
        writeln!(
            out,
            "## The graph of a gradient\n\nOf a small instance, with the cotangent 1 for each element:\n\n```text\n{graph}```\n"
        )?;
        let figures: Vec<Figure> = sweeps.iter().enumerate().map(|(i, s)| v(op.name(), i + 1, s)).collect();
        checked(out, &figures)?;
    }
    Ok(())
}
