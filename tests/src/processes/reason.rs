//! Why requests fail, told apart by kind.

/// A message without its numbers and names, which would make each one unique.
pub(crate) fn kind_of(reason: &str) -> String {
    let mut kind = String::new();
    for word in reason.split(' ') {
        let is_node = word.strip_prefix('n').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
        let word = if is_node { "NODE" } else { word };
        for c in word.chars() {
            match c {
                '0'..='9' if kind.ends_with('#') => {}
                '0'..='9' => kind.push('#'),
                '.' if kind.ends_with('#') => {}
                _ => kind.push(c),
            }
        }
        kind.push(' ');
    }
    kind.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_counted_by_kind() {
        assert_eq!(kind_of("n3 did not answer within 1.25s"), "NODE did not answer within #s");
        assert_eq!(kind_of("timed out with 1 of 2 answers"), "timed out with # of # answers");
    }
}
