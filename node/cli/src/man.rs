//! `driftless man DIR`.

use std::path::{Path, PathBuf};

use super::exit::{Failure, Result};
use super::output;

/// For example: driftless man ~/.local/share/man/man1
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// Directory for the pages
    dir: PathBuf,
}

/// Writes a page for the command line and one for each subcommand, and says which.
pub(crate) fn run(args: &Args, command_line: clap::Command) -> Result {
    let failed = |error| Failure::failed(format_args!("cannot write to {}: {error}", args.dir.display()));
    std::fs::create_dir_all(&args.dir).map_err(failed)?;
    for file in write(&args.dir, command_line).map_err(failed)? {
        output::line(file.display())?;
    }
    Ok(())
}

fn write(dir: &Path, command_line: clap::Command) -> std::io::Result<Vec<PathBuf>> {
    // `help` is said on every page.
    let mut command_line = command_line.disable_help_subcommand(true);
    command_line.build();
    let mut files = Vec::new();
    let mut left = vec![command_line];
    while let Some(command) = left.pop() {
        left.extend(command.get_subcommands().filter(|command| !command.is_hide_set()).cloned());
        files.push(clap_mangen::Man::new(command).manual("Driftless").generate_to(dir)?);
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::Cli;

    #[test]
    fn each_subcommand_has_a_page() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let files = write(dir.path(), Cli::command()).expect("can be written");
        let mut left = vec![(String::from("driftless"), Cli::command())];
        let mut count = 0;
        while let Some((name, command)) = left.pop() {
            let page = std::fs::read_to_string(dir.path().join(format!("{name}.1"))).expect(&name);
            let about = command.get_about().expect("says what it is for").to_string();
            let words: Vec<&str> =
                about.split(['\'', '-', '`', '.', ',']).next().expect("is text").split(' ').collect();
            assert!(page.contains(&format!(".TH {name} 1")) && page.contains(&words.join(" ")), "{name}: {page}");
            left.extend(command.get_subcommands().map(|sub| (format!("{name}-{}", sub.get_name()), sub.clone())));
            count += 1;
        }
        assert_eq!(files.len(), count, "{files:?}");
        assert!(count > 30, "only {count} were found");
    }
}
