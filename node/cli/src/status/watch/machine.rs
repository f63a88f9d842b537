//! What is known of the cluster, and what of it is shown: answers and keys go in, and drawing looks at it. No socket, no clock.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use driftless_client::{ClusterState, Figures, Moving, NodeStatus, Severity, Top};
use driftless_node::conditions::verdict::{self, Answer, Trouble, Verdict};
use driftless_proto::{BucketId, Topology};
use driftless_ring::Member;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::load::Load;
use super::news::News;
use super::panel::Panel;
use crate::cluster::moving::is_unfinished;
use crate::cluster::standing::Phase;
use crate::members::{by_name, members};
use crate::ring::owned_percent;
use crate::top::{self, By};

/// All of it.
pub(super) struct Watch {
    began: SystemTime,
    pub(super) every: Duration,
    topology: Option<Arc<Topology>>,
    nodes: Vec<Node>,
    /// Why nobody has told who the members are.
    lost: Option<String>,
    pub(super) load: Load,
    pub(super) news: News,
    /// What nodes have said of keys, while these are looked at.
    keys: BTreeMap<String, top::Said>,
    /// All that as one, put together when an answer comes and not whenever it is drawn.
    top: Top,
    pub(super) view: View,
    end: Option<End>,
}

/// One member, of the newest version or of one before that still counts.
pub(super) struct Node {
    pub(super) member: Member,
    /// Whether it is a member of the newest version.
    pub(super) stays: bool,
    pub(super) owned_percent: f64,
    pub(super) said: Said,
}

/// What a node has said last.
pub(super) enum Said {
    /// It has not been heard, and has not been waited for in vain either.
    NothingYet,
    /// All that it measures.
    Figures(Box<Figures>),
    /// Only its status: it is of an older release.
    Status(Box<NodeStatus>),
    /// Why there is no answer.
    Silence(Silence),
}

/// Why there is no answer.
#[derive(Clone, Debug)]
pub(super) struct Silence {
    pub(super) why: String,
    /// The node is there, and answers nobody with this certificate.
    pub(super) is_denied: bool,
}

/// Why the view closes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum End {
    /// Whoever looks has seen enough.
    Wanted,
    /// Nobody answers with this certificate.
    Denied(String),
}

/// Which part is shown.
pub(super) struct View {
    pub(super) panel: Panel,
    pub(super) scrolled: [Scrolled; Panel::ALL.len()],
    pub(super) helps: bool,
    /// Of keys: by what they are ranked, and of which bucket they are.
    pub(super) by: By,
    pub(super) bucket: Option<BucketId>,
    /// Since when nobody is asked and nothing is taken in.
    pub(super) paused: Option<Duration>,
    /// How far it can be scrolled, as it was drawn last.
    room: Room,
}

/// How far a panel is scrolled.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Scrolled {
    pub(super) rows: usize,
    pub(super) columns: usize,
}

/// What the panel in front has to show beyond what fits.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Room {
    /// The furthest that it can be scrolled.
    pub(super) furthest: Scrolled,
    /// Rows that are seen at once.
    pub(super) page: usize,
}

impl Watch {
    /// Of a cluster of which nothing is known.
    pub(super) fn new(began: SystemTime, every: Duration) -> Watch {
        Watch {
            began,
            every,
            topology: None,
            nodes: Vec::new(),
            lost: None,
            load: Load::default(),
            news: News::default(),
            keys: BTreeMap::new(),
            top: Top::default(),
            view: View {
                panel: Panel::ALL[0],
                scrolled: Default::default(),
                helps: false,
                by: By::Hot,
                bucket: None,
                paused: None,
                room: Room::default(),
            },
            end: None,
        }
    }

    /// Who the members are, and how they stand if somebody says so.
    pub(super) fn handle_members(&mut self, topology: &Arc<Topology>, change: Option<&ClusterState>) {
        self.lost = None;
        let mut before = std::mem::take(&mut self.nodes);
        let mut node = |member: Member, stays| {
            let known = before.iter().position(|node| node.member.name == member.name);
            let said = known.map_or(Said::NothingYet, |at| before.swap_remove(at).said);
            Node { owned_percent: owned_percent(topology, member.id), member, stays, said }
        };
        let mut nodes: Vec<Node> = members(topology).map(|member| node(member, true)).collect();
        let leave = |state: &&ClusterState| is_unfinished(state);
        for member in change.filter(leave).into_iter().flat_map(|state| {
            state.members.iter().filter(|member| !member.stays && Phase::of(member, state) != Phase::Left)
        }) {
            if nodes.iter().all(|node| node.member.name != member.name) {
                let mut leaves = Member::new(member.name.as_str(), member.address.as_str());
                leaves.zone.clone_from(&member.zone);
                nodes.push(node(leaves, false));
            }
        }
        nodes.sort_by(|one, other| by_name(&one.member.name, &other.member.name));
        for gone in &before {
            self.load.forget(&gone.member.name);
            self.keys.remove(&gone.member.name);
            self.top = top::joined(self.keys.values());
        }
        self.nodes = nodes;
        self.topology = Some(Arc::clone(topology));
    }

