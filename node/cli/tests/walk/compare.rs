//! Whether a command has printed what a page shows.
//!
//! Words, columns, headings, their order and the sentences at the end must be the same. What differs from run to run is
//! replaced on both sides before:
//!
//! | | by |
//! |---|---|
//! | `127.0.0.1:8400` | `ADDRESS` |
//! | a context token | `CONTEXT` |
//! | twelve and more hexadecimal digits, with a digit among them | `ID` |
//! | `2027-12-31T12:00:00Z` | `DATE` |
//! | what names a plan: `plan 24dd3d40`, `commit 24dd3d40` | `PLAN` |
//! | who was quick enough to decide: `decided by n1, n2` | `DECIDED` |
//! | runs of spaces, which align columns | one |
//! | where [`Numbers::Vary`]: `5,287`, `0.4`, `-3` | `N` |
//! | and such a number with its unit of time or size: `3s`, `0.4 s`, `2m 3s`, `3.2 MiB` | `TIME`, `SIZE` |
//!
//! A line of a page that is `…` and nothing else stands for any lines. Lines that say how far long work is (`loading: …`) are left out: how many
//! there are is the machine's to say.

/// Whether numbers may differ.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Numbers {
    Count,
    Vary,
}

/// What is different, for people; nothing if nothing is.
pub(crate) fn difference(shown: &[String], printed: &str, numbers: Numbers) -> Option<String> {
    let normal = |line: &str| if line == "…" { line.to_owned() } else { normal(line, numbers) };
    let shown: Vec<String> = shown.iter().map(|line| normal(line)).collect();
    let is_progress = |line: &&str| line.starts_with("loading: ") || line.starts_with("dumping: ");
    let printed: Vec<String> = printed.trim_end().lines().filter(|line| !is_progress(line)).map(normal).collect();
    if matches(&shown, &printed) {
        return None;
    }
    let side = |lines: &[String]| lines.iter().map(|line| format!("    {line}\n")).collect::<String>();
    Some(format!("the page shows:\n{}and printed is:\n{}", side(&shown), side(&printed)))
}

fn matches(shown: &[String], printed: &[String]) -> bool {
    match shown.split_first() {
        None => printed.is_empty(),
        Some((first, rest)) if first == "…" => (0..=printed.len()).any(|from| matches(rest, &printed[from..])),
        Some((first, rest)) => printed.first() == Some(first) && matches(rest, &printed[1..]),
    }
}

fn normal(line: &str, numbers: Numbers) -> String {
    let mut text = String::new();
    let mut rest = line.trim_end();
    let mut within_word = false;
    while let Some(c) = rest.chars().next() {
        let (placeholder, length) = match (within_word, c) {
            (_, ' ') => (Some(" "), run(rest, |c| c == ' ')),
            (true, _) => (None, c.len_utf8()),
            (false, _) => variable(rest, numbers),
        };
        let (taken, left) = rest.split_at(length);
        text.push_str(placeholder.unwrap_or(taken));
        // What was replaced ends a word, and so does a sign.
        within_word = placeholder.is_none() && taken.ends_with(char::is_alphanumeric);
        rest = left;
    }
    // "2m 3s" is one time.
    while text.contains("TIME TIME") {
        text = text.replace("TIME TIME", "TIME");
    }
    text
}

