//! `driftless cluster status`: how each member stands in words, and what to do next.

use driftless_client::{CandidateState, ClusterState, MemberState};
use serde_json::{Value, json};

use super::moving::{self, Progress, is_unfinished};
use crate::exit::Result;
use crate::output::{self, Tone, paint};

/// How a member stands, the first that holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Phase {
    /// Nothing is agreed yet: only the file says that it is a member.
    Founding,
    /// It is none any more and has handed over everything.
    Left,
    /// It is none any more and hands over.
    Leaving,
    /// Its store was declared lost by force, and it has no other.
    Lost,
    /// Its store is not the one that the record names, and is filled.
    Healing,
    /// It takes in or hands over.
    Moving,
    /// It has done its part of the newest version, and others have not.
    Waiting,
    /// It holds what it must.
    Ready,
}

impl Phase {
    pub(crate) fn of(member: &MemberState, state: &ClusterState) -> Phase {
        if !state.is_agreed {
            Phase::Founding
        } else if !member.stays && member.left >= state.version {
            Phase::Left
        } else if !member.stays {
            Phase::Leaving
        } else if member.is_lost && !member.is_heard {
            Phase::Lost
        } else if !member.is_whole {
            Phase::Healing
        } else if moving::words(&member.moving).is_some() {
            Phase::Moving
        } else if member.ready < state.version {
            Phase::Waiting
        } else {
            Phase::Ready
        }
    }

    /// For programs.
    fn name(self) -> &'static str {
        match self {
            Phase::Founding => "founding",
            Phase::Left => "left",
            Phase::Leaving => "leaving",
            Phase::Lost => "lost",
            Phase::Healing => "healing",
            Phase::Moving => "moving",
            Phase::Waiting => "waiting",
            Phase::Ready => "ready",
        }
    }

    /// For people.
    pub(crate) fn words(self, member: &MemberState) -> String {
        let moving = moving::words(&member.moving);
        match self {
            Phase::Founding => "a member by cluster.toml".to_owned(),
            Phase::Left => "has left and holds nothing: stop it when you like".to_owned(),
            Phase::Leaving => moving.unwrap_or_else(|| "leaves: waits for the others".to_owned()),
            Phase::Lost => "declared lost: its place is to be taken".to_owned(),
            Phase::Healing => match moving {
                Some(moving) => format!("store replaced: healing, {moving}"),
                None => "store replaced: healing".to_owned(),
            },
            Phase::Moving => moving.unwrap_or_default(),
            Phase::Waiting => "has its share: waits for the others".to_owned(),
            Phase::Ready => "ready".to_owned(),
        }
    }
}

/// For people.
pub(crate) fn print(state: &ClusterState, flags: &str) -> Result {
    let agreed = if state.is_agreed { "" } else { ", read from cluster.toml and not agreed on yet" };
    output::line(format_args!("version {}{agreed}\n", state.version))?;
    output::line(output::tinted(&table(state), "heard", |heard| if heard == "no" { Tone::Bad } else { Tone::Good }))?;
    output::line("")?;
    for line in facts(state) {
        output::line(output::wrapped(&line, 4))?;
    }
    let (good, next) = next(state, flags);
    output::line(format_args!("\n{}", paint(if good { Tone::Good } else { Tone::Warning }, output::wrapped(&next, 0))))
}

/// Members, and below them who has called.
fn table(state: &ClusterState) -> String {
    let members = state.members.iter().map(|member| {
        vec![
            member.name.clone(),
            member.address.clone(),
            member.zone.clone(),
            member.weight.to_string(),
            if member.stays { "in" } else { "out" }.to_owned(),
            if member.is_heard { "yes" } else { "no" }.to_owned(),
            Phase::of(member, state).words(member),
        ]
    });
    let candidates = state.candidates.iter().map(|CandidateState { name, address, zone, weight }| {
        let (member, heard) = ("-".to_owned(), "yes".to_owned());
        let waits = "has called: is no member yet".to_owned();
        vec![name.clone(), address.clone(), zone.clone(), weight.to_string(), member, heard, waits]
    });
    let header = ["node", "address", "zone", "weight", "member", "heard", "stands"];
    output::table(&header, members.chain(candidates).collect())
}

