//! What is asked of a siege.

use std::time::Duration;

use super::Attack;

/// How to use the program.
pub const USAGE: &str = "\
usage: siege [--minutes 1 | --seconds 10] [--attack NAME | --without NAME] [--memory-mib 256]

Attacks a cluster of three processes in each way that it knows, in one of them, or in all but one, for so long, and shows what a client
beside that notices.

attacks: half-open, admin, unread, unread-values, announced, uploads, connections, busy";

/// What is asked.
pub struct Options {
    /// In this order.
    pub attacks: Vec<Attack>,
    /// How long each goes on.
    pub attack: Duration,
    /// How long the good client is alone before and after it; a second for each that it goes on, three at most.
    pub quiet: Duration,
    /// `limits.memory` of the nodes.
    pub memory_mib: u64,
}

impl Default for Options {
    fn default() -> Options {
        let attacks = Attack::ALL.map(|(_, attack)| attack).into();
        Options { attacks, attack: Duration::from_secs(10), quiet: Duration::from_secs(3), memory_mib: 256 }
    }
}

impl Options {
    /// Reads the command line; `None` if help is asked for.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(arguments: impl IntoIterator<Item = String>) -> Result<Option<Options>, String> {
        let mut options = Options::default();
        let mut arguments = arguments.into_iter();
        while let Some(option) = arguments.next() {
            if matches!(option.as_str(), "-h" | "--help") {
                return Ok(None);
            }
            let value = arguments.next().ok_or_else(|| format!("{option} needs a value"))?;
            let attack = || {
                let known = Attack::ALL.into_iter().find(|(name, _)| *name == value);
                known.map(|(_, attack)| attack).ok_or_else(|| format!("there is no attack {value:?}"))
            };
            let number = || value.parse::<u64>().map_err(|_| format!("{option} needs a number, not {value:?}"));
            match option.as_str() {
                "--minutes" => options.attack = Duration::from_secs(60 * number()?),
                "--seconds" => options.attack = Duration::from_secs(number()?),
                "--memory-mib" => options.memory_mib = number()?,
                "--attack" => options.attacks = vec![attack()?],
                "--without" => {
                    let without = attack()?;
                    options.attacks.retain(|known| *known != without);
                }
                _ => return Err(format!("unknown option {option:?}")),
            }
        }
        options.quiet = options.attack.min(Duration::from_secs(3));
        Ok(Some(options))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_line_is_understood_or_refused() {
        let parse = |line: &str| Options::parse(line.split_whitespace().map(str::to_owned));
        let options = parse("--minutes 2 --attack busy --memory-mib 128").expect("fits").expect("is no call for help");
        assert_eq!((options.attack, options.memory_mib), (Duration::from_secs(120), 128));
        assert_eq!(options.quiet, Duration::from_secs(3));
        assert_eq!(options.attacks, [Attack::Busy]);
        let others = parse("--without uploads").expect("fits").expect("is no call for help").attacks;
        assert!(others.len() + 1 == Attack::ALL.len() && !others.contains(&Attack::Uploads));
        assert!(parse("--help").expect("fits").is_none());
        for wrong in ["--attack nothing", "--minutes", "--minutes many", "--fast 1"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
        assert!(Attack::ALL.iter().all(|(name, _)| USAGE.contains(name)));
    }
}