/// What begins here and varies, and its length; else a character.
fn variable(rest: &str, numbers: Numbers) -> (Option<&'static str>, usize) {
    let token = run(rest, |c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'));
    if rest.starts_with("AQ") && token >= 20 {
        return (Some("CONTEXT"), token);
    }
    let date = run(rest, |c| c.is_ascii_digit() || matches!(c, '-' | ':' | '.' | 'T'));
    if date >= "2027-12-31T12:00:00".len() && rest[date..].starts_with('Z') {
        return (Some("DATE"), date + 1);
    }
    if let Some(port) = rest.strip_prefix("127.0.0.1:") {
        return (Some("ADDRESS"), rest.len() - port.len() + run(port, |c| c.is_ascii_digit()));
    }
    if let Some(name) = ["plan ", "commit "].iter().find_map(|before| rest.strip_prefix(before))
        && run(name, |c| c.is_ascii_hexdigit()) == 8
    {
        return (Some("PLAN"), rest.len() - name.len() + 8);
    }
    if let Some(names) = rest.strip_prefix("decided by ") {
        return (
            Some("DECIDED"),
            rest.len() - names.len() + run(names, |c| c.is_alphanumeric() || matches!(c, ',' | ' ')),
        );
    }
    let word = run(rest, char::is_alphanumeric);
    let is_id = |word: &str| word.chars().all(|c| c.is_ascii_hexdigit()) && word.contains(|c: char| c.is_ascii_digit());
    if word >= 12 && is_id(&rest[..word]) {
        return (Some("ID"), word);
    }
    match number(rest) {
        Some((placeholder, length)) if numbers == Numbers::Vary => (Some(placeholder), length),
        _ => (None, rest.chars().next().map_or(0, char::len_utf8)),
    }
}

fn number(rest: &str) -> Option<(&'static str, usize)> {
    let sign = usize::from(rest.starts_with('-'));
    let digits = run(&rest[sign..], |c| c.is_ascii_digit() || matches!(c, ',' | '.'));
    let digits = rest[sign..sign + digits].trim_end_matches([',', '.']);
    if !digits.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let length = sign + digits.len();
    let behind = &rest[length..];
    let space = run(behind, |c| c == ' ').min(1);
    let unit = run(&behind[space..], char::is_alphabetic);
    Some(match &behind[space..space + unit] {
        "us" | "µs" | "ms" | "s" | "m" | "h" | "d" => ("TIME", length + space + unit),
        "B" | "KiB" | "MiB" | "GiB" => ("SIZE", length + space + unit),
        _ => ("N", length),
    })
}

fn run(text: &str, belongs: impl Fn(char) -> bool) -> usize {
    text.find(|c| !belongs(c)).unwrap_or(text.len())
}

#[test]
fn what_varies_is_replaced_and_nothing_else() {
    for (line, vary, count) in [
        ("n1    up  33.3 %  5,287  2.5 MiB", "n1 up N % N SIZE", "n1 up 33.3 % 5,287 2.5 MiB"),
        ("    2m 3s ago, n3/216 of bench-0075", " TIME ago, n3/N of bench-N", " 2m 3s ago, n3/216 of bench-0075"),
        ("at 127.0.0.1:7420 (for 12s)", "at ADDRESS (for TIME)", "at ADDRESS (for 12s)"),
        ("context: AQEBwoObxNWcyZbUAQKBgLSb0Pj90A", "context: CONTEXT", "context: CONTEXT"),
        ("token d8fca531885396ee, cafe", "token ID, cafe", "token ID, cafe"),
        ("until 2027-12-31T12:00:00Z.", "until DATE.", "until DATE."),
        ("{\"ms\":-2,\"v\":\"0.1.0\"}", "{\"ms\":N,\"v\":\"N\"}", "{\"ms\":-2,\"v\":\"0.1.0\"}"),
        ("see - or -w", "see - or -w", "see - or -w"),
        ("version 3, plan 24dd3d40", "version N, PLAN", "version 3, PLAN"),
        ("version 3 decided by n1, n2: n4 joins", "version N DECIDED: n4 joins", "version 3 DECIDED: n4 joins"),
    ] {
        assert_eq!(normal(line, Numbers::Vary), vary);
        assert_eq!(normal(line, Numbers::Count), count);
    }
}

#[test]
fn a_word_more_or_less_is_a_difference() {
    let shown = |lines: &[&str]| lines.iter().map(|&line| line.to_owned()).collect::<Vec<_>>();
    let same = |lines: &[&str], printed: &str| difference(&shown(lines), printed, Numbers::Vary).is_none();
    assert!(same(&["A  B", "1  2", "", "All 3 are up."], "A   B\n17  4\n\nAll 5 are up.\n"));
    assert!(!same(&["A  B"], "A  C\n") && !same(&["A  B"], "A  B\nmore\n") && !same(&["A", "B"], "A\n"));
    assert!(!same(&["n1  -"], "n1  3\n"), "a number is not the absence of one");
    assert!(same(&["loaded 5"], "loading: 40 %, 2 records\nloaded 5\n"));
    assert!(same(&["A", "…", "end"], "A\n1\n2\nend\n") && !same(&["A", "…", "end"], "A\n1\n2\n"));
}
