//! Writes the man pages and shell completions of the three programs, or of the emulator, into a
//! folder, from the definitions that the programs themselves read their command lines by.

use anyhow::Context;
use clap::{Command, CommandFactory};
use clap_complete::{Shell, generate_to};
use clap_mangen::Man;
use std::ffi::OsString;
use std::fs;
use std::path::Path;

/// The shells that Debian has completions for.
const SHELLS: [Shell; 3] = [Shell::Bash, Shell::Zsh, Shell::Fish];

fn main() -> anyhow::Result<()> {
    let mut arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let folder = arguments.pop();
    let folder = folder.context("usage: hallmark-manual [--emulator] FOLDER")?;
    fs::create_dir_all(&folder)?;
    let programs = if arguments.iter().any(|it| it == "--emulator") {
        vec![(dps_emulator::arguments::Arguments::command(), "1")]
    } else {
        vec![
            (hallmark_cli::ctl::Arguments::command(), "1"),
            (hallmarkd::commands::arguments::Arguments::command(), "8"),
            (hallmarkd::token::arguments::TokenArguments::command(), "8"),
        ]
    };
    for (program, section) in programs {
        for shell in SHELLS {
            complete(shell, &program, &folder)?;
        }
        let mut program = program.disable_help_subcommand(true);
        program.build();
        write_pages(&program, section, folder.as_ref())?;
    }
    Ok(())
}

fn complete(shell: Shell, program: &Command, folder: &OsString) -> anyhow::Result<()> {
    let name = program.get_name().to_owned();
    generate_to(shell, &mut program.clone(), name, folder)?;
    Ok(())
}

/// One page for each command that is not hidden.
fn write_pages(command: &Command, section: &str, folder: &Path) -> anyhow::Result<()> {
    for below in command.get_subcommands().filter(|it| !it.is_hide_set()) {
        write_pages(below, section, folder)?;
    }
    Man::new(command.clone())
        .section(section)
        .manual("Hallmark")
        .generate_to(folder)?;
    Ok(())
}
