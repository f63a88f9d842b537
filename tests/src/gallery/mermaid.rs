//! A story as a Mermaid `sequenceDiagram`, which many pages render.

use std::fmt::Write as _;

use super::story::{Fate, Lane, Step, Story};

/// Writes a story as a diagram's source.
pub fn draw(story: &Story) -> String {
    let lanes = story.lanes();
    let mut out = String::from("sequenceDiagram\n");
    for lane in &lanes {
        let kind = if let Lane::Client(_) = lane { "actor" } else { "participant" };
        writeln!(out, "    {kind} {}", lane.name()).expect(TAKES_ALL);
    }
    for step in &story.steps {
        match step {
            Step::Arrow { from, to, text, fate } => {
                let (arrow, remark) = match fate {
                    Fate::Arrives => ("->>", ""),
                    Fate::Held => ("--)", " (held up)"),
                    Fate::Late => ("-->>", " (arrives late)"),
                    Fate::Lost => ("-x", " (lost)"),
                    Fate::Exchange => ("<<->>", ""),
                };
                writeln!(out, "    {}{arrow}{}: {}{remark}", from.name(), to.name(), plain(text)).expect(TAKES_ALL);
            }
            Step::Note { at, text, .. } => {
                writeln!(out, "    Note over {}: {}", at.name(), plain(text)).expect(TAKES_ALL);
            }
            Step::Scene(text) => {
                if let (Some(first), Some(last)) = (lanes.first(), lanes.last()) {
                    writeln!(out, "    Note over {},{}: {}", first.name(), last.name(), plain(text)).expect(TAKES_ALL);
                }
            }
        }
    }
    out
}

/// Without what ends a statement or begins an entity in Mermaid.
fn plain(text: &str) -> String {
    text.replace(';', ",").replace('#', "no. ")
}

const TAKES_ALL: &str = "a string takes all that is written";

#[cfg(test)]
mod tests {
    use super::super::story::Change;
    use super::*;

    #[test]
    fn a_story_becomes_a_sequence_diagram() {
        let (ann, a) = (Lane::Client(0), Lane::Node(0));
        let arrow = |fate| Step::Arrow { from: ann, to: a, text: "put red; w = 1".to_owned(), fate };
        let steps = vec![
            Step::Scene("before".to_owned()),
            arrow(Fate::Arrives),
            arrow(Fate::Lost),
            Step::Note { at: a, text: "dies".to_owned(), change: Change::Ends },
        ];
        let expected = "sequenceDiagram\n    actor Ann\n    participant A\n    Note over Ann,A: before\n    \
            Ann->>A: put red, w = 1\n    Ann-xA: put red, w = 1 (lost)\n    Note over A: dies\n";
        assert_eq!(draw(&Story { steps, checks: Vec::new() }), expected);
    }
}
