//! What the pages take from the text of the source, as it stands.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::root;

/// The text of a file, by its path in the repository.
///
/// # Errors
/// When it cannot be read.
pub fn text(path: &str) -> Result<String> {
    let file = root().join(path);
    fs::read_to_string(&file).with_context(|| format!("cannot read {path}"))
}

/// The comment at the head of a file: `//!` of Rust, `//` of CUDA.
///
/// # Errors
/// When the file cannot be read.
pub fn head(path: &str) -> Result<String> {
    let marker = if path.ends_with(".rs") { "//!" } else { "//" };
    let text = text(path)?;
    let lines = text.lines().map_while(|line| line.strip_prefix(marker)).map(|l| l.strip_prefix(' ').unwrap_or(l));
    Ok(lines.collect::<Vec<_>>().join("\n"))
}

/// The `///` comment above the first line that begins with `item`, white space aside.
///
/// # Errors
/// When the file cannot be read or has no such line.
pub fn comment(path: &str, item: &str) -> Result<String> {
    let text = text(path)?;
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let at = lines.iter().position(|l| l.starts_with(item)).with_context(|| format!("{path} has no line {item}"))?;
    let above = lines[..at].iter().rev().filter(|l| !l.starts_with("#[")).map_while(|l| l.strip_prefix("///"));
    let mut words: Vec<&str> = above.map(|l| l.strip_prefix(' ').unwrap_or(l)).collect();
    words.reverse();
    Ok(words.join("\n"))
}

/// The text from the line that holds `start` to the brace that closes what it opens.
///
/// # Errors
/// When the file cannot be read or has no such line.
pub fn item(path: &str, start: &str) -> Result<String> {
    let text = text(path)?;
    let mut lines = text.lines().skip_while(|l| !l.contains(start)).peekable();
    let first = lines.peek().with_context(|| format!("{path} has no line with {start}"))?;
    let indent = first.len() - first.trim_start().len();
    let mut out = String::new();
    for line in lines {
        out.push_str(line.get(indent..).unwrap_or("").trim_end());
        out.push('\n');
        let level = line.len() - line.trim_start().len();
        if level == indent && line.trim_start().starts_with('}')
            || out.lines().count() == 1 && line.trim_end().ends_with(',')
        {
            break;
        }
    }
    Ok(out)
}

/// A comment of Rust as Markdown of the book: links within the crate become code.
pub fn prose(comment: &str) -> String {
    let mut out = String::with_capacity(comment.len());
    let mut rest = comment;
    while let Some(at) = rest.find("[`") {
        let (before, from) = rest.split_at(at);
        out.push_str(before);
        let Some(end) = from.find("`]") else { break };
        out.push_str(&from[1..=end]);
        rest = &from[end + 2..];
        if rest.starts_with('(') {
            rest = rest.find(')').map_or(rest, |close| &rest[close + 1..]);
        }
    }
    out.push_str(rest);
    out
}

/// The line of `kernels/scalar.cuh` that computes a function on a GPU.
///
/// # Errors
/// When there is none.
pub fn cuda_line(name: &str) -> Result<String> {
    let text = text("kernels/scalar.cuh")?;
    let start = format!("X({name}, ");
    let line = text.lines().find(|l| l.trim_start().starts_with(&start));
    let line = line.with_context(|| format!("kernels/scalar.cuh has no {start}…)"))?;
    Ok(line.trim().trim_end_matches('\\').trim().to_string())
}

/// The kernels that a CUDA file defines.
///
/// # Errors
/// When it cannot be read.
pub fn kernels(path: &str) -> Result<Vec<String>> {
    let text = text(path)?;
    let named = text.lines().filter(|l| l.starts_with("ELBO_KERNEL")).filter_map(|l| l.split(['(', ',']).nth(1));
    Ok(named.map(|name| name.trim().to_string()).collect())
}

/// Where graphs are built with a method: the files of the model, the layers and the composed operations, each with the
/// functions in whose text it is called.
///
/// # Errors
/// When the source cannot be read.
pub fn users(calls: &[&str]) -> Result<Vec<(String, Vec<String>)>> {
    let mut files = Vec::new();
    for folder in ["src/engine", "src/engine/ops", "src/vae", "src/vae/likelihood"] {
        rust_files(&root().join(folder), &mut files)?;
    }
    files.sort();
    let mut found = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file)?;
        let functions = callers(text.split("#[cfg(test)]").next().unwrap_or(""), calls);
        if !functions.is_empty() {
            let name = file.strip_prefix(root()).unwrap_or(&file).display().to_string().replace('\\', "/");
            found.push((name, functions));
        }
    }
    Ok(found)
}

fn rust_files(folder: &Path, out: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "rs") {
            out.push(path);
        }
    }
    Ok(())
}

/// The functions that deal with graph values, by their signature, and call one of `calls`.
fn callers(text: &str, calls: &[&str]) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    let (mut name, mut signature, mut open) = (String::new(), String::new(), false);
    for line in text.lines().map(str::trim) {
        let code = line.split("//").next().unwrap_or("");
        if let Some(at) = code.find("fn ").filter(|at| *at == 0 || code[..*at].ends_with(' ')) {
            name = code[at + 3..].chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            (signature, open) = (String::new(), true);
        }
        if open {
            signature.push_str(code);
            open = !code.ends_with('{') && !code.ends_with(';');
        }
        let graph = ["Var", "Graph", "'g", "Cotangents"].iter().any(|word| signature.contains(word));
        if graph && !open && calls.iter().any(|call| code.contains(call)) && !names.contains(&name) {
            names.push(name.clone());
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_of_comments_become_code() {
        assert_eq!(prose("see [`Call`](crate::Call) and [`Op`]."), "see `Call` and `Op`.");
    }

    #[test]
    fn functions_that_build_graphs_are_found_and_others_not() {
        let text =
            "fn a(x: f64) -> f64 {\n x.exp()\n}\nfn b<'g>(\n x: Var<'g>,\n) -> Var<'g> {\n // .log()\n x.exp()\n}\n";
        assert_eq!(callers(text, &[".exp()"]), ["b"]);
        assert!(callers(text, &[".log()"]).is_empty());
    }

    #[test]
    fn an_item_ends_with_its_brace() {
        let text = item("src/engine/ops/scalar.rs", "fn gelu_inner").unwrap();
        assert!(text.starts_with("fn gelu_inner") && text.ends_with("}\n") && text.lines().count() == 3, "{text}");
    }
}
