//! What the command line asks for.

use std::path::PathBuf;

use crate::processes::number;

/// A campaign.
#[derive(Clone, Debug)]
pub struct Options {
    /// How often the node is killed while it serves; while it starts it is killed on top of that.
    pub kills: u64,
    /// How often the power goes while it serves; likewise.
    pub power_cuts: u64,
    /// Draws strikes and writes.
    pub seed: u64,
    /// Where image, log and keys go, if not to the temporary directory.
    pub dir: Option<PathBuf>,
    /// Something that must be noticed.
    pub planted: Option<Planted>,
}

/// A lie about the disk, for tests of whether it is noticed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Planted {
    /// No sync happens, and each is said to have. Only power cuts show it.
    SyncsSkipped,
    /// After a kill the store is what it was when the process last began to be written to.
    StoreRolledBack,
}

impl Planted {
    /// All of them, with the names that the command line knows.
    pub const ALL: [(&'static str, Planted); 2] =
        [("syncs-skipped", Planted::SyncsSkipped), ("store-rolled-back", Planted::StoreRolledBack)];
}

/// For `--help`.
pub const USAGE: &str = "\
crashes: one real node with the only copy of everything, killed and robbed of power again and again; whatever it has acknowledged must
be there afterwards

usage: crashes [options]

  --kills N           kill -9 while it serves [default: 1000]; while it starts it is killed on top of that
  --power-cuts N      power cuts while it serves [default: 100]; likewise
  --seed N            draws strikes and writes [default: from the clock, and printed]
  --dir DIR           where the image (256 MiB, sparse), the log and keys go [default: the temporary directory]
  --planted NAME      a lie that must be noticed, so that exit code 1 is right: syncs-skipped (strace; power cuts show it),
                      store-rolled-back (kills show it)
  --help              this

Power cuts need root, unshare, mount and mkfs.ext4 with loop devices; without these they are left out, and said to be. Exit codes:
0 nothing was lost; 1 something was, or the run met too little, and everything is kept to look into; 2 wrong usage.";

impl Options {
    /// Reads them; `None` if help is wanted.
    ///
    /// # Errors
    /// In words, what is wrong with them.
    pub fn parse(mut words: impl Iterator<Item = String>) -> Result<Option<Options>, String> {
        let seed = rand::random::<u32>().into();
        let mut options = Options { kills: 1000, power_cuts: 100, seed, dir: None, planted: None };
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or(format!("{word} needs a value"));
            match word.as_str() {
                "--help" | "-h" => return Ok(None),
                "--kills" => options.kills = number(&word, &value()?)?,
                "--power-cuts" => options.power_cuts = number(&word, &value()?)?,
                "--seed" => options.seed = number(&word, &value()?)?,
                "--dir" => options.dir = Some(value()?.into()),
                "--planted" => {
                    let name = value()?;
                    let known = Planted::ALL.into_iter().find(|(known, _)| *known == name);
                    options.planted = Some(known.ok_or_else(|| format!("there is no lie {name:?}"))?.1);
                }
                other => return Err(format!("unknown option {other:?}")),
            }
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
        let options = read("--kills 20 --power-cuts 3 --seed 9 --planted syncs-skipped").expect("fine").expect("a run");
        assert_eq!((options.kills, options.power_cuts, options.seed), (20, 3, 9));
        assert_eq!(options.planted, Some(Planted::SyncsSkipped));
        assert!(read("--help").expect("fine").is_none());
        for wrong in ["--kills", "--kills x", "--planted luck", "--what"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
