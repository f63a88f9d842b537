//! What is seen: the machine fed by hand, and drawn into a buffer.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use driftless_client::{
    Answered, BucketTop, ClusterState, Condition, Disk, ExchangesWith, Figures, HintsFor, HotKey, Liveness, Moving,
    NodeStatus, PeerStatus, SeenKey, Severity, Top, TopKey,
};
use driftless_proto::{BucketId, Topology};
use driftless_ring::{Member, Token};
use driftless_testkit::{TopologyBuilder, bucket};
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::style::{Color, Modifier};

use super::draw::draw;
use super::look::Look;
use super::machine::{End, Said, Silence, Watch};
use super::panel::Panel;
use crate::cluster::standing::tests::{member, state};
use crate::top;

/// Of a node that has nothing to do.
pub(super) fn figures(name: &str) -> Figures {
    let answered =
        |operation: &str| Answered { operation: operation.to_owned(), ok: 0, refused: 0, unknown: 0, took: Vec::new() };
    Figures {
        status: NodeStatus {
            name: name.to_owned(),
            version: "0.1.0".to_owned(),
            ring_version: 1,
            uptime_ms: 60_000,
            keys: Some(5_287),
            bytes: Some(4 << 20),
            hints: Some(0),
            clock_offset_ms: Some(2),
            takes_writes: true,
            peers: Vec::new(),
            conditions: Vec::new(),
        },
        unfinished: Vec::new(),
        moving: Moving::default(),
        hints: Vec::new(),
        exchanges: Vec::new(),
        compared_ms: Some(9_000),
        round_trips: Vec::new(),
        requests: ["get", "put", "delete", "scan", "other"].map(answered).to_vec(),
        under_way: 0,
        client_connections: 1,
        reads_found: 100,
        siblings_read: 150,
        writes_discarded: 7,
        fallback_coordinated: 0,
        hints_delivered: 0,
        keys_repaired: 0,
        disk: Some(Disk { free: 50 << 30, total: 100 << 30, store: 1 << 20 }),
        partitions_uncounted: 0,
        leaves_scrubbed: 0,
        damaged: 0,
        aae_paused: false,
    }
}

