//! Markdown to pages, by mdBook with the template of `docs/book/theme`: one style sheet, no script, no font and nothing of a
//! network, so that the book opens from disk.
//!
//! What mdBook does not do is done around it. Before: formulas are taken out ([`formula`](crate::formula)), exercises are
//! put in the place of their marks, quotations get the name of their file. After: formulas are put back, the list of
//! chapters gets links that fit the page's folder, and links into the repository fit `target/book`.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use elbo::study::exercise::Exercise;
use elbo::study::page::COLOURS;
use mdbook_driver::MDBook;
use mdbook_driver::book::{Book, BookItem};
use mdbook_preprocessor::{Preprocessor, PreprocessorContext};

use crate::book;
use crate::formula::Formulas;

/// Renders the book into a folder, which is replaced.
///
/// # Errors
/// A file that cannot be read or written, a chapter that is missing, a formula that is not understood.
pub fn build(folder: &Path) -> Result<()> {
    let mut loaded = MDBook::load(book())?;
    loaded.config.build.build_dir = std::path::absolute(folder)?;
    let formulas = Arc::new(Mutex::new(Formulas::default()));
    loaded.with_preprocessor(Before { formulas: Arc::clone(&formulas) });
    loaded.build()?;
    let formulas = formulas.lock().unwrap_or_else(PoisonError::into_inner);
    let mut pages = Vec::new();
    files(folder, &mut pages)?;
    for page in pages {
        finish(folder, &page, &formulas)?;
    }
    println!("{}", folder.join("index.html").display());
    Ok(())
}

/// What happens to a chapter before mdBook renders it.
struct Before {
    formulas: Arc<Mutex<Formulas>>,
}

impl Preprocessor for Before {
    fn name(&self) -> &str {
        "elbo"
    }

    fn run(&self, _: &PreprocessorContext, mut book: Book) -> Result<Book> {
        let mut formulas = self.formulas.lock().unwrap_or_else(PoisonError::into_inner);
        let mut failed = None;
        book.for_each_mut(|item| {
            let BookItem::Chapter(chapter) = item else { return };
            let page = chapter.path.clone().unwrap_or_default();
            match prepared(&chapter.content, &page).and_then(|text| formulas.take_out(&text)) {
                Ok(text) => chapter.content = text,
                Err(error) => failed = failed.take().or(Some(error.context(format!("chapter {}", page.display())))),
            }
        });
        failed.map_or(Ok(book), Err)
    }
}

/// The pages that are included from `docs/`, whose links start from there.
const INCLUDED: [&str; 2] = ["architecture.md", "rejected.md"];

/// The chapter with its exercises, and each quotation under the name of its file.
fn prepared(content: &str, page: &Path) -> Result<String> {
    let mut out = String::with_capacity(content.len());
    for line in content.lines() {
        if let Some(chapter) = line.trim().strip_prefix("{{exercises ").and_then(|l| l.strip_suffix("}}")) {
            out.push_str(&exercises(chapter.trim())?);
        } else if let Some(file) = line.trim().strip_prefix("<!-- quote: ").and_then(|l| l.strip_suffix(" -->")) {
            out.push_str(&format!("<p class=\"quoted\"><code>{file}</code></p>\n"));
        } else {
            out.push_str(line);
        }
        out.push('\n');
    }
    if INCLUDED.iter().any(|name| page == Path::new(name)) {
        out = out.replace("](../", "](../../../");
    }
    Ok(out)
}

/// The exercises of a chapter as a list.
fn exercises(chapter: &str) -> Result<String> {
    let all: Vec<Exercise> = Exercise::all().into_iter().filter(|e| e.chapter == chapter).collect();
    anyhow::ensure!(!all.is_empty(), "docs/book/exercises.toml has no exercise of the chapter {chapter}");
    let mut out = String::new();
    for exercise in all {
        out.push_str(&format!("**{}** {}\n\n", exercise.id, exercise.text.trim()));
        for (i, choice) in exercise.choices.iter().enumerate() {
            out.push_str(&format!("{}. {choice}\n", i + 1));
        }
        out.push('\n');
    }
    out.push_str("To check an answer: `elbo exercise NUMBER --answer …`.\n");
    Ok(out)
}