/// What is not of one member.
fn facts(state: &ClusterState) -> Vec<String> {
    let mut facts = Vec::new();
    if !state.voters.is_empty() {
        facts.push(format!("voters: {} ({} must answer)", state.voters.join(", "), state.voters.len() / 2 + 1));
    }
    if let Some(on) = state.forced_on {
        facts.push(format!("version {} was forced on version {on}", state.version));
    }
    if is_unfinished(state) {
        facts.push(format!(
            "unfinished: {}; reads count in version {}; {}",
            versions(&state.unfinished),
            state.read_version,
            Progress::of_all(state).words()
        ));
    }
    if !state.staged.changes.is_empty() {
        facts.push(format!("staged on version {}: {}", state.staged.version, state.staged.changes.join("; ")));
    }
    facts
}

/// Whether nothing is wrong, and what to do next.
fn next(state: &ClusterState, flags: &str) -> (bool, String) {
    let names = |holds: &dyn Fn(&MemberState) -> bool| -> Vec<&str> {
        state.members.iter().filter(|member| holds(member)).map(|member| member.name.as_str()).collect()
    };
    let phase = |member: &MemberState| Phase::of(member, state);
    let silent = names(&|member| !member.is_heard && phase(member) != Phase::Left);
    let (is, are_heard) = if silent.len() == 1 { ("it", "is not heard") } else { ("them", "are not heard") };
    let is_never = if silent.len() == 1 { "it never comes" } else { "they never come" };
    if !state.is_agreed {
        let who = match silent.as_slice() {
            [] => "all are heard, and it takes a moment".to_owned(),
            silent => format!(
                "{} {are_heard}: start {is}; or if {is_never}, `driftless{flags} cluster found --without {}`",
                silent.join(", "),
                silent.join(",")
            ),
        };
        let what = "Nobody has agreed on anything yet: once all members are up they agree on the first version by \
                    themselves, and only then the cluster can be changed";
        return (silent.is_empty(), format!("{what}; {who}."));
    }
    let staged = !state.staged.changes.is_empty();
    let plan = format!("`driftless{flags} cluster plan`");
    let lost = names(&|member| phase(member) == Phase::Lost);
    if let Some(first) = lost.first() {
        let (is, named, place) = match lost.len() {
            1 => ("is", "named as a member", "its place"),
            _ => ("are", "named as members", "the place of each"),
        };
        let then =
            if staged { format!(" What is staged waits: see what it costs with {plan}.") } else { String::new() };
        return (
            false,
            format!(
                "{} {is} declared lost, and still {named}: put another node in {place} with `driftless{flags} cluster replace \
                 {first} --with NAME`, let it go with `driftless{flags} cluster leave {first} --lost`, or start it under its name with an \
                 empty data directory.{then}",
                lost.join(", ")
            ),
        );
    }
    if is_unfinished(state) {
        if silent.is_empty() {
            let (version, before) = (state.version, versions(&state.unfinished));
            let then = if staged { " What is staged can be committed then." } else { "" };
            let watch = format!("`driftless{flags} transfers --watch`");
            return (
                true,
                format!("Version {version} takes over from {before} by itself, nothing is to be done: {watch}.{then}"),
            );
        }
        return (
            false,
            format!(
                "Version {} is unfinished, and {} {are_heard}: start {is}; or go back with `driftless{flags} cluster \
                 cancel`; or if {} never comes back, `driftless{flags} cluster leave {} --lost`.",
                state.version,
                silent.join(", "),
                if silent.len() == 1 { "it" } else { "one" },
                silent[0],
            ),
        );
    }
    if !silent.is_empty() {
        return (
            false,
            format!(
                "{} {are_heard}: start {is}; or if {} is lost, put another node in its place with `driftless{flags} cluster \
                 replace {} --with NAME`, or go on without it with `driftless{flags} cluster leave {} --lost`.",
                silent.join(", "),
                if silent.len() == 1 { "it" } else { "one" },
                silent[0],
                silent[0],
            ),
        );
    }
    if staged && state.staged.version == state.version {
        return (true, format!("What is staged waits: see what it costs with {plan}."));
    }
    if staged {
        return (
            false,
            format!(
                "What is staged was staged on version {}, and the cluster is at {}: look at it again with {plan}, or \
                 forget it with `driftless{flags} cluster clear`.",
                state.staged.version, state.version
            ),
        );
    }
    let healing = names(&|member| phase(member) == Phase::Healing);
    if !healing.is_empty() {
        let (fills, verb) =
            if healing.len() == 1 { ("is filled", "it answers") } else { ("are filled", "they answer") };
        return (
            false,
            format!(
                "{} {fills} again by the others: until that is over {verb} no reads. Nothing is to be done.",
                healing.join(", ")
            ),
        );
    }
    let left = names(&|member| phase(member) == Phase::Left);
    if !left.is_empty() {
        let verb = if left.len() == 1 { "has left and holds" } else { "have left and hold" };
        let it = if left.len() == 1 { "it" } else { "them" };
        return (true, format!("{} {verb} nothing: stop {it} when you like.", left.join(", ")));
    }
    if let Some(candidate) = state.candidates.first() {
        let name = &candidate.name;
        return (
            true,
            format!(
                "{name} has called: `driftless{flags} cluster join {name}` stages that it joins; one that has left can be stopped."
            ),
        );
    }
    (true, format!("Version {} is settled: nothing moves, and nothing is staged.", state.version))
}