/// Three nodes, and a person before a terminal.
struct Seen {
    watch: Watch,
    now: Duration,
    /// What nodes say when they are asked; nothing if they are down.
    says: Vec<(&'static str, Option<Figures>)>,
}

impl Seen {
    fn of(names: &[&'static str]) -> Seen {
        let mut watch = Watch::new(SystemTime::UNIX_EPOCH, Duration::from_secs(1));
        watch.handle_members(&topology(names), None);
        let says = names.iter().map(|name| (*name, Some(figures(name)))).collect();
        Seen { watch, now: Duration::ZERO, says }
    }

    fn node(&mut self, name: &str) -> &mut Figures {
        let says = self.says.iter_mut().find(|(node, _)| *node == name).expect("is a node");
        says.1.as_mut().expect("is up")
    }

    fn kill(&mut self, name: &str) {
        self.says.iter_mut().find(|(node, _)| *node == name).expect("is a node").1 = None;
        // The others notice.
        for figures in self.says.iter_mut().filter_map(|(_, figures)| figures.as_mut()) {
            let (name, liveness) = (name.to_owned(), Liveness::Down);
            figures.status.peers = vec![PeerStatus { name, connected: false, liveness }];
        }
    }

    fn suffers(&mut self, name: &str, condition: &str, severity: Severity, what: &str) {
        let (name_of, what) = (condition.to_owned(), what.to_owned());
        let remedy = "mend it".to_owned();
        let condition =
            Condition { name: name_of, peer: None, severity, for_ms: 61_000, explained: true, what, remedy };
        self.node(name).status.conditions.push(condition);
    }

    /// A second passes, in which every node is asked.
    fn second(&mut self) {
        self.now += Duration::from_secs(1);
        for (name, says) in &mut self.says {
            let said = match says {
                Some(figures) => {
                    figures.status.uptime_ms += 1_000;
                    Said::Figures(Box::new(figures.clone()))
                }
                None => Said::Silence(Silence { why: "nothing answers at h:1".to_owned(), is_denied: false }),
            };
            self.watch.handle_answer(name, said);
        }
        self.watch.handle_timeout(self.now);
    }

    fn key(&mut self, code: KeyCode) {
        self.watch.handle_key(self.now, KeyEvent::new(code, KeyModifiers::NONE));
    }

    fn front(&mut self, panel: Panel) {
        self.watch.view.panel = panel;
    }

    fn terminal(&mut self, width: u16, height: u16, has_colours: bool) -> Terminal<TestBackend> {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("has no ends");
        let mut room = None;
        let drawn = terminal.draw(|frame| room = Some(draw(frame, &self.watch, self.now, Look { has_colours })));
        drawn.expect("has no ends");
        self.watch.handle_drawn(room.expect("was drawn"));
        terminal
    }

    fn lines(&mut self, width: u16, height: u16) -> Vec<String> {
        let terminal = self.terminal(width, height, true);
        let buffer = terminal.backend().buffer().clone();
        let line = |y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>().trim_end().to_owned();
        (0..height).map(line).collect()
    }

    fn text(&mut self, width: u16, height: u16) -> String {
        self.lines(width, height).join("\n")
    }
}

fn topology(names: &[&str]) -> Arc<Topology> {
    let members = names.iter().map(|name| Member::new(*name, format!("{name}:1")));
    Arc::new(TopologyBuilder::of_members(members).named("shop").hash_seed(0).build())
}

fn shows(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is to be seen in\n{text}");
    }
}

#[test]
fn all_is_well_and_fits_on_a_small_terminal() {
    let mut seen = Seen::of(&["n1", "n2", "n3"]);
    seen.second();
    let puts = &mut seen.node("n1").requests[1];
    (puts.ok, puts.took) = (1_200, vec![0, 0, 1_200]);
    seen.second();
    let lines = seen.lines(80, 24);
    assert_eq!(lines[0], "All is well: all 3 nodes are up and connected.");
    assert_eq!(lines[1], "[Nodes] To do  Requests  Under way  Values  Keys  Events");
    assert!(lines[2].starts_with("━━ Nodes · columns 1-") && lines[2].ends_with('━'), "{}", lines[2]);
    assert_eq!(
        lines[3..5],
        [
            "NODE  STATE  REQ/S     P50     P99  HINTS  CLOCK  REPAIR      DISK FREE  OPEN",
            "n1    up     1,200  150 µs  199 µs      0  +2 ms  equal   50.0 GiB 50 %     0",
        ]
    );
    shows(&lines.join("\n"), &["── Requests ─", "1,200/s, most 1,200", "Nothing changes hands, no hints wait", "1.50"]);
    assert!(
        lines[23].starts_with("q quit  p pause  t keys  Tab panel") && lines[23].ends_with("  shop v1 · 00:00:02Z"),
        "{}",
        lines[23]
    );
}

#[test]
fn a_node_that_is_down_is_said_with_what_to_do_and_what_waits_for_it() {
    let mut seen = Seen::of(&["n1", "n2", "n3"]);
    seen.second();
    seen.kill("n3");
    let hints = HintsFor {
        target: "n3".to_owned(),
        keys: 2_947,
        bytes: 3 << 20,
        oldest_ms: Some(5_000),
        delivered: 0,
        rate: 0.0,
        eta_ms: None,
    };
    seen.node("n1").hints = vec![hints];
    seen.second();
    let lines = seen.lines(80, 24);
    assert_eq!(lines[0], "1 of 3 nodes is down (n3): every partition still has a quorum of primaries.");
    assert!(lines[1].starts_with("To do: start it; or if n3 is lost, put another node in its place (`driftless"));
    shows(&lines.join("\n"), &["n3    down       -    -", "holds hints  n1 → n3"]);
    seen.front(Panel::Events);
    shows(&seen.text(80, 24), &["━━ Events ━", "00:00:02Z  n3 is down"]);

    // It is back, and is given what it missed.
    seen.says[2].1 = Some(figures("n3"));
    let hints = &mut seen.node("n1").hints[0];
    (hints.delivered, hints.rate, hints.eta_ms, hints.keys) = (1_000, 480.0, Some(4_060), 1_947);
    seen.second();
    seen.front(Panel::Tasks);
    shows(
        &seen.text(100, 30),
        &["hands over hints  n1 → n3   5 s  480 keys/s  1,947 keys left (3.0 MiB), 1,000 delivered", "n3 answers"],
    );
}

#[test]
fn a_join_under_way_shows_how_far_it_is_and_how_long_still() {
    let mut seen = Seen::of(&["n1", "n2", "n4"]);
    seen.node("n4").unfinished = vec![7];
    seen.node("n4").moving = Moving {
        taking: 192,
        taken: 61,
        keys: 20_000,
        bytes: 1_800 << 20,
        rate: 48 << 20,
        keys_left: 40_000,
        ..Moving::default()
    };
    seen.node("n1").unfinished = vec![7];
    seen.node("n1").moving = Moving { giving: 64, given: 20, ..Moving::default() };
    seen.second();
    seen.front(Panel::Tasks);
    let text = seen.text(120, 40);
    shows(
        &text,
        &[
            "version 1 of the members is under way, with 61 of 192 partitions taken in. Nothing is",
            "takes in partitions    n4     1 min 15 s  48.0 MiB/s  61 of 192, 1.8 GiB of about 5.3 GiB",
            "hands over partitions  n1              -           -  20 of 64",
        ],
    );
    // One that leaves is asked, and shown, until it has handed over all.
    let mut leaver = member("n9");
    (leaver.stays, leaver.left) = (false, 6);
    let change = ClusterState { version: 8, unfinished: vec![7], members: vec![leaver], ..state() };
    let topology = topology(&["n1", "n2", "n4"]);
    seen.watch.handle_members(&topology, Some(&change));
    seen.watch.handle_answer("n9", Said::Figures(Box::new(figures("n9"))));
    seen.front(Panel::Nodes);
    shows(&seen.text(120, 40), &["n9    up, leaves"]);
    seen.watch.handle_members(&topology, Some(&ClusterState { unfinished: Vec::new(), ..change }));
    assert!(!seen.text(120, 40).contains("n9"));
}

#[test]
fn a_full_disk_and_a_wrong_clock_are_named_and_marked_without_colours() {
    let mut seen = Seen::of(&["n1", "n2", "n3"]);
    seen.node("n2").disk = Some(Disk { free: 1 << 30, total: 100 << 30, store: 90 << 30 });
    seen.suffers("n2", "store_short", Severity::Critical, "the store of this node is short, so it takes no writes");
    seen.node("n3").status.clock_offset_ms = Some(3_600_000);
    seen.suffers("n3", "clock_off", Severity::Critical, "the clock of this node is 1h ahead of most others");
    seen.second();
    let lines = seen.lines(130, 40);
    assert_eq!(lines[0], "n3: the clock of this node is 1h ahead of most others.");
    assert_eq!(lines[1], "To do: mend it. (1 more: Tab, To do)");
    let text = lines.join("\n");
    shows(&text, &["[Nodes] To do (2)", "store short", "1.0 GiB 1 % low", "clock off", "+1 h off"]);
    shows(
        &text,
        &["critical: n2: the store of this node is short, so it takes no writes (for 1 min)", "to do: mend it"],
    );
    let terminal = seen.terminal(130, 40, false);
    let cells = &terminal.backend().buffer().content;
    assert!(cells.iter().all(|cell| cell.fg == Color::Reset && cell.bg == Color::Reset), "there are no colours");
    assert!(cells.iter().any(|cell| cell.modifier.contains(Modifier::UNDERLINED)));
    let terminal = seen.terminal(130, 40, true);
    assert!(terminal.backend().buffer().content.iter().any(|cell| cell.fg == Color::Red));
}

#[test]
fn forty_columns_show_what_matters_most_and_the_rest_by_scrolling() {
    let mut seen = Seen::of(&["n1", "n2", "n3"]);
    seen.kill("n2");
    seen.second();
    let lines = seen.lines(40, 12);
    assert!(lines.iter().all(|line| line.chars().count() <= 40));
    assert_eq!(lines[0], "1 of 3 nodes is down (n2): every");
    shows(
        &lines.join("\n"),
        &["[Nodes] 1 of 7, Tab: next", "NODE  STATE  REQ/S  P50  P99  HINTS", "n2    down       -"],
    );
    for _ in 0..30 {
        seen.key(KeyCode::Right);
        seen.text(40, 12);
    }
    let at_the_end = seen.text(40, 12);
    shows(&at_the_end, &["SAYS", "nothing answers at h:1"]);
    seen.key(KeyCode::Left);
    assert_ne!(seen.text(40, 12), at_the_end, "what was pressed beyond the end is not kept");
    for width in 1..=40 {
        for height in 1..=12 {
            seen.text(width, height);
        }
    }
}

#[test]
fn more_nodes_than_lines_are_scrolled() {
    let names: Vec<String> = (1..=40).map(|number| format!("n{number}")).collect();
    let names: Vec<&'static str> = names.into_iter().map(|name| &*name.leak()).collect();
    let mut seen = Seen::of(&names);
    seen.second();
    let text = seen.text(80, 24);
    shows(&text, &["lines 1-19 of 40", "n19 "]);
    assert!(!text.contains("n20 ") && !text.contains("Requests ─"), "{text}");
    seen.key(KeyCode::PageDown);
    shows(&seen.text(80, 24), &["NODE  STATE", "lines 20-38 of 40", "n20 "]);
    seen.key(KeyCode::End);
    shows(&seen.text(80, 24), &["lines 22-40 of 40"]);
    // A terminal that grows shows no emptiness below.
    shows(&seen.text(80, 34), &["lines 12-40 of 40"]);
    seen.key(KeyCode::Home);
    shows(&seen.text(80, 24), &["lines 1-19 of 40"]);
}

#[test]
fn as_long_as_nobody_has_answered_nothing_is_called_down() {
    let mut seen = Seen::of(&["n1", "n2"]);
    seen.watch.handle_timeout(seen.now);
    assert_eq!(seen.lines(80, 24)[0], "Asking n1, n2.");
    seen.watch.handle_answer("n1", Said::Figures(Box::new(figures("n1"))));
    assert_eq!(seen.lines(80, 24)[0], "Asking n2.");
    seen.kill("n1");
    seen.kill("n2");
    seen.second();
    let lines = seen.lines(80, 24);
    assert_eq!(lines[0], "No node answers: nothing can be read or written.");
    shows(&lines.join("\n"), &["n1    down", "n2    down", "No node has said yet what it measures."]);
}

#[test]
fn a_cluster_that_cannot_be_found_is_said_to_be_looked_for() {
    let mut seen = Seen::of(&["n1"]);
    seen.watch = Watch::new(SystemTime::UNIX_EPOCH, Duration::from_secs(1));
    shows(&seen.text(80, 24), &["Looking for the cluster.", "No member is known yet."]);
    seen.watch.handle_lost("nothing answers at h:1".to_owned());
    assert_eq!(seen.lines(80, 24)[0], "Nobody answers: nothing answers at h:1. Trying again.");
    seen.watch.handle_members(&topology(&["n1"]), None);
    assert_eq!(seen.lines(80, 24)[0], "Asking n1.");
}

#[test]
fn who_may_not_look_is_told_so() {
    let mut seen = Seen::of(&["n1", "n2"]);
    let denied = || Said::Silence(Silence { why: "takes the role reader".to_owned(), is_denied: true });
    seen.watch.handle_answer("n1", denied());
    assert_eq!(seen.watch.end(), None, "another may answer");
    seen.watch.handle_answer("n2", denied());
    assert_eq!(seen.watch.end(), Some(&End::Denied("takes the role reader".to_owned())));
}

#[test]
fn a_node_of_an_older_release_is_shown_with_what_it_says() {
    let mut seen = Seen::of(&["n1"]);
    seen.watch.handle_answer("n1", Said::Status(Box::new(figures("n1").status)));
    let text = seen.text(200, 24);
    shows(&text, &["All is well: the only node is up.", "n1    up         -", "is of an older release"]);
}

#[test]
fn members_that_come_and_go_are_told() {
    let mut seen = Seen::of(&["n1", "n2"]);
    seen.second();
    seen.watch.handle_members(&topology(&["n1", "n3"]), None);
    seen.says[1] = ("n3", Some(figures("n3")));
    seen.second();
    seen.node("n1").status.uptime_ms = 0;
    seen.node("n1").status.version = "0.2.0".to_owned();
    seen.suffers("n1", "records_damaged", Severity::Warning, "1 record of this node is damaged");
    seen.second();
    seen.node("n1").status.conditions.clear();
    seen.second();
    seen.front(Panel::Events);
    let text = seen.text(100, 40);
    let told = [
        "00:00:04Z  n1: over: 1 record of this node is damaged",
        "00:00:03Z  n1: 1 record of this node is damaged",
        "00:00:03Z  n1 runs release 0.2.0, before: 0.1.0",
        "00:00:03Z  n1 has started again",
        "00:00:02Z  n2 is no member any more",
        "00:00:02Z  n3 is among the members",
    ];
    shows(&text, &told);
    let places: Vec<usize> = told.iter().filter_map(|one| text.find(one)).collect();
    assert!(places.is_sorted(), "the newest stands first:\n{text}");
}

#[test]
fn repairs_say_what_differs_and_what_is_left() {
    let mut seen = Seen::of(&["n1", "n2", "n3"]);
    let exchange = ExchangesWith {
        peer: "n2".to_owned(),
        shared: 64,
        never: 0,
        unequal: 3,
        in_progress: 1,
        behind: 900,
        rate: 30.0,
    };
    seen.node("n1").exchanges = vec![exchange];
    seen.node("n3").damaged = 2;
    seen.second();
    for figures in seen.says.iter_mut().filter_map(|(_, figures)| figures.as_mut()) {
        figures.leaves_scrubbed += 50;
    }
    seen.second();
    let text = seen.text(140, 40);
    shows(
        &text,
        &[
            "3 differ",
            "2 damaged",
            "repairs replicas  n1 ⇄ n2  30 s     30 keys/s  900 keys or more to repair  3 partitions differ",
            "restores records  n3",
            "scrubs records    all         -  150 pieces/s  150 pieces so far",
        ],
    );
}

#[test]
fn what_is_paused_stays_as_it_was() {
    let mut seen = Seen::of(&["n1", "n2"]);
    seen.second();
    seen.key(KeyCode::Char('p'));
    assert!(!seen.watch.asks());
    seen.kill("n2");
    seen.second();
    let text = seen.text(80, 24);
    shows(&text, &["All is well", "PAUSED for 1 s, p goes on"]);
    seen.key(KeyCode::Char('p'));
    assert!(seen.watch.asks());
    seen.second();
    shows(&seen.text(80, 24), &["1 of 2 nodes is down (n2)"]);
}

#[test]
fn keys_turn_help_and_leave() {
    let mut seen = Seen::of(&["n1"]);
    seen.second();
    seen.key(KeyCode::Tab);
    shows(&seen.text(80, 24), &["[To do]", "━━ To do ━", "No node says that anything is the matter with it."]);
    seen.key(KeyCode::BackTab);
    seen.key(KeyCode::BackTab);
    shows(&seen.text(80, 24), &["[Events]"]);
    seen.key(KeyCode::Char('?'));
    shows(&seen.text(80, 24), &["p: pause (nobody is asked), and go on"]);
    seen.key(KeyCode::Esc);
    assert!(!seen.text(80, 24).contains("p: pause") && seen.watch.end().is_none(), "Esc closes what is in front");
    seen.key(KeyCode::Esc);
    assert_eq!(seen.watch.end(), Some(&End::Wanted));
    for code in [KeyCode::Char('q'), KeyCode::Char('c')] {
        let mut seen = Seen::of(&["n1"]);
        seen.watch.handle_key(seen.now, KeyEvent::new(code, KeyModifiers::CONTROL));
        assert_eq!(seen.watch.end(), Some(&End::Wanted));
    }
}

#[test]
fn what_nodes_say_does_not_command_the_terminal() {
    let mut seen = Seen::of(&["n1"]);
    seen.suffers("n1", "disk_low", Severity::Warning, "evil \x1b[2J\x07\u{9b}31m words");
    seen.second();
    let text = seen.text(80, 24);
    assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "{text:?}");
    shows(&text, &["evil [2J31m words"]);
}