fn files(folder: &Path, out: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() { files(&path, out)? } else { out.push(path) }
    }
    Ok(())
}

/// Puts formulas and links of a page right. What else mdBook writes (scripts, fonts, styles of its own) is not used by the
/// template and goes.
fn finish(folder: &Path, page: &Path, formulas: &Formulas) -> Result<()> {
    let name = page.strip_prefix(folder).unwrap_or(page);
    let keep = name.to_string_lossy();
    if page.extension().is_none_or(|e| e != "html") || keep.starts_with("toc") || keep.starts_with("404") {
        if !keep.starts_with("pictures") {
            fs::remove_file(page)?;
            let _ = fs::remove_dir(page.parent().unwrap_or(folder)); // which succeeds when it is empty
        }
        return Ok(());
    }
    let html = fs::read_to_string(page).with_context(|| format!("cannot read {}", page.display()))?;
    let depth = name.components().count() - 1;
    let html = heads(&formulas.put_back(&accessible(&linked(&html, &"../".repeat(depth), &keep))));
    let style = fs::read_to_string(book().join("theme/book.css"))?;
    let html = html.replace("<style></style>", &format!("<style>\n{COLOURS}{style}</style>"));
    fs::write(page, html).with_context(|| format!("cannot write {}", page.display()))
}

/// What scrolls by itself can be reached by keyboard, and no cell without words is the head of a column.
fn accessible(html: &str) -> String {
    html.replace("<thead><tr><th></th><th></th></tr></thead>", "")
        .replace("<th></th>", "<td></td>")
        .replace("<pre>", "<pre tabindex=\"0\">")
        .replace("<pre class", "<pre tabindex=\"0\" class")
        .replace("<div class=\"table-wrapper\">", "<div class=\"table-wrapper\" tabindex=\"0\">")
}

/// A formula alone is no head of a column to a screen reader, which looks for words: it becomes a cell that looks like one.
fn heads(html: &str) -> String {
    let mut parts = html.split("<th>");
    let mut out = parts.next().unwrap_or("").to_string();
    for part in parts {
        match part.split_once("</th>") {
            Some((cell, rest)) if cell.starts_with("<math") && cell.ends_with("</math>") => {
                out.push_str(&format!("<td class=\"head\">{cell}</td>{rest}"));
            }
            _ => {
                out.push_str("<th>");
                out.push_str(part);
            }
        }
    }
    out
}

/// The links of a page `up` below the book's folder. A chapter's links into the repository start in `docs/book/src`, which
/// is one folder deeper than `target/book`.
fn linked(html: &str, up: &str, page: &str) -> String {
    let html = html.replace(&format!("\"{up}../../../"), &format!("\"{up}../../"));
    let Some((before, rest)) = html.split_once("<nav id=\"contents\"") else { return html };
    let Some((list, after)) = rest.split_once("</nav>") else { return html.clone() };
    let here = format!("href=\"{page}\"");
    let list = list.replace(&here, &format!("aria-current=\"page\" {here}"));
    let list = list.replace("href=\"", &format!("href=\"{up}")).replace(" target=\"_parent\"", "");
    format!("{before}<nav id=\"contents\"{list}</nav>{after}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_scrolls_has_a_place_in_the_order_of_the_keyboard() {
        let page = accessible("<pre><code>a</code></pre><pre class=\"playground\"><th></th>");
        assert_eq!(page.matches("tabindex").count(), 2);
        assert!(!page.contains("<th>") && page.contains("<td></td>"), "{page}");
        let formula = heads("<th>a</th><th><math>b</math></th>");
        assert_eq!(formula, "<th>a</th><td class=\"head\"><math>b</math></td>");
    }

    #[test]
    fn links_fit_the_folder_of_the_page() {
        let html = "<nav id=\"contents\"><a href=\"reference/exp.html\"></a></nav><a href=\"../../../../src/lib.rs\">";
        let page = linked(html, "../", "reference/exp.html");
        assert!(page.contains("<a aria-current=\"page\" href=\"../reference/exp.html\">"), "{page}");
        assert!(page.contains("href=\"../../../src/lib.rs\""), "{page}");
    }
}