    /// A node has answered, or has not. What comes while nothing is taken in is dropped.
    pub(super) fn handle_answer(&mut self, name: &str, said: Said) {
        if self.view.paused.is_some() {
            return;
        }
        let Some(node) = self.nodes.iter_mut().find(|node| node.member.name == name) else { return };
        if let Said::Figures(figures) = &said {
            self.load.handle_figures(name, figures);
        }
        node.said = said;
        if let Some(why) = self.denial() {
            self.end = Some(End::Denied(why));
        }
    }

    /// A node has said which keys it was asked for, or has not. Whoever has turned away meanwhile does not look at it.
    pub(super) fn handle_keys(&mut self, name: &str, said: top::Said) {
        if self.asks_for_keys() && self.nodes.iter().any(|node| node.member.name == name) {
            self.keys.insert(name.to_owned(), said);
            self.top = top::joined(self.keys.values());
        }
    }

    /// Nobody has told who the members are.
    pub(super) fn handle_lost(&mut self, why: String) {
        if self.view.paused.is_none() {
            self.lost = Some(why);
        }
    }

    /// An interval has ended.
    pub(super) fn handle_timeout(&mut self, now: Duration) {
        if self.view.paused.is_some() {
            return;
        }
        self.load.handle_interval(now);
        if self.unheard().next().is_none() && self.topology.is_some() {
            let wall = self.wall(now);
            let mut news = std::mem::take(&mut self.news);
            news.handle_sight(wall, self);
            self.news = news;
        }
    }