#[test]
fn an_interval_is_a_number_of_seconds_or_a_time() {
    let parse = super::parse_interval;
    assert_eq!(parse("5"), Ok(Duration::from_secs(5)));
    assert_eq!((parse("0.5"), parse("500ms")), (Ok(Duration::from_millis(500)), Ok(Duration::from_millis(500))));
    for bad in ["0", "-1", "0.1", "inf", "NaN", "1e300", "2h", "x", ""] {
        let error = parse(bad).expect_err(bad);
        assert_eq!(error, "expected seconds from 0.2 to 3600, such as \"2\", \"0.5\" or \"30s\"", "{bad}");
    }
}

/// What a node has counted of the keys of two buckets.
fn counted(reads: u64) -> top::Said {
    let key = |token: u64| TopKey { token: Token(token << 60), name: None, cut: false };
    let seen = driftless_client::Seen { bytes: 3 << 20, siblings: 3, ago_ms: 20 };
    let hot = |token, reads, seen| HotKey { key: key(token), reads, writes: 0, over: 50, seen };
    let of_bucket = |id, hot, large: Vec<SeenKey>| BucketTop {
        bucket: BucketId(id),
        requests: reads,
        hot,
        floor: 0,
        siblings: large.clone(),
        large,
    };
    let buckets = vec![
        of_bucket(0, vec![hot(1, reads, None)], Vec::new()),
        of_bucket(5, vec![hot(2, reads / 2, Some(seen))], vec![SeenKey { key: key(2), seen }]),
    ];
    top::Said::Top(Box::new(Top { watches: true, names: false, span_ms: 50_000, buckets, uncounted: 0 }))
}

