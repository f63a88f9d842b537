//! What the command line asks for.

use std::path::PathBuf;
use std::time::Duration;

use crate::processes::{Format, minutes, number};

/// A run.
#[derive(Clone, Debug)]
pub struct Options {
    /// What is done.
    pub recipe: Recipe,
    /// Draws the load, who leaves and who is killed.
    pub seed: u64,
    /// How many keys there are.
    pub keys: usize,
    /// How many clients, each with one request under way.
    pub clients: usize,
    /// Operations a second that all clients together begin, about.
    pub rate: u32,
    /// For how long members come and go.
    pub time: Duration,
    /// Whether nodes are killed meanwhile.
    pub kills: bool,
    /// Whether an acknowledged value is taken away behind its writer's back, which must be noticed.
    pub planted: bool,
    /// How the report is printed.
    pub format: Format,
    /// Where the nodes' files go, if not to the temporary directory.
    pub dir: Option<PathBuf>,
    /// Whether these are kept though nothing is broken.
    pub keep: bool,
}

/// What is done with the cluster.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Recipe {
    /// Three nodes, four, six, three.
    Resize,
    /// Two nodes join and leave again and again.
    Churn,
}

/// For `--help`.
pub const USAGE: &str = "\
resize: a live cluster of real nodes that grows and shrinks under load; whatever clients were told must stay true

usage: resize [options]

  --recipe resize     3 nodes, 4, 6, 3, and kill -9 of one that gives, one that takes and one that hands over in each step [default]
  --recipe churn      few keys, many clients, and two nodes that join and leave again and again
  --minutes M         how long that goes on, as 10 or 0.5 [default: 2]
  --keys N            [default: 20000; churn: 10]
  --clients N         each with one request under way [default: 64; churn: 40]
  --rate N            operations a second of all of them together, about [default: 500]
  --no-kills          nobody is killed: what moving alone costs
  --planted           values are removed and put back behind their writers' backs, so that exit code 1 is right
  --seed N            draws load, leavers and victims [default: from the clock, and printed]
  --format text|json  the report for people or as one object [default: text]
  --dir DIR           where the nodes' files go [default: the temporary directory]
  --keep              keep them, though nothing is broken
  --help              this

Exit codes: 0 every promise was kept; 1 one was not, and everything is kept to look into; 2 wrong usage. Latencies are measured
and held against a mark; to miss it is no failure.";

impl Options {
    /// Reads them; `None` if help is wanted.
    ///
    /// # Errors
    /// In words, what is wrong with them.
    pub fn parse(mut words: impl Iterator<Item = String>) -> Result<Option<Options>, String> {
        let (mut recipe, mut keys, mut clients, mut time) = (Recipe::Resize, None, None, None);
        let mut options = Options {
            recipe,
            seed: rand::random::<u32>().into(),
            keys: 0,
            clients: 0,
            rate: 500,
            time: Duration::from_secs(120),
            kills: true,
            planted: false,
            format: Format::Text,
            dir: None,
            keep: false,
        };
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or(format!("{word} needs a value"));
            match word.as_str() {
                "--help" | "-h" => return Ok(None),
                "--recipe" => {
                    recipe = match value()?.as_str() {
                        "resize" => Recipe::Resize,
                        "churn" => Recipe::Churn,
                        other => return Err(format!("there is no recipe {other:?}")),
                    }
                }
                "--minutes" => time = Some(minutes(&word, &value()?)?),
                "--keys" => keys = Some(number(&word, &value()?)?),
                "--clients" => clients = Some(number(&word, &value()?)?),
                "--rate" => options.rate = number(&word, &value()?)?,
                "--no-kills" => options.kills = false,
                "--planted" => options.planted = true,
                "--seed" => options.seed = number(&word, &value()?)?,
                "--dir" => options.dir = Some(value()?.into()),
                "--keep" => options.keep = true,
                "--format" => options.format = value()?.parse()?,
                other => return Err(format!("unknown option {other:?}")),
            }
        }
        if let Some(time) = time {
            if recipe != Recipe::Churn {
                return Err(
                    "--minutes is for --recipe churn: the steps of the other one take as long as they take".into()
                );
            }
            options.time = time;
        }
        let (usual_keys, usual_clients) = match recipe {
            Recipe::Resize => (20_000, 64),
            Recipe::Churn => (10, 40),
        };
        options.recipe = recipe;
        options.keys = keys.unwrap_or(usual_keys);
        options.clients = clients.unwrap_or(usual_clients);
        for (what, count, max) in [("--keys", options.keys, 10_000_000), ("--clients", options.clients, 10_000)] {
            if !(1..=max).contains(&count) {
                return Err(format!("{what} is 1 to {max}"));
            }
        }
        if options.rate == 0 {
            return Err("--rate is at least 1".to_owned());
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
        let options = read("--seed 9 --keys 100 --no-kills --keep").expect("fine").expect("a run");
        assert_eq!((options.seed, options.keys, options.clients), (9, 100, 64));
        assert!(!options.kills && !options.planted && options.keep && options.recipe == Recipe::Resize);
        let churn = read("--minutes 0.5 --recipe churn").expect("fine").expect("a run");
        assert_eq!((churn.keys, churn.clients, churn.time), (10, 40, Duration::from_secs(30)));
        assert!(read("--help").expect("fine").is_none());
        let wrong = "--keys|--keys x|--keys 0|--minutes 1|--recipe churn --minutes -1|--recipe rain|--rate 0|--what";
        for wrong in wrong.split('|') {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
