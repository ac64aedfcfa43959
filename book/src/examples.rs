//! What chapters show of the program and of the source, checked: a command prints what stands below it, a quotation is in
//! its file.
//!
//! A block marked `console` holds commands, each behind `$ `, with their output; a line `…` stands for any number of lines.
//! `console,ignore` marks what takes long, needs a run folder or differs from machine to machine. A quotation is a block
//! below `<!-- quote: FILE -->`: its lines are lines of the file, in that order, white space and `…` aside.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::{book, root, source};

/// A fenced block of a chapter.
pub struct Block {
    /// The chapter's file.
    pub chapter: String,
    /// The line of the file that opens it.
    pub line: usize,
    /// What stands behind the fence.
    pub language: String,
    /// The file it quotes.
    pub quoted: Option<String>,
    /// What is in it.
    pub text: String,
}

/// The fenced blocks of all chapters that are written by hand.
///
/// # Errors
/// A file that cannot be read.
pub fn blocks() -> Result<Vec<Block>> {
    let mut chapters: Vec<PathBuf> = fs::read_dir(book().join("src"))?.flatten().map(|e| e.path()).collect();
    chapters.retain(|p| p.extension().is_some_and(|e| e == "md"));
    chapters.sort();
    let mut out = Vec::new();
    for path in chapters {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        out.extend(blocks_of(&name, &fs::read_to_string(&path)?));
    }
    Ok(out)
}

fn blocks_of(chapter: &str, text: &str) -> Vec<Block> {
    let (mut out, mut open): (Vec<Block>, Option<Block>) = (Vec::new(), None);
    let mut quoted = None;
    for (i, line) in text.lines().enumerate() {
        let fence = line.trim_start().strip_prefix("```");
        match (&mut open, fence) {
            (Some(_), Some("")) => out.extend(open.take()),
            (Some(block), _) => {
                block.text.push_str(line);
                block.text.push('\n');
            }
            (None, Some(language)) => {
                let (chapter, language) = (chapter.to_string(), language.trim().to_string());
                open = Some(Block { chapter, line: i + 1, language, quoted: quoted.take(), text: String::new() });
            }
            (None, None) if line.trim().is_empty() => {}
            (None, None) => {
                quoted =
                    line.trim().strip_prefix("<!-- quote: ").and_then(|l| l.strip_suffix(" -->")).map(str::to_string);
            }
        }
    }
    out
}

/// Quotations that are not in their file.
///
/// # Errors
/// A chapter that cannot be read.
pub fn quotations() -> Result<Vec<String>> {
    let mut problems = Vec::new();
    for block in blocks()? {
        let Some(file) = &block.quoted else { continue };
        let missing = match source::text(file) {
            Ok(text) => missing(&block.text, &text).map(|line| format!("{file} has no line `{line}` (in this order)")),
            Err(error) => Some(error.to_string()),
        };
        problems.extend(missing.map(|what| format!("{}:{}: {what}", block.chapter, block.line)));
    }
    Ok(problems)
}

/// The first line of a quotation that the text does not have behind those before it.
fn missing(quotation: &str, text: &str) -> Option<String> {
    let mut lines = text.lines().map(str::trim);
    let wanted = quotation.lines().map(str::trim).filter(|l| !l.is_empty() && *l != "…");
    wanted.into_iter().find(|line| !lines.any(|l| l == *line)).map(str::to_string)
}

/// Commands that print something else than the chapter says. They are run in a folder of their own.
///
/// # Errors
/// The program that cannot be built, or a folder that cannot be made.
pub fn commands() -> Result<Vec<String>> {
    let program = program()?;
    let folder = root().join("target/book-commands");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder)?;
    let mut problems = Vec::new();
    for block in blocks()?.into_iter().filter(|b| b.language == "console") {
        for (command, expected) in parts(&block.text) {
            let Some(arguments) = command.strip_prefix("elbo ") else {
                problems.push(format!("{}:{}: `{command}` is no command of elbo", block.chapter, block.line));
                continue;
            };
            let mut run = Command::new(&program);
            run.args(words(arguments)).current_dir(&folder).env("COLUMNS", "100").env("ELBO_ISA", "portable");
            let ran = run.output().with_context(|| format!("cannot run {}", program.display()))?;
            let mut printed = String::from_utf8_lossy(&ran.stdout).into_owned();
            if !ran.status.success() {
                printed.push_str(&String::from_utf8_lossy(&ran.stderr));
            }
            // A refusal that is meant to be seen is written out; `…` does not stand for one.
            let refused = !ran.status.success() && !expected.contains("elbo: ") && !expected.contains("error: ");
            if refused || !same(&expected, &printed) {
                let place = format!("{}:{}", block.chapter, block.line);
                problems.push(format!("{place}: `{command}` prints\n{printed}instead of\n{expected}"));
            }
        }
    }
    Ok(problems)
}