fn with_carts() -> Seen {
    let mut seen = Seen::of(&["n1", "n2"]);
    let members = ["n1", "n2"].map(|name| Member::new(name, format!("{name}:1")));
    let topology = TopologyBuilder::of_members(members).named("shop").hash_seed(0).bucket(bucket(5, "carts", 2));
    seen.watch.handle_members(&Arc::new(topology.build()), None);
    seen.second();
    seen
}

#[test]
fn keys_are_asked_for_only_while_they_are_in_front() {
    let mut seen = with_carts();
    assert!(!seen.watch.asks_for_keys());
    seen.watch.handle_keys("n1", counted(7));
    seen.key(KeyCode::Char('t'));
    assert!(seen.watch.asks_for_keys());
    shows(&seen.text(80, 24), &["━━ Keys ━", "Asking n1, n2."]);
    seen.watch.handle_keys("n1", counted(50_000));
    seen.watch.handle_keys("n9", counted(50_000));
    shows(&seen.text(80, 24), &["1000000000000000", "1,001"]);
    seen.key(KeyCode::Char('p'));
    assert!(!seen.watch.asks_for_keys(), "nobody is asked anything");
    seen.key(KeyCode::Char('p'));
    seen.key(KeyCode::Tab);
    assert!(!seen.watch.asks_for_keys());
    assert!(!seen.text(80, 24).contains("Keys ─"), "it takes no room from the others");
    seen.key(KeyCode::BackTab);
    shows(&seen.text(80, 24), &["Asking n1, n2."]);
}

