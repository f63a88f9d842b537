//! Values with units, as people write them in configuration: `64MiB`, `10s`, `true`.
//!
//! Reading and showing are inverse: what `show_*` prints, its reader takes and gives the same value.

use std::time::Duration;

use bytesize::ByteSize;

/// Bytes: a number with an optional unit, `64MiB`, `1.5 GB`, `4096`.
///
/// # Errors
/// What was expected instead.
pub fn bytes(text: &str) -> Result<u64, String> {
    text.trim()
        .parse::<ByteSize>()
        .map(|size| size.0)
        .map_err(|_| "a size such as \"64MiB\", \"2GB\" or 4096".to_owned())
}

/// A span of time, always with a unit: `250ms`, `10s`, `1h 30m`.
///
/// # Errors
/// What was expected instead.
pub fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text.trim())
        .map_err(|_| "a time with its unit, such as \"250ms\", \"10s\" or \"5m\"".to_owned())
}

/// A whole number from `min` on.
///
/// # Errors
/// What was expected instead.
pub fn count(text: &str, min: u64, max: u64) -> Result<u64, String> {
    let plain: String = text.trim().chars().filter(|&c| c != '_').collect();
    match plain.parse() {
        Ok(number) if (min..=max).contains(&number) => Ok(number),
        _ if max == u64::MAX => Err(format!("a whole number, at least {min}")),
        _ => Err(format!("a whole number from {min} to {max}")),
    }
}

/// `true` or `false`.
///
/// # Errors
/// What was expected instead.
pub fn switch(text: &str) -> Result<bool, String> {
    text.trim().parse().map_err(|_| "true or false".to_owned())
}

/// A size in the largest binary unit that divides it, so that nothing is rounded.
pub fn show_bytes(bytes: u64) -> String {
    const UNITS: [(&str, u32); 4] = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];
    let fits = |&(_, shift): &(&str, u32)| bytes >= 1 << shift && bytes.trailing_zeros() >= shift;
    match UNITS.into_iter().find(fits) {
        Some((unit, shift)) => format!("{}{unit}", bytes >> shift),
        None => bytes.to_string(),
    }
}

/// A span of time, exactly.
pub fn show_duration(duration: Duration) -> String {
    humantime::format_duration(duration).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_carry_units() {
        assert_eq!(bytes("64MiB"), Ok(64 << 20));
        assert_eq!(bytes("2 GB"), Ok(2_000_000_000));
        assert_eq!(bytes("4096"), Ok(4096));
        for bad in ["", "-1", "64 bananas", "MiB"] {
            assert!(bytes(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn times_need_units() {
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("1h 30m"), Ok(Duration::from_secs(5400)));
        for bad in ["10", "", "10 parsecs", "-1s"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn counts_stay_within_bounds() {
        assert_eq!(count("16_384", 1, u64::MAX), Ok(16_384));
        assert_eq!(count("0", 1, 9), Err("a whole number from 1 to 9".to_owned()));
        assert!(count("1.5", 0, 9).is_err());
    }

    #[test]
    fn what_is_shown_reads_as_the_same() {
        for size in [0, 1, 1023, 1024, 64 << 20, (64 << 20) + 1, 3 << 30] {
            assert_eq!(bytes(&show_bytes(size)), Ok(size));
        }
        for millis in [1, 250, 1000, 61_500, 3_600_000] {
            let time = Duration::from_millis(millis);
            assert_eq!(duration(&show_duration(time)), Ok(time));
        }
    }
}
