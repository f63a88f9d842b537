//! What a file is that holds no JSON lines, and how to make some of it: said once, before anything is written.

/// Looks at the beginning of an input: what it is, to be said of it, and what to do. `load` is the command that loads standard input.
pub(crate) fn another_format(head: &[u8], file: &str, load: &str) -> Option<(String, String)> {
    let pipe = |program: &str, what: &str| {
        Some((format!("is {what}, and no JSON lines"), format!("{program} {file} | {load}")))
    };
    for (magic, program, what) in COMPRESSED {
        if head.starts_with(magic) {
            return pipe(program, what);
        }
    }
    let is_utf16 = match head {
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => true,
        [first, second, ..] => (*first == 0) != (*second == 0),
        _ => false,
    };
    if is_utf16 {
        return pipe("iconv -f UTF-16 -t UTF-8", "UTF-16 text");
    }
    let text = head.strip_prefix("\u{feff}".as_bytes()).unwrap_or(head).trim_ascii_start();
    if text.first() == Some(&b'[') {
        return pipe("jq -c '.[]'", "one JSON array");
    }
    let mut lines = text.split(|&byte| byte == b'\n').map(|line| line.trim_ascii()).filter(|line| !line.is_empty());
    let first = lines.next()?;
    if first == b"{" && text.contains(&b'\n') {
        return pipe("jq -c .", "JSON with records of several lines");
    }
    if first.starts_with(b"{") || lines.take(LINES_SEEN).any(|line| line.starts_with(b"{")) {
        return None;
    }
    let tables = [(b',', "CSV"), (b'\t', "a table with tabs"), (b';', "a table with semicolons")];
    let what = tables.iter().find(|(mark, _)| first.contains(mark)).map_or("text", |(_, what)| what);
    Some((
        format!("looks like {what}, and not like JSON lines: none of its first lines begins with {{"),
        "a line is {\"key\": \"…\", \"value\": \"…\"}; jq -R can make such lines of others".to_owned(),
    ))
}

/// How compressed files begin, what unpacks them, and what they are called.
const COMPRESSED: [(&[u8], &str, &str); 5] = [
    (b"\x1f\x8b", "gunzip -c", "compressed with gzip"),
    (b"\x28\xb5\x2f\xfd", "zstdcat", "compressed with zstd"),
    (b"\xfd7zXZ\0", "xzcat", "compressed with xz"),
    (b"BZh", "bzcat", "compressed with bzip2"),
    (b"PK\x03\x04", "unzip -p", "a ZIP archive"),
];

/// A few lines of something else may stand before the records: each is reported with its number.
const LINES_SEEN: usize = 9;

#[cfg(test)]
mod tests {
    use super::*;

    fn said(head: &[u8]) -> String {
        let (what, how) = another_format(head, "f", "driftless load -").expect("is no JSON lines");
        format!("{what}: {how}")
    }

    #[test]
    fn a_file_of_another_format_is_named_and_how_to_read_it() {
        let gzip = said(include_bytes!("cases/records.jsonl.gz"));
        assert_eq!(gzip, "is compressed with gzip, and no JSON lines: gunzip -c f | driftless load -");
        let utf16 = said(include_bytes!("cases/utf16.jsonl"));
        assert!(utf16.starts_with("is UTF-16 text") && utf16.contains("iconv -f UTF-16"), "{utf16}");
        let array = said(include_bytes!("cases/array.json"));
        assert!(array.starts_with("is one JSON array") && array.contains("jq -c '.[]' f"), "{array}");
        let table = said(include_bytes!("cases/records.csv"));
        assert!(table.starts_with("looks like CSV"), "{table}");
        assert!(said(b"{\n  \"key\": \"a\"\n}\n").contains("several lines"));
        assert!(said(b"{\0\"\0").contains("UTF-16"), "without a mark too");
    }

    #[test]
    fn json_lines_are_let_through_whatever_stands_between_them() {
        for head in [
            &include_bytes!("cases/bom.jsonl")[..],
            include_bytes!("cases/crlf-no-last-newline.jsonl"),
            b"",
            b"\n\n",
            b"{",
            b"{oops",
            b"# a comment\n{\"key\": \"a\", \"value\": \"b\"}\n",
        ] {
            // Also a single brace: the rest of the line may not have arrived.
            assert_eq!(another_format(head, "f", "driftless load -"), None, "{:?}", String::from_utf8_lossy(head));
        }
    }
}
