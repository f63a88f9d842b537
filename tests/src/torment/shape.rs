//! What the nodes are like.

use crate::fleet::Member;

/// So many, of several kinds.
pub(super) fn members(nodes: u16) -> Vec<Member> {
    let member = |number: u16| {
        let hints = if number % 2 == 1 { FEW_HINTS } else { "" };
        Member { shards: 1 + number % SHARDS_MAX, settings: SETTINGS.replace("[aae]", &format!("{hints}\n[aae]")) }
    };
    (0..nodes).map(member).collect()
}

/// Short segments, so that a run of minutes sees many of them written, merged and used again, on a disk that
/// is soon full; anti-entropy and handoff without long pauses, so that a round can wait for them.
const SETTINGS: &str = "
[limits]
handoff_delay = \"1s\"

[aae]
interval = \"3s\"

[store]
segment = \"1MiB\"
free_space_reserve = \"48MiB\"
";

/// For every second node: what it is to hold for others is soon too much.
const FEW_HINTS: &str = "hint_bytes_max = \"256KiB\"\nhint_target_bytes_max = \"128KiB\"\n";

/// Nodes that are no members at first, and those that have left: who joins is one of them, with another machine.
pub(super) const SPARES: usize = 4;

/// Nodes have one to so many shards.
const SHARDS_MAX: u16 = 3;

/// What [`SETTINGS`] keep in reserve.
pub(super) const RESERVE: u64 = 48 << 20;
