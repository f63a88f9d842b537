//! What pages of `docs/` say that code says too: constants, in tables whose rows begin `` | `NAME` | 65,536 | `file` | ``, and bytes, in
//! blocks of the language `hex,NAME`, with what they mean behind two blanks.

use std::fmt::Write;
use std::ops::Range;

/// Holds the constants that a page takes from files which begin so against those of the code: the same names, the same numbers.
#[track_caller]
pub fn assert_constants(page: &str, files: &str, code: &[(&str, u64)]) {
    let sorted = |mut all: Vec<(String, u64)>| {
        all.sort();
        all
    };
    let code = sorted(code.iter().map(|(name, number)| ((*name).to_owned(), *number)).collect());
    let written = sorted(constants(page, files));
    let only = |these: &[(String, u64)], those: &[(String, u64)]| {
        these
            .iter()
            .filter(|one| !those.contains(one))
            .map(|(name, number)| format!("{name} {number}"))
            .collect::<Vec<_>>()
    };
    assert!(
        code == written,
        "only the code has {:?}; only the page has {:?}",
        only(&code, &written),
        only(&written, &code)
    );
    assert!(!code.is_empty(), "there is nothing to compare");
}

/// Holds the bytes of that name in a page against those that the code has made.
#[track_caller]
pub fn assert_bytes(page: &str, name: &str, made: &[u8]) {
    let written = bytes(page, name);
    assert!(
        written.as_deref() == Some(made),
        "the page has {name} as {written:02x?}, and the code makes\n{}",
        dump(made)
    );
}

/// Where the lines of the block of a language are in a page, if it has one.
pub fn block(page: &str, language: &str) -> Option<Range<usize>> {
    let fence = format!("\n```{language}\n");
    let start = page.find(&fence)? + fence.len();
    let length = if page[start..].starts_with("```") { 0 } else { page[start..].find("\n```")? + 1 };
    Some(start..start + length)
}

fn constants(page: &str, files: &str) -> Vec<(String, u64)> {
    let row = |line: &str| {
        let cells: Vec<&str> = line.strip_prefix("| ")?.split(" | ").collect();
        let &[name, number, file, ..] = cells.as_slice() else { return None };
        let name = name.strip_prefix('`')?.strip_suffix('`')?;
        let file = file.strip_prefix('`')?;
        let number = number.replace(',', "").parse().ok()?;
        file.starts_with(files).then(|| (name.to_owned(), number))
    };
    page.lines().filter_map(row).collect()
}

/// `None` if there is no such block, or something in it is no byte.
fn bytes(page: &str, name: &str) -> Option<Vec<u8>> {
    let lines = page[block(page, &format!("hex,{name}"))?].lines();
    let shown = lines.map(|line| line.split("  ").next().unwrap_or_default());
    let all: Vec<_> = shown.flat_map(str::split_whitespace).map(|byte| u8::from_str_radix(byte, 16)).collect();
    all.into_iter().collect::<Result<_, _>>().ok()
}

fn dump(bytes: &[u8]) -> String {
    bytes.chunks(16).fold(String::new(), |mut all, line| {
        let _ = line.iter().try_for_each(|byte| write!(all, "{byte:02x} "));
        all + "\n"
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "# Page\n\n| constant | value | in | |\n|---|---|---|---|\n| `A_MAX` | 65,536 | `a/b.rs` | much |\n\
                        | `B` | 7 | `c.rs` | |\n| `other` | text | `a/b.rs` | |\n\n```hex,one\n01 ff  a pair\n00\n```\n\n```hex,none\n```\n";

    #[test]
    fn constants_and_bytes_are_read() {
        assert_constants(PAGE, "a/", &[("A_MAX", 65_536)]);
        assert_constants(PAGE, "", &[("B", 7), ("A_MAX", 65_536)]);
        assert_bytes(PAGE, "one", &[1, 255, 0]);
        assert_bytes(PAGE, "none", &[]);
        assert_eq!(bytes(PAGE, "two"), None);
    }

    #[test]
    #[should_panic(expected = "only the code has [\"C 1\"]; only the page has [\"B 7\"]")]
    fn a_constant_that_is_missing_is_noticed() {
        assert_constants(PAGE, "c.rs", &[("C", 1)]);
    }
}
