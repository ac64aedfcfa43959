//! The help of the whole program: the commands in groups, in the order in which they are needed.

use std::fmt::Write;

use clap::Command;

/// `command` with its subcommands under headings: of each group its heading and how many follow each other. clap has one
/// list for all; this one is made of the same commands, so that none can be left out.
///
/// # Panics
/// When the groups do not hold every command once.
pub fn grouped(command: Command, groups: &[(&str, usize)]) -> Command {
    let text = list(&command, groups);
    let header = *command.get_styles().get_header();
    let template = format!(
        "{{about-with-newline}}\n{{usage-heading}} {{usage}}\n{text}\n{header}Options:{header:#}\n{{options}}{{after-help}}"
    );
    command.help_template(template)
}

fn list(command: &Command, groups: &[(&str, usize)]) -> String {
    let mut commands = command.get_subcommands();
    let width = command.get_subcommands().map(|c| c.get_name().len()).max().unwrap_or(0);
    let (header, literal) = (command.get_styles().get_header(), command.get_styles().get_literal());
    let mut text = String::new();
    for (heading, count) in groups {
        writeln!(text, "\n{header}{heading}:{header:#}").expect("writing to a string");
        for command in commands.by_ref().take(*count) {
            let about = command.get_about().map(ToString::to_string).unwrap_or_default();
            writeln!(text, "  {literal}{:<width$}{literal:#}  {about}", command.get_name())
                .expect("writing to a string");
        }
    }
    assert!(commands.next().is_none(), "a command is in no group");
    text
}
