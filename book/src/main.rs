//! `cargo run -p elbo-book -- build | generate | check | time`.

use std::process::ExitCode;

use anyhow::Result;
use elbo_book::{examples, pages, render, root, timing};

const USAGE: &str = "usage: elbo-book COMMAND

  build      renders the book to target/book, or to the folder given as second argument
  generate   rewrites the generated pages of docs/book/src/reference and their part of SUMMARY.md
  check      fails when a generated page is stale, a derivation is missing, a quotation is not in its file, or a command
             prints something else than the chapter says (with `--no-commands`: commands are left out)
  time       measures nanoseconds per element on this machine and writes benches/results/elementwise.json";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words[..] {
        ["build"] => render::build(&root().join("target/book")),
        ["build", folder] => render::build(folder.as_ref()),
        ["generate"] => pages::generate(),
        ["check"] => check(true),
        ["check", "--no-commands"] => check(false),
        ["time"] => timing::measure(),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("elbo-book: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn check(commands: bool) -> Result<()> {
    let mut problems = pages::problems()?;
    problems.extend(examples::quotations()?);
    if commands {
        problems.extend(examples::commands()?);
    }
    for problem in &problems {
        eprintln!("{problem}");
    }
    anyhow::ensure!(problems.is_empty(), "{} places of the book are out of date", problems.len());
    println!("the book says what the code does");
    Ok(())
}
