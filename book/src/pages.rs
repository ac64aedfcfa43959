//! The generated pages: which there are, what stands in them, and whether the files are what would be written now.
//!
//! Nothing of the machine or the hour is in a page. Numbers are rounded to what every machine agrees on, but for the last
//! digit of some and the rounding errors in drawings marked as unsure: [`agree`] allows for those.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use elbo::engine::ops::{BinaryFn, Op, ScalarFn};
use elbo::vae::Estimator;

mod functions;
mod rooms;

use crate::book;

/// What a page is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A function of one number, of the table.
    Scalar(ScalarFn),
    /// A function of two numbers.
    Binary(BinaryFn),
    /// An operation on whole arrays, by its place in [`Op::STRUCTURED`].
    Structured(usize),
    /// An operation that is composed of others, or a source of numbers, by its place in the list.
    Other(usize),
    /// A family of kernels, by its place in the list.
    Kernels(usize),
    /// An estimator of a bound's gradient.
    Gradient(usize),
    /// An estimator of log p(x).
    Evidence(usize),
}

/// Every page, in the order of the book.
pub fn all() -> Vec<Kind> {
    let mut out: Vec<Kind> = ScalarFn::ALL.iter().map(|&f| Kind::Scalar(f)).collect();
    out.extend(BinaryFn::ALL.iter().map(|&f| Kind::Binary(f)));
    out.extend((0..Op::STRUCTURED.len()).map(Kind::Structured));
    out.extend((0..rooms::OTHERS.len()).map(Kind::Other));
    out.extend((0..rooms::KERNELS.len()).map(Kind::Kernels));
    out.extend((0..Estimator::ALL.len()).map(Kind::Gradient));
    out.extend((0..rooms::EVIDENCE.len()).map(Kind::Evidence));
    out
}

impl Kind {
    /// The page's title.
    pub fn title(self) -> String {
        match self {
            Kind::Scalar(f) => f.name().into(),
            Kind::Binary(f) => f.name().into(),
            Kind::Structured(i) => Op::STRUCTURED[i].name().into(),
            Kind::Other(i) => rooms::OTHERS[i].name.into(),
            Kind::Kernels(i) => format!("kernels: {}", rooms::KERNELS[i].0),
            Kind::Gradient(i) => format!("gradient: {}", Estimator::ALL[i].name()),
            Kind::Evidence(i) => format!("log p(x): {}", rooms::EVIDENCE[i].0),
        }
    }

    /// The name of its file, and of its derivation's.
    pub fn file(self) -> String {
        self.title().replace(": ", "-").replace("log p(x)", "evidence").replace([' ', '_'], "-") + ".md"
    }

    /// The part of the book it belongs to.
    pub fn part(self) -> &'static str {
        match self {
            Kind::Scalar(_) => "Functions of one number",
            Kind::Binary(_) => "Functions of two numbers",
            Kind::Structured(_) => "Operations on arrays",
            Kind::Other(_) => "Composed operations and sources",
            Kind::Kernels(_) => "Kernels",
            Kind::Gradient(_) => "Estimators of a bound's gradient",
            Kind::Evidence(_) => "Estimators of log p(x)",
        }
    }

    /// The text between title and derivation in one line, for the index too.
    fn summary(self) -> Result<String> {
        Ok(match self {
            Kind::Scalar(f) => f.doc().into(),
            Kind::Binary(f) => f.doc().into(),
            Kind::Structured(i) => format!("y = {}", Op::STRUCTURED[i].rule().value),
            Kind::Other(i) => rooms::OTHERS[i].summary.into(),
            Kind::Kernels(i) => rooms::KERNELS[i].1.into(),
            Kind::Gradient(i) => rooms::first_sentence(&rooms::estimator(i)?),
            Kind::Evidence(i) => rooms::EVIDENCE[i].2.into(),
        })
    }

    /// The page.
    ///
    /// # Errors
    /// A file of the source that cannot be read or is not laid out as it was.
    pub fn text(self) -> Result<String> {
        let mut out = format!("# {}\n\n{GENERATED}\n\n", self.title());
        match self {
            Kind::Scalar(f) => functions::scalar(&mut out, f)?,
            Kind::Binary(f) => functions::binary(&mut out, f)?,
            Kind::Structured(i) => functions::structured(&mut out, Op::STRUCTURED[i])?,
            Kind::Other(i) => rooms::other(&mut out, i)?,
            Kind::Kernels(i) => rooms::kernels(&mut out, i)?,
            Kind::Gradient(i) => rooms::gradient(&mut out, i)?,
            Kind::Evidence(i) => rooms::evidence(&mut out, i)?,
        }
        Ok(out)
    }

    fn derivation(self) -> String {
        format!("## Derivation\n\n{{{{#include ../../derivations/{}}}}}\n\n", self.file())
    }
}