/// The program that `ELBO_PROGRAM` names, or that of this build, made if it is not there.
fn program() -> Result<PathBuf> {
    if let Some(named) = std::env::var_os("ELBO_PROGRAM") {
        return std::path::absolute(&named).with_context(|| format!("ELBO_PROGRAM, {}", named.display()));
    }
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // Selected together with the book, whose library of the same features is built already.
    cargo.args(["build", "--quiet", "-p", "elbo-book", "-p", "elbo", "--bin", "elbo", "--message-format", "json"]);
    cargo.args(["--no-default-features", "--features", "elbo/cli"]).current_dir(root());
    if !cfg!(debug_assertions) {
        cargo.arg("--release");
    }
    let built = cargo.output().context("cannot run cargo")?;
    anyhow::ensure!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let messages = String::from_utf8_lossy(&built.stdout).into_owned();
    let named = messages.lines().filter_map(|l| serde_json::from_str::<serde_json::Value>(l).ok());
    let program = named.filter_map(|m| m["executable"].as_str().map(PathBuf::from)).next_back();
    program.context("cargo does not say where the program is")
}

/// Commands with what stands below them.
fn parts(block: &str) -> Vec<(String, String)> {
    let mut out: Vec<(String, String)> = Vec::new();
    for line in block.lines() {
        match (line.strip_prefix("$ "), out.last_mut()) {
            (Some(command), _) => out.push((command.trim().to_string(), String::new())),
            (None, Some((_, output))) => {
                output.push_str(line);
                output.push('\n');
            }
            (None, None) => {}
        }
    }
    out
}

/// The words of a command: quotes hold words together, nothing else is special.
fn words(command: &str) -> Vec<String> {
    let (mut out, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for c in command.chars() {
        match (c, quote) {
            (c, Some(q)) if c == q => quote = None,
            ('"' | '\'', None) => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (' ', None) => out.extend(word.take()),
            (c, _) => word.get_or_insert_default().push(c),
        }
    }
    out.extend(word);
    out
}

fn lines(text: &str) -> Vec<&str> {
    text.trim_end().lines().map(str::trim_end).collect()
}

/// Whether the lines agree, white space at their ends aside, where `…` alone stands for any number of them.
fn same(expected: &str, printed: &str) -> bool {
    fn agree(expected: &[&str], printed: &[&str]) -> bool {
        match expected {
            [] => printed.is_empty(),
            ["…", rest @ ..] => (0..=printed.len()).any(|skip| agree(rest, &printed[skip..])),
            [line, rest @ ..] => printed.first() == Some(line) && agree(rest, &printed[1..]),
        }
    }
    agree(&lines(expected), &lines(printed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_found_with_what_they_quote() {
        let text = "a\n<!-- quote: src/lib.rs -->\n```rust,ignore\nx\n```\nb\n```console\n$ elbo info\n1\n```\n";
        let found = blocks_of("c.md", text);
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].quoted.as_deref(), found[0].text.as_str()), (Some("src/lib.rs"), "x\n"));
        assert_eq!((found[1].line, found[1].language.as_str()), (7, "console"));
        assert_eq!(parts(&found[1].text), [("elbo info".to_string(), "1\n".to_string())]);
    }

    #[test]
    fn a_changed_output_and_a_changed_line_are_noticed() {
        assert!(same("a\n…\nc\n", "a\nb\nb\nc\n") && same("a  \n", "a\n"));
        assert!(!same("a\nb\n", "a\nc\n") && !same("a\n", "a\nb\n") && !same("a\nb\n", "a\n"));
        assert_eq!(missing("a\n…\nc\n", "  a\nb\n  c\n"), None);
        assert_eq!(missing("c\na\n", "a\nb\nc\n"), Some("a".into()));
    }

    #[test]
    fn quotes_hold_words_together() {
        assert_eq!(words("derive \"x * y\" --at 'x=1, y=2'"), ["derive", "x * y", "--at", "x=1, y=2"]);
    }

    #[test]
    fn quotations_are_in_their_files() {
        let problems = quotations().unwrap();
        assert!(problems.is_empty(), "{}", problems.join("\n"));
    }
}
