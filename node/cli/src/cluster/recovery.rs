//! `driftless cluster recover`: what it would mean that one member decides alone, before it does.

use driftless_client::Recovery;
use serde_json::{Value, json};

use super::plan::print_warnings;
use crate::exit::Result;
use crate::output::{self, Tone, paint};

/// For people, and last what to type.
pub(crate) fn print(recovery: &Recovery, node: Option<&str>, flags: &str) -> Result {
    output::line(text(recovery))?;
    print_warnings(&recovery.warnings)?;
    let command = paint(Tone::Strong, command(recovery, node, flags));
    output::line(format_args!("nothing is changed yet; do it with: {command}"))
}

/// `version 7 -> 1000, by force: n2, n3 would be declared lost, and n1 would decide from then on`.
fn text(Recovery { base, version, lost, voters, .. }: &Recovery) -> String {
    let (lost, voters) = (lost.join(", "), voters.join(", "));
    format!(
        "version {base} -> {version}, by force: {lost} would be declared lost, and {voters} would decide from then on"
    )
}

fn command(recovery: &Recovery, node: Option<&str>, flags: &str) -> String {
    let node = node.map_or(String::new(), |node| format!(" --node {node}"));
    format!("driftless{flags} cluster recover --lost {}{node} --force", recovery.lost.join(","))
}

/// For programs.
pub(crate) fn as_json(Recovery { base, version, lost, voters, warnings }: &Recovery) -> Value {
    json!({ "base": base, "version": version, "lost": lost, "voters": voters, "warnings": warnings, "done": false })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_it_would_mean_is_said_with_what_to_type() {
        let recovery = Recovery {
            base: 7,
            version: 1000,
            lost: ["n2", "n3"].map(str::to_owned).to_vec(),
            voters: vec!["n1".to_owned()],
            warnings: Vec::new(),
        };
        assert_eq!(
            text(&recovery),
            "version 7 -> 1000, by force: n2, n3 would be declared lost, and n1 would decide from then on"
        );
        let typed = command(&recovery, Some("n1"), " --profile D");
        assert_eq!(typed, "driftless --profile D cluster recover --lost n2,n3 --node n1 --force");
        assert!(command(&recovery, None, "").ends_with("--lost n2,n3 --force"));
    }
}