const GENERATED: &str = "<!-- Written by `cargo run -p elbo-book -- generate`: edit the code, or the derivation. -->";
const INDEX: &str = "reference/index.md";
const MARK: &str = "<!-- Below this line: written by `cargo run -p elbo-book -- generate`. -->";

/// The index of operations.
fn index() -> Result<String> {
    let mut out =
        format!("# Index of operations\n\n{GENERATED}\n\nEvery page is made from the code, but for its derivation.\n");
    let mut part = "";
    for kind in all() {
        if kind.part() != part {
            part = kind.part();
            write!(out, "\n## {part}\n\n| | |\n|---|---|\n")?;
        }
        let summary = functions::cell(&kind.summary()?);
        writeln!(out, "| [`{}`]({}) | {summary} |", kind.title(), kind.file())?;
    }
    Ok(out)
}

/// SUMMARY.md: what stands above the mark is written by hand.
fn summary() -> Result<String> {
    let path = book().join("src/SUMMARY.md");
    let old = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let (head, _) = old.split_once(MARK).with_context(|| format!("SUMMARY.md has no line {MARK}"))?;
    let mut out = format!("{head}{MARK}\n\n# Reference\n\n- [Index of operations]({INDEX})\n");
    let mut part = "";
    for kind in all() {
        if kind.part() != part {
            part = kind.part();
            writeln!(out, "- [{part}](reference/{})", part_file(part))?;
        }
        writeln!(out, "  - [{}](reference/{})", kind.title(), kind.file())?;
    }
    Ok(out)
}

fn part_file(part: &str) -> String {
    format!("part-{}.md", part.to_lowercase().replace(['(', ')', '\''], "").replace(' ', "-"))
}

/// The page of a part: its list.
fn part_page(part: &str) -> Result<String> {
    let mut out = format!("# {part}\n\n{GENERATED}\n\n| | |\n|---|---|\n");
    for kind in all().into_iter().filter(|k| k.part() == part) {
        writeln!(out, "| [`{}`]({}) | {} |", kind.title(), kind.file(), functions::cell(&kind.summary()?))?;
    }
    Ok(out)
}

/// Every generated file with its text.
fn files() -> Result<Vec<(PathBuf, String)>> {
    let src = book().join("src");
    let mut out = vec![(src.join("SUMMARY.md"), summary()?), (src.join(INDEX), index()?)];
    let parts: BTreeSet<&str> = all().into_iter().map(Kind::part).collect();
    for part in parts {
        out.push((src.join("reference").join(part_file(part)), part_page(part)?));
    }
    for kind in all() {
        let text = kind.text().with_context(|| format!("the page of {}", kind.title()))?;
        out.push((src.join("reference").join(kind.file()), text));
    }
    Ok(out)
}

/// Rewrites what is stale, and removes pages of what is no longer there.
///
/// # Errors
/// A file that cannot be read or written.
pub fn generate() -> Result<()> {
    let files = files()?;
    for (path, text) in &files {
        if !fs::read_to_string(path).is_ok_and(|old| agree(&old, text)) {
            fs::create_dir_all(path.parent().context("a folder")?)?;
            fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
            println!("{}", path.display());
        }
    }
    for path in strays(&files)? {
        fs::remove_file(&path)?;
        println!("removed {}", path.display());
    }
    Ok(())
}

/// Pages in the folder that nothing generates.
fn strays(files: &[(PathBuf, String)]) -> Result<Vec<PathBuf>> {
    let there = fs::read_dir(book().join("src/reference"))?.flatten().map(|e| e.path());
    Ok(there.filter(|path| !files.iter().any(|(known, _)| known == path)).collect())
}

