//! `driftless cluster found`: what it would mean to found a cluster without some whom its file names, before it is done.

use driftless_client::Founding;
use serde_json::{Value, json};

use super::plan::print_warnings;
use crate::exit::Result;
use crate::output::{self, Tone, paint};

/// For people, and last what to type.
pub(crate) fn print(founding: &Founding, node: Option<&str>, flags: &str) -> Result {
    output::line(text(founding))?;
    print_warnings(&founding.warnings)?;
    let command = paint(Tone::Strong, command(founding, node, flags));
    output::line(format_args!("nothing is changed yet; do it with: {command}"))
}

/// `version 2, founded by n1, n2 without n3: nobody would be n3, and n1 would decide from then on`.
fn text(Founding { without, by, voters, .. }: &Founding) -> String {
    let (without, by, voters) = (without.join(", "), by.join(", "), voters.join(", "));
    format!(
        "version 2, founded by {by} without {without}: nobody would be {without}, and {voters} would decide from then on"
    )
}

fn command(founding: &Founding, node: Option<&str>, flags: &str) -> String {
    let node = node.map_or(String::new(), |node| format!(" --node {node}"));
    format!("driftless{flags} cluster found --without {}{node} --yes", founding.without.join(","))
}

/// For programs.
pub(crate) fn as_json(Founding { without, by, voters, warnings }: &Founding) -> Value {
    json!({ "without": without, "by": by, "voters": voters, "warnings": warnings, "done": false })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_it_would_mean_is_said_with_what_to_type() {
        let founding = Founding {
            without: ["n4", "n5"].map(str::to_owned).to_vec(),
            by: ["n1", "n2", "n3"].map(str::to_owned).to_vec(),
            voters: ["n1", "n2", "n3"].map(str::to_owned).to_vec(),
            warnings: Vec::new(),
        };
        assert_eq!(
            text(&founding),
            "version 2, founded by n1, n2, n3 without n4, n5: nobody would be n4, n5, and n1, n2, n3 would decide from then on"
        );
        let typed = command(&founding, Some("n1"), " --profile D");
        assert_eq!(typed, "driftless --profile D cluster found --without n4,n5 --node n1 --yes");
        assert!(command(&founding, None, "").ends_with("--without n4,n5 --yes"));
    }
}