    /// Whoever looks has pressed something.
    pub(super) fn handle_key(&mut self, now: Duration, key: KeyEvent) {
        if key.kind == KeyEventKind::Release {
            return;
        }
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            KeyCode::Char('c') if control => self.end = Some(End::Wanted),
            KeyCode::Char('q') => self.end = Some(End::Wanted),
            _ if self.view.helps => self.view.helps = false,
            KeyCode::Esc => self.end = Some(End::Wanted),
            KeyCode::Char('?') => self.view.helps = true,
            KeyCode::Char('p') => self.pause(now),
            KeyCode::Tab => self.turn(1),
            KeyCode::BackTab => self.turn(Panel::ALL.len() - 1),
            KeyCode::Char('t') if self.view.panel == Panel::Keys => self.rank_by(self.view.by.next()),
            KeyCode::Char('t') => self.turn_to(Panel::Keys),
            KeyCode::Char('b') if self.view.panel == Panel::Keys => self.choose_bucket(),
            code => self.scroll(code),
        }
    }

    /// Whoever looks wants no more, by a signal.
    pub(super) fn handle_interrupt(&mut self) {
        self.end = Some(End::Wanted);
    }

    /// It was drawn, with so much beyond what fits.
    pub(super) fn handle_drawn(&mut self, room: Room) {
        self.view.room = room;
        let scrolled = &mut self.view.scrolled[self.view.panel.place()];
        scrolled.rows = scrolled.rows.min(room.furthest.rows);
        scrolled.columns = scrolled.columns.min(room.furthest.columns);
    }

    fn pause(&mut self, now: Duration) {
        self.view.paused = match self.view.paused {
            None => Some(now),
            Some(_) => {
                self.load.forget_last();
                None
            }
        };
    }

    fn turn(&mut self, by: usize) {
        self.turn_to(Panel::ALL[(self.view.panel.place() + by) % Panel::ALL.len()]);
    }

    fn turn_to(&mut self, panel: Panel) {
        self.view.panel = panel;
        // What is not looked at is not asked for, and soon not true any more.
        if panel != Panel::Keys {
            self.keys.clear();
            self.top = Top::default();
        }
    }

    fn rank_by(&mut self, by: By) {
        self.view.by = by;
        self.view.scrolled[Panel::Keys.place()].rows = 0;
    }

    /// All, then each, then all again.
    fn choose_bucket(&mut self) {
        let buckets = self.topology.iter().flat_map(|topology| topology.buckets());
        let ids: Vec<BucketId> = buckets.map(|bucket| bucket.id).collect();
        let next = match self.view.bucket {
            None => 0,
            Some(chosen) => ids.iter().position(|id| *id == chosen).map_or(ids.len(), |at| at + 1),
        };
        self.view.bucket = ids.get(next).copied();
        self.view.scrolled[Panel::Keys.place()].rows = 0;
    }

    fn scroll(&mut self, code: KeyCode) {
        let Room { furthest, page } = self.view.room;
        let Scrolled { rows, columns } = &mut self.view.scrolled[self.view.panel.place()];
        match code {
            KeyCode::Up => *rows = rows.saturating_sub(1),
            KeyCode::Down => *rows += 1,
            KeyCode::PageUp => *rows = rows.saturating_sub(page),
            KeyCode::PageDown => *rows += page,
            KeyCode::Home => *rows = 0,
            KeyCode::End => *rows = furthest.rows,
            KeyCode::Left => *columns = columns.saturating_sub(1),
            KeyCode::Right => *columns += 1,
            _ => {}
        }
        *rows = (*rows).min(furthest.rows);
        *columns = (*columns).min(furthest.columns);
    }

    /// Whether, and why, the view closes.
    pub(super) fn end(&self) -> Option<&End> {
        self.end.as_ref()
    }

    /// Whether nodes are to be asked.
    pub(super) fn asks(&self) -> bool {
        self.view.paused.is_none()
    }

    /// Whether they are to be asked for keys as well: only while these are looked at.
    pub(super) fn asks_for_keys(&self) -> bool {
        self.asks() && self.view.panel == Panel::Keys
    }

    /// What all of them have said of keys, as one.
    pub(super) fn top(&self) -> &Top {
        &self.top
    }

    /// What nodes have said of keys, and who has not said anything yet.
    pub(super) fn keys(&self) -> (&BTreeMap<String, top::Said>, Vec<&str>) {
        let names = self.nodes.iter().map(|node| node.member.name.as_str());
        (&self.keys, names.filter(|name| !self.keys.contains_key(*name)).collect())
    }

    /// Whether somebody answers. While nobody does, others may know of other members.
    pub(super) fn is_heard(&self) -> bool {
        self.nodes.iter().any(|node| node.status().is_some())
    }

    /// In the order of their names.
    pub(super) fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Of those that have said what they measure: who, and what.
    pub(super) fn figures(&self) -> impl Iterator<Item = (&str, &Figures)> {
        self.nodes.iter().filter_map(|node| Some((node.member.name.as_str(), node.figures()?)))
    }

    pub(super) fn topology(&self) -> Option<&Topology> {
        self.topology.as_deref()
    }

    /// How a node is, in one word.
    pub(super) fn state(&self, node: &Node) -> &'static str {
        match node.said {
            Said::NothingYet => "asking",
            _ => verdict::state(node.answer(), &self.answers()),
        }
    }

    pub(super) fn is_up(&self, name: &str) -> bool {
        self.nodes.iter().any(|node| node.member.name == name && node.status().is_some())
    }

    /// Whether all is well, and if not, what to do. `None` as long as that cannot be said.
    pub(super) fn verdict(&self) -> Option<Verdict> {
        let topology = self.topology.as_deref().filter(|_| self.unheard().next().is_none())?;
        let stay: Vec<Answer<'_>> = self.nodes.iter().filter(|node| node.stays).map(Node::answer).collect();
        Some(verdict::judge(topology, &stay, self.moving()))
    }

    /// What has to be said while there is no verdict.
    pub(super) fn instead_of_verdict(&self) -> String {
        let asked: Vec<&str> = self.unheard().collect();
        match &self.lost {
            Some(why) => format!("Nobody answers: {why}. Trying again."),
            None if asked.is_empty() => "Looking for the cluster.".to_owned(),
            None => format!("Asking {}.", super::words::named(asked)),
        }
    }

    /// What nodes take in and hand over, if a version is not done with.
    pub(super) fn moving(&self) -> Option<Moving> {
        let mut parts = self.figures().filter(|(_, figures)| !figures.unfinished.is_empty()).peekable();
        parts.peek()?;
        let mut sum = Moving::default();
        parts.for_each(|(_, figures)| sum += figures.moving);
        Some(sum)
    }

    /// All that somebody should do something about.
    pub(super) fn troubles(&self) -> Vec<Trouble<'_>> {
        verdict::troubles(&self.answers())
    }

    /// The time of day, as far as clocks did not jump since the view began.
    pub(super) fn wall(&self, now: Duration) -> SystemTime {
        self.began.checked_add(now).unwrap_or(self.began)
    }

    fn answers(&self) -> Vec<Answer<'_>> {
        self.nodes.iter().map(Node::answer).collect()
    }

    fn unheard(&self) -> impl Iterator<Item = &str> {
        let unheard = self.nodes.iter().filter(|node| matches!(node.said, Said::NothingYet));
        unheard.map(|node| node.member.name.as_str())
    }

    /// Why nobody answers, if it is because of who asks.
    fn denial(&self) -> Option<String> {
        let mut why = None;
        for node in &self.nodes {
            match &node.said {
                Said::Silence(silence) if silence.is_denied => why = Some(silence.why.clone()),
                Said::Silence(_) => {}
                _ => return None,
            }
        }
        why
    }
}

impl Node {
    pub(super) fn figures(&self) -> Option<&Figures> {
        match &self.said {
            Said::Figures(figures) => Some(figures),
            _ => None,
        }
    }

    pub(super) fn status(&self) -> Option<&NodeStatus> {
        match &self.said {
            Said::Figures(figures) => Some(&figures.status),
            Said::Status(status) => Some(status),
            Said::NothingYet | Said::Silence(_) => None,
        }
    }

    /// Whether something of this kind is the matter with it, and is no note.
    pub(super) fn suffers(&self, names: &[&str]) -> bool {
        self.status().is_some_and(|status| {
            let mut bad = status.conditions.iter().filter(|condition| condition.severity > Severity::Note);
            bad.any(|condition| names.contains(&condition.name.as_str()))
        })
    }

    fn answer(&self) -> Answer<'_> {
        Answer { member: &self.member, status: self.status() }
    }
}