#[test]
fn keys_are_added_up_ranked_and_chosen_by_bucket() {
    let mut seen = with_carts();
    seen.key(KeyCode::Char('t'));
    seen.watch.handle_keys("n1", counted(50_000));
    seen.watch.handle_keys("n2", counted(100_000));
    let panel = |seen: &mut Seen| -> Vec<String> {
        let lines = seen.lines(80, 24);
        let title = lines.iter().position(|line| line.starts_with("━━ Keys ")).expect("it is in front");
        lines[title..].to_vec()
    };
    let lines = panel(&mut seen);
    assert_eq!(lines[1], "t: [hot] large siblings   b: all buckets   names: keys = true in [top]");
    assert_eq!(lines[2], "KEY               REQ/S  OVER BY    BYTES  SIBLINGS  BUCKET   OWNERS  READS/S");
    assert_eq!(lines[3], "1000000000000000  3,002      2.0        -         -  default  n1,n2     3,000");
    assert_eq!(lines[4], "2000000000000000  1,502      2.0  3.0 MiB         3  carts    n1,n2     1,500");
    shows(
        &lines.join("\n"),
        &["most in the last 50 s; a count is at most OVER BY too high.", "Keys are shown by their tokens"],
    );
    seen.key(KeyCode::Char('t'));
    let large = panel(&mut seen);
    assert!(large[1].starts_with("t: hot [large] siblings   b: all buckets"), "{}", large[1]);
    assert!(large[3].starts_with("2000000000000000"), "{}", large[3]);
    seen.key(KeyCode::Char('b'));
    shows(&seen.text(80, 24), &["b: bucket default", "No key with a value was read or written in the last hour."]);
    seen.key(KeyCode::Char('b'));
    shows(&seen.text(80, 24), &["b: bucket carts", "2000000000000000"]);
    seen.key(KeyCode::Char('b'));
    shows(&seen.text(80, 24), &["b: all buckets"]);
    seen.key(KeyCode::Char('t'));
    seen.key(KeyCode::Char('t'));
    shows(&seen.text(80, 24), &["t: [hot]"]);
    // Little room shows the first columns, and the rest by scrolling.
    let small = seen.lines(40, 20);
    assert!(small.iter().all(|line| line.chars().count() <= 40));
    shows(&small.join("\n"), &["[Keys]", "KEY               REQ/S  OVER BY", "1000000000000000  3,002"]);
    for width in 1..=40 {
        for height in 1..=20 {
            seen.text(width, height);
        }
    }
    assert!(seen.lines(80, 24)[23].contains("t keys"), "the line of keys names it");
    seen.key(KeyCode::Char('?'));
    shows(&seen.text(80, 24), &["t: the keys that are asked for most"]);
}

#[test]
fn who_does_not_count_or_may_not_see_is_said_in_words() {
    let mut seen = with_carts();
    seen.key(KeyCode::Char('t'));
    let off = || top::Said::Top(Box::default());
    seen.watch.handle_keys("n1", off());
    seen.watch.handle_keys("n2", off());
    shows(&seen.text(200, 24), &["Not counted at n1, n2: `watch = true` under `[top]` in node.toml and a SIGHUP"]);
    seen.watch.handle_keys("n1", top::Said::Older);
    seen.watch.handle_keys("n2", counted(9));
    shows(&seen.text(200, 24), &["Not counted at n1: of an older release.", "1000000000000000"]);
    seen.watch.handle_keys("n1", top::Said::Silence);
    shows(&seen.text(200, 24), &["No answer from n1"]);
    for node in ["n1", "n2"] {
        seen.watch.handle_keys(node, top::Said::Denied("alice may not: it takes an operator".to_owned()));
    }
    shows(&seen.text(80, 24), &["alice may not: it takes an operator"]);
}
