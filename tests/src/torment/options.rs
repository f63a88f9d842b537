//! What the command line asks for.

use std::path::PathBuf;
use std::time::Duration;

use super::plan::Fault;
use crate::processes::{Format, minutes, number};

/// A run.
#[derive(Clone, Debug)]
pub struct Options {
    /// How long faults go on. What is under way then is still ended and judged.
    pub time: Duration,
    /// Draws the plan of faults.
    pub seed: u64,
    /// How many nodes.
    pub nodes: u16,
    /// Only these faults.
    pub faults: Vec<Fault>,
    /// How the summary is written.
    pub format: Format,
    /// Where images, logs and certificates go, if not to the temporary directory.
    pub dir: Option<PathBuf>,
    /// Only name the faults.
    pub lists: bool,
}

/// For `--help`.
pub const USAGE: &str = "\
torment: five real nodes on disks of their own, under real faults and clients that remember what they were promised

usage: torment [options]

  --minutes M         how long, as 10 or 0.5 [default: 10]; 600 is a soak
  --seed N            draws the plan of faults [default: from the clock, and printed]
  --scenario NAME     only this fault; may be given several times
  --nodes N           3 to 9 [default: 5]
  --dir DIR           where images (384 MiB each, sparse), logs and keys go [default: the temporary directory]
  --format text|json  the summary for people or as one object [default: text]
  --list              the faults, and what is missing here for which
  --help              this

Faults need root, unshare, ip, mount, mkfs.ext4 and strace; those for which something is missing are left out, and
said to be. Exit codes: 0 every promise was kept; 1 one was not, and everything is kept to look into; 2 wrong usage.";

impl Options {
    /// Reads them; `None` if help is wanted.
    ///
    /// # Errors
    /// In words, what is wrong with them.
    pub fn parse(mut words: impl Iterator<Item = String>) -> Result<Option<Options>, String> {
        let mut options = Options {
            time: Duration::from_secs(600),
            seed: rand::random::<u32>().into(),
            nodes: 5,
            faults: Vec::new(),
            format: Format::Text,
            dir: None,
            lists: false,
        };
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or(format!("{word} needs a value"));
            match word.as_str() {
                "--help" | "-h" => return Ok(None),
                "--list" => options.lists = true,
                "--minutes" => options.time = minutes(&word, &value()?)?,
                "--seed" => options.seed = number(&word, &value()?)?,
                "--nodes" => options.nodes = number(&word, &value()?)?,
                "--dir" => options.dir = Some(value()?.into()),
                "--format" => options.format = value()?.parse()?,
                "--scenario" => {
                    let name = value()?;
                    let known = Fault::ALL.into_iter().find(|(known, _)| *known == name);
                    let (_, fault) = known.ok_or_else(|| format!("there is no scenario {name:?}; see --list"))?;
                    options.faults.push(fault);
                }
                other => return Err(format!("unknown option {other:?}")),
            }
        }
        if !(3..=9).contains(&options.nodes) {
            return Err("--nodes is 3 to 9".to_owned());
        }
        if options.faults.is_empty() {
            options.faults = Fault::ALL.map(|(_, fault)| fault).into();
        }
        Ok(Some(options))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Option<Options>, String> {
        Options::parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn options_are_read() {
        let options = read("--minutes 0.5 --seed 9 --scenario kill --scenario pause").expect("fine").expect("a run");
        assert_eq!((options.time, options.seed), (Duration::from_secs(30), 9));
        assert_eq!(options.faults, [Fault::Kill, Fault::Pause]);
        assert_eq!(read("").expect("fine").expect("a run").faults.len(), Fault::ALL.len());
        assert!(read("--help").expect("fine").is_none());
        for wrong in ["--minutes", "--minutes x", "--minutes -1", "--nodes 2", "--scenario rain", "--what"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
