//! `driftless cluster plan`: what staged changes would cost.

use std::time::Duration;

use driftless_client::{Plan, PlannedNode};
use driftless_node::config::AaeLimits;
use serde_json::{Value, json};

use super::moving::time;
use crate::exit::Result;
use crate::members::by_name;
use crate::output::{self, Tone, paint, size, wrapped};

/// For people, and last what to type.
pub(crate) fn print(plan: &Plan, flags: &str) -> Result {
    output::line(text(plan))?;
    print_warnings(&plan.warnings)?;
    match plan.changes.is_empty() {
        true => output::line("nothing is staged: there is nothing to commit"),
        false => {
            let command = format!("driftless{flags} cluster commit {}", plan.name);
            output::line(format_args!("commit it with: {}", paint(Tone::Strong, command)))
        }
    }
}

/// A line or more for each thing that should be known before.
pub(super) fn print_warnings(warnings: &[String]) -> Result {
    for warning in warnings {
        let line = wrapped(&format!("warning: {warning}"), 2);
        let rest = line.strip_prefix("warning:").unwrap_or(&line);
        output::line(format_args!("{}{rest}", paint(Tone::Warning, "warning:")))?;
    }
    Ok(())
}

fn text(plan: &Plan) -> String {
    let mut lines = vec![format!("version {} -> {}, plan {}", plan.base, plan.version, plan.name)];
    lines.extend(plan.changes.iter().map(|change| format!("  {change}")));
    let mut nodes: Vec<&PlannedNode> = plan.nodes.iter().collect();
    nodes.sort_by(|a, b| by_name(&a.name, &b.name));
    let rows = nodes.into_iter().map(|node| {
        vec![
            node.name.clone(),
            node.zone.clone(),
            node.now.to_string(),
            node.then.to_string(),
            node.gains.to_string(),
            node.loses.to_string(),
            size(node.bytes_in),
            size(node.bytes_out),
        ]
    });
    lines.push(String::new());
    lines.push(output::table(&["node", "zone", "now", "then", "gains", "loses", "in", "out"], rows.collect()));
    lines.push(String::new());
    lines.push(moves(plan));
    lines.push(zones(plan));
    lines.join("\n")
}

/// `moves 192 of 768 slots (minimum 192), 5.6 GiB, about 2m`.
fn moves(plan: &Plan) -> String {
    if plan.slots_moved == 0 {
        return format!("moves none of {} slots", plan.slots);
    }
    let bytes: u64 = plan.nodes.iter().map(|node| node.bytes_in).sum();
    let Plan { slots_moved, slots, slots_minimum, .. } = plan;
    let moves = format!("moves {slots_moved} of {slots} slots (minimum {slots_minimum}), {}", size(bytes));
    match duration(plan) {
        Some(duration) => format!("{moves}, about {}", time(duration)),
        None => moves,
    }
}

/// `zones: all 256 partitions in 3 of 3`.
fn zones(plan: &Plan) -> String {
    let ((spread, all), (in_zones, zones)) = (plan.spread, plan.zones);
    let how_many = if spread == all { format!("all {all}") } else { format!("{spread} of {all}") };
    format!("zones: {how_many} partitions in {in_zones} of {zones}")
}

/// Until the node that receives most has it, if nothing else is slower and it is paced as nodes are by default: what theirs are set
/// to is not known here. Nothing is said of what takes no second.
fn duration(plan: &Plan) -> Option<Duration> {
    let most = plan.nodes.iter().map(|node| node.bytes_in).max()?;
    let seconds = most / AaeLimits::default().bytes_per_second;
    (seconds > 0).then(|| Duration::from_secs(seconds))
}

/// For programs.
pub(crate) fn as_json(plan: &Plan) -> Value {
    let nodes = plan.nodes.iter().map(|node| {
        let PlannedNode { name, zone, now, then, gains, loses, bytes_in, bytes_out } = node;
        json!({
            "name": name,
            "zone": zone,
            "now": now,
            "then": then,
            "gains": gains,
            "loses": loses,
            "bytes_in": bytes_in,
            "bytes_out": bytes_out,
        })
    });
    json!({
        "plan": plan.name,
        "base": plan.base,
        "version": plan.version,
        "changes": plan.changes,
        "nodes": nodes.collect::<Vec<_>>(),
        "slots_moved": plan.slots_moved,
        "slots_minimum": plan.slots_minimum,
        "slots": plan.slots,
        "partitions_spread": plan.spread.0,
        "partitions": plan.spread.1,
        "zones_of_partition": plan.zones.0,
        "zones": plan.zones.1,
        "warnings": plan.warnings,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn node(name: &str, now: u64, then: u64, bytes_in: u64, bytes_out: u64) -> PlannedNode {
        let (gains, loses) = (then.saturating_sub(now), now.saturating_sub(then));
        PlannedNode { name: name.to_owned(), zone: "a".to_owned(), now, then, gains, loses, bytes_in, bytes_out }
    }

    fn plan() -> Plan {
        Plan {
            name: "5f3c9a01".to_owned(),
            base: 7,
            version: 8,
            changes: vec!["n4 joins".to_owned()],
            nodes: vec![node("n1", 256, 192, 0, 1_900 * MIB), node("n4", 0, 192, 5_700 * MIB, 0)],
            slots_moved: 192,
            slots_minimum: 192,
            slots: 768,
            spread: (256, 256),
            zones: (3, 3),
            warnings: Vec::new(),
        }
    }

    #[test]
    fn a_plan_says_who_gets_and_gives_how_much() {
        assert_eq!(
            text(&plan()),
            "version 7 -> 8, plan 5f3c9a01\n  n4 joins\n\n\
             NODE  ZONE  NOW  THEN  GAINS  LOSES  IN       OUT\n\
             n1    a     256  192   0      64     0 B      1.9 GiB\n\
             n4    a     0    192   192    0      5.6 GiB  0 B\n\n\
             moves 192 of 768 slots (minimum 192), 5.6 GiB, about 5m 56s\n\
             zones: all 256 partitions in 3 of 3"
        );
    }

    #[test]
    fn what_moves_nothing_takes_no_time_and_uneven_zones_are_counted() {
        let mut plan = plan();
        plan.nodes.iter_mut().for_each(|node| node.bytes_in = 0);
        assert_eq!(moves(&plan), "moves 192 of 768 slots (minimum 192), 0 B");
        plan.slots_moved = 0;
        assert_eq!(moves(&plan), "moves none of 768 slots");
        plan.spread = (200, 256);
        plan.zones = (2, 3);
        assert_eq!(zones(&plan), "zones: 200 of 256 partitions in 2 of 3");
    }

    #[test]
    fn the_json_of_a_plan_has_its_fixed_names() {
        let json = as_json(&plan());
        assert_eq!((&json["plan"], &json["slots_moved"], &json["zones"]), (&json!("5f3c9a01"), &json!(192), &json!(3)));
        assert_eq!(json["nodes"][1]["bytes_in"], json!(5_700 * MIB));
    }
}
