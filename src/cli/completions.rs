//! `elbo completions`.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::engine::error::Result;

/// Print the completion script of a shell
///
/// bash: `elbo completions bash > ~/.local/share/bash-completion/completions/elbo`; zsh: into a file `_elbo` in a folder of
/// `$fpath`; fish: `elbo completions fish > ~/.config/fish/completions/elbo.fish`.
#[derive(Args)]
pub struct Completions {
    /// The shell
    #[arg(value_name = "SHELL")]
    pub shell: Shell,
}

impl Completions {
    /// Prints the script.
    pub fn run(&self) -> Result<()> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut super::usage::complete(super::Cli::command()), "elbo", &mut script);
        super::print_raw(&String::from_utf8(script).expect("a script is text"))
    }
}