/// What is stale or missing, one line each.
///
/// # Errors
/// A file of the source that cannot be read.
pub fn problems() -> Result<Vec<String>> {
    let files = files()?;
    let mut out = Vec::new();
    for (path, text) in &files {
        let name = path.strip_prefix(book()).unwrap_or(path).display();
        match fs::read_to_string(path) {
            Ok(old) if agree(&old, text) => {}
            Ok(old) => out.push(format!("{name} is stale (`elbo-book generate`): {}", first_difference(&old, text))),
            Err(_) => out.push(format!("{name} is missing (`elbo-book generate`)")),
        }
    }
    out.extend(strays(&files)?.iter().map(|path| format!("{} is the page of nothing", path.display())));
    let folder = book().join("derivations");
    let mut wanted = BTreeSet::new();
    for kind in all() {
        wanted.insert(kind.file());
        let lines = fs::read_to_string(folder.join(kind.file())).unwrap_or_default();
        let lines = lines.lines().filter(|l| !l.trim().is_empty() && l.trim() != "$$").count();
        if !(3..=10).contains(&lines) {
            out.push(format!("derivations/{} has {lines} lines: 3 to 10 are wanted", kind.file()));
        }
    }
    for entry in fs::read_dir(&folder)?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if !wanted.contains(&name) {
            out.push(format!("derivations/{name} is the derivation of nothing"));
        }
    }
    Ok(out)
}

fn first_difference(old: &str, new: &str) -> String {
    let at = old.lines().zip(new.lines()).position(|(a, b)| !agree(a, b));
    at.map_or_else(|| "another length".into(), |i| format!("line {}", i + 1))
}

/// Whether two texts are the same but for the last digits of their numbers: by a unit of their last place, and by 20 units
/// of the drawing in a drawing of rounding errors.
pub fn agree(old: &str, new: &str) -> bool {
    if old == new {
        return true;
    }
    let (old, new): (Vec<&str>, Vec<&str>) = (old.lines().collect(), new.lines().collect());
    old.len() == new.len() && old.iter().zip(&new).all(|(a, b)| a == b || near(a, b))
}

fn near(a: &str, b: &str) -> bool {
    let room = if a.contains("figure unsure") { 20.0 } else { 0.0 };
    let (a, b) = (pieces(a), pieces(b));
    a.len() == b.len()
        && a.iter().zip(&b).all(|(a, b)| match (a.parse::<f64>(), b.parse::<f64>()) {
            (Ok(x), Ok(y)) if a.contains('.') && b.contains('.') => {
                let decimals = a.split('.').nth(1).map_or(0, str::len) as i32;
                (x - y).abs() <= room + 1.01 * 0.1f64.powi(decimals)
            }
            _ => a == b,
        })
}

/// Numbers, and what is between them.
fn pieces(line: &str) -> Vec<&str> {
    let number = |c: char| c.is_ascii_digit() || c == '.';
    let (mut out, mut start) = (Vec::new(), 0);
    for (i, pair) in line.char_indices().zip(line.chars().skip(1)).map(|((i, a), b)| (i + a.len_utf8(), (a, b))) {
        if number(pair.0) != number(pair.1) {
            out.push(&line[start..i]);
            start = i;
        }
    }
    out.push(&line[start..]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_digits_may_differ_and_nothing_else() {
        assert!(agree("worst 1.02 ulp", "worst 1.03 ulp") && !agree("worst 1.02 ulp", "worst 1.04 ulp"));
        assert!(!agree("dy * y", "dy * x") && !agree("axis 1", "axis 2") && !agree("a\nb", "a"));
        let drawing = |y: &str| format!("<svg class=\"figure unsure\"><circle cy=\"{y}\">");
        assert!(agree(&drawing("12.5"), &drawing("20.0")) && !agree(&drawing("12.5"), &drawing("120.0")));
    }

    #[test]
    fn every_page_is_there_and_as_the_code_is_and_has_its_derivation() {
        let problems = problems().unwrap();
        assert!(problems.is_empty(), "{}", problems.join("\n"));
    }

    #[test]
    fn files_have_names_of_their_own() {
        let names: BTreeSet<String> = all().into_iter().map(Kind::file).collect();
        assert_eq!(names.len(), all().len());
    }
}