/// `version 7`, `versions 7 and 8`.
fn versions(versions: &[u64]) -> String {
    let all: Vec<String> = versions.iter().map(u64::to_string).collect();
    match all.split_last() {
        None => "no version".to_owned(),
        Some((only, [])) => format!("version {only}"),
        Some((last, before)) => format!("versions {} and {last}", before.join(", ")),
    }
}

/// For programs.
pub(crate) fn as_json(state: &ClusterState) -> Value {
    let members = state.members.iter().map(|member| {
        json!({
            "name": member.name,
            "address": member.address,
            "zone": member.zone,
            "weight": member.weight,
            "member": member.stays,
            "heard": member.is_heard,
            "whole": member.is_whole,
            "lost": member.is_lost,
            "phase": Phase::of(member, state).name(),
            "ready": member.ready,
            "closed": member.closed,
            "left": member.left,
            "moving": Progress::of(member).as_json(),
        })
    });
    let candidates = state.candidates.iter().map(|CandidateState { name, address, zone, weight }| {
        json!({ "name": name, "address": address, "zone": zone, "weight": weight })
    });
    json!({
        "version": state.version,
        "digest": format!("{:032x}", state.digest),
        "agreed": state.is_agreed,
        "forced_on": state.forced_on,
        "unfinished": state.unfinished,
        "read_version": state.read_version,
        "staged": { "version": state.staged.version, "changes": state.staged.changes },
        "voters": state.voters,
        "members": members.collect::<Vec<_>>(),
        "candidates": candidates.collect::<Vec<_>>(),
        "next": next(state, "").1,
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use driftless_client::{Moving, Staged};

    use super::*;

    pub(crate) fn member(name: &str) -> MemberState {
        MemberState {
            name: name.to_owned(),
            address: format!("10.0.0.{}:7400", &name[1..]),
            zone: "a".to_owned(),
            weight: 1,
            stays: true,
            is_heard: true,
            is_whole: true,
            is_lost: false,
            ready: 7,
            closed: 7,
            left: 7,
            moving: Moving::default(),
        }
    }

    /// Three members at version 7, settled.
    pub(crate) fn state() -> ClusterState {
        ClusterState {
            version: 7,
            digest: 0xfeed,
            is_agreed: true,
            forced_on: None,
            unfinished: Vec::new(),
            read_version: 7,
            staged: Staged { version: 7, changes: Vec::new() },
            voters: ["n1", "n2", "n3"].map(str::to_owned).to_vec(),
            members: ["n1", "n2", "n3"].map(member).to_vec(),
            candidates: Vec::new(),
        }
    }

    fn stands(edit: impl Fn(&mut MemberState)) -> String {
        let mut state = ClusterState { version: 8, unfinished: vec![7], ..state() };
        edit(&mut state.members[0]);
        let member = &state.members[0];
        Phase::of(member, &state).words(member)
    }

    #[test]
    fn a_member_stands_in_words() {
        let taking = Moving { taking: 64, taken: 12, ..Moving::default() };
        let giving = Moving { giving: 16, given: 3, ..Moving::default() };
        assert_eq!(stands(|member| member.ready = 8), "ready");
        assert_eq!(stands(|_| {}), "has its share: waits for the others");
        assert_eq!(stands(|member| member.moving = taking), "taking in 12 of 64");
        assert_eq!(stands(|member| member.moving = giving), "handing over 3 of 16");
        let both = Moving { giving: 16, given: 3, ..taking };
        assert_eq!(stands(|member| member.moving = both), "taking in 12 of 64, handing over 3 of 16");
        assert_eq!(stands(|member| member.is_whole = false), "store replaced: healing");
        let lost = |member: &mut MemberState| (member.is_lost, member.is_heard) = (true, false);
        assert_eq!(stands(lost), "declared lost: its place is to be taken");
        assert_eq!(stands(|member| (member.is_lost, member.is_whole) = (true, false)), "store replaced: healing");
        let out = |member: &mut MemberState| {
            (member.stays, member.moving) = (false, giving);
        };
        assert_eq!(stands(out), "handing over 3 of 16");
        let left = |member: &mut MemberState| {
            (member.stays, member.left) = (false, 8);
        };
        assert_eq!(stands(left), "has left and holds nothing: stop it when you like");
    }

    #[test]
    fn a_line_for_each_member_and_for_who_has_called() {
        let mut state = state();
        state.members[2].is_heard = false;
        state.candidates.push(CandidateState {
            name: "n4".to_owned(),
            address: "10.0.0.4:7400".to_owned(),
            zone: "b".to_owned(),
            weight: 2,
        });
        assert_eq!(
            table(&state),
            "NODE  ADDRESS        ZONE  WEIGHT  MEMBER  HEARD  STANDS\n\
             n1    10.0.0.1:7400  a     1       in      yes    ready\n\
             n2    10.0.0.2:7400  a     1       in      yes    ready\n\
             n3    10.0.0.3:7400  a     1       in      no     ready\n\
             n4    10.0.0.4:7400  b     2       -       yes    has called: is no member yet"
        );
        assert_eq!(facts(&state), ["voters: n1, n2, n3 (2 must answer)"]);
    }

    #[test]
    fn the_sentence_says_what_to_do_next() {
        let says = |edit: &dyn Fn(&mut ClusterState)| {
            let mut state = state();
            edit(&mut state);
            next(&state, " --profile D")
        };
        assert_eq!(says(&|_| {}), (true, "Version 7 is settled: nothing moves, and nothing is staged.".to_owned()));
        let (good, said) = says(&|state| {
            (state.version, state.unfinished, state.forced_on) = (1000, vec![7], Some(7));
            (state.members[2].is_lost, state.members[2].is_heard) = (true, false);
        });
        assert!(!good && said.starts_with("n3 is declared lost, and still named"), "{said}");
        assert!(said.contains("`driftless --profile D cluster replace n3 --with NAME`"), "{said}");
        let (good, said) = says(&|state| state.is_agreed = false);
        assert!(good && said.ends_with("all are heard, and it takes a moment."), "{said}");
        let (good, said) = says(&|state| {
            state.is_agreed = false;
            state.members[1].is_heard = false;
        });
        let way =
            "n2 is not heard: start it; or if it never comes, `driftless --profile D cluster found --without n2`.";
        assert!(!good && said.ends_with(way), "{said}");
        let (good, said) = says(&|state| state.members[2].is_heard = false);
        assert!(!good && said.contains("`driftless --profile D cluster replace n3 --with NAME`"), "{said}");
        let unfinished = |state: &mut ClusterState| {
            state.version = 8;
            state.unfinished = vec![7];
        };
        let (good, said) = says(&unfinished);
        assert!(good, "{said}");
        assert_eq!(
            said,
            "Version 8 takes over from version 7 by itself, nothing is to be done: `driftless --profile D transfers \
             --watch`."
        );
        let (good, said) = says(&|state| {
            unfinished(state);
            state.members[2].is_heard = false;
        });
        assert!(!good && said.contains("cluster cancel`") && said.contains("cluster leave n3 --lost`"), "{said}");
        let (good, said) = says(&|state| state.staged.changes.push("n4 joins".to_owned()));
        assert!(good && said.contains("`driftless --profile D cluster plan`"), "{said}");
        let (good, said) = says(&|state| {
            state.version = 9;
            state.staged.changes.push("n4 joins".to_owned());
        });
        assert!(!good && said.starts_with("What is staged was staged on version 7"), "{said}");
        let (_, said) = says(&|state| state.members[0].is_whole = false);
        assert!(
            said.starts_with("n1 is filled again by the others: until that is over it answers no reads."),
            "{said}"
        );
        let (good, said) = says(&|state| {
            (state.members[0].stays, state.members[0].is_heard) = (false, false);
        });
        assert_eq!((good, said.as_str()), (true, "n1 has left and holds nothing: stop it when you like."));
    }

    #[test]
    fn what_is_unfinished_is_named() {
        assert_eq!(versions(&[7]), "version 7");
        assert_eq!(versions(&[7, 8]), "versions 7 and 8");
        let json = as_json(&ClusterState { version: 9, unfinished: vec![7, 8], ..state() });
        assert_eq!((&json["unfinished"], &json["members"][0]["phase"]), (&json!([7, 8]), &json!("waiting")));
    }
}
