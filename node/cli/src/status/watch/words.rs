//! Numbers and times as a view shows them that has little room.

use std::time::Duration;

use crate::output::grouped;
pub(super) use crate::output::rate;

/// What is not known, or not there.
pub(super) const NOTHING: &str = "-";

/// A time in which something is answered: `310 µs`, `1.2 ms`, `2.5 s`.
pub(super) fn short(time: Option<Duration>) -> String {
    let Some(time) = time else { return NOTHING.to_owned() };
    match time.as_micros() {
        micros @ 0..1_000 => format!("{micros} µs"),
        micros @ 1_000..9_950 => format!("{:.1} ms", micros as f64 / 1e3),
        micros @ 9_950..999_500 => format!("{:.0} ms", micros as f64 / 1e3),
        micros => format!("{:.1} s", micros as f64 / 1e6),
    }
}

/// A span: the two largest units of it, begun ones counted.
pub(super) fn span(time: Duration) -> String {
    let seconds = time.as_millis().div_ceil(1000);
    let units = [("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1)];
    let at = units.iter().position(|(_, length)| seconds >= *length).unwrap_or(units.len() - 1);
    let (unit, length) = units[at];
    let rest = units.get(at + 1).map(|(unit, part)| (seconds % length / part, unit)).filter(|(count, _)| *count > 0);
    let rest = rest.map_or(String::new(), |(count, unit)| format!(" {count} {unit}"));
    format!("{} {unit}{rest}", seconds / length)
}

/// The same of milliseconds, if they are known.
pub(super) fn span_of(milliseconds: Option<u64>) -> String {
    milliseconds.map_or(NOTHING.to_owned(), |ms| span(Duration::from_millis(ms)))
}

/// How long ago, without more than matters: `59 s`, `3 min`.
pub(super) fn age(time: Duration) -> String {
    span(time).split(' ').take(2).collect::<Vec<_>>().join(" ")
}

/// `1 key`, `1,200 keys`.
pub(super) fn counted(number: u64, what: &str) -> String {
    format!("{} {what}{}", grouped(number), if number == 1 { "" } else { "s" })
}

/// By how much a clock is ahead: `+2 ms`, `-1 h`.
pub(super) fn offset(milliseconds: i64) -> String {
    match milliseconds {
        0 => "0 ms".to_owned(),
        -9_999..=9_999 => format!("{milliseconds:+} ms"),
        _ => {
            let off = span(Duration::from_millis(milliseconds.unsigned_abs()));
            format!("{}{off}", if milliseconds < 0 { '-' } else { '+' })
        }
    }
}

/// Some names, of which not all have to be said.
pub(super) fn named<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let names: Vec<&str> = names.into_iter().collect();
    match names.len().checked_sub(NAMES_MAX) {
        Some(more) if more > 1 => format!("{} and {more} more", names[..NAMES_MAX].join(", ")),
        _ => names.join(", "),
    }
}

const NAMES_MAX: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_as_long_as_they_matter() {
        assert_eq!([0.0, 0.4, 9.96, 1_234.5].map(rate), ["0", "0.4", "10", "1,235"]);
        let micros = |count| short(Some(Duration::from_micros(count)));
        assert_eq!([310, 1_240, 25_400, 2_500_000].map(micros), ["310 µs", "1.2 ms", "25 ms", "2.5 s"]);
        assert_eq!(short(None), NOTHING);
        let seconds = |count| span(Duration::from_secs(count));
        assert_eq!([0, 59, 75, 3_600, 90_061].map(seconds), ["0 s", "59 s", "1 min 15 s", "1 h", "1 d 1 h"]);
        assert_eq!(age(Duration::from_secs(75)), "1 min");
        assert_eq!([0, 2, -250, 3_600_000, -86_460_000].map(offset), ["0 ms", "+2 ms", "-250 ms", "+1 h", "-1 d"]);
        assert_eq!((counted(1, "key"), counted(1_200, "key")), ("1 key".to_owned(), "1,200 keys".to_owned()));
        assert_eq!(named(["a", "b", "c", "d", "e"]), "a, b, c, d, e");
        assert_eq!(named(["a", "b", "c", "d", "e", "f"]), "a, b, c, d and 2 more");
    }
}
