//! How things stand with this node, told to everybody each second and as soon as it changes; and what is heard of others.

use std::sync::Arc;
use std::time::Duration;

use driftless_ring::NodeId;

use super::letter::{Letter, News};
use super::{Membership, Output, is_known};
use crate::config::member::is_possible;
use crate::configurations::Configurations;
use crate::time::Instant;

/// When news go out.
pub(super) struct Schedule {
    at: Instant,
    last: Instant,
}

impl Schedule {
    pub(super) fn new(now: Instant) -> Schedule {
        Schedule { at: now, last: now - HURRY }
    }

    pub(super) fn at(&self) -> Instant {
        self.at
    }

    /// Something has changed: soon, and together with what changes at the same time.
    pub(super) fn hurry(&mut self, now: Instant) {
        self.at = self.at.min(now.max(self.last + HURRY));
    }

    fn is_due(&mut self, now: Instant) -> bool {
        let is_due = now >= self.at;
        if is_due {
            (self.at, self.last) = (now + PERIOD, now);
        }
        is_due
    }
}

impl Membership {
    /// Tells everybody, when it is time.
    pub(super) fn spread_news(&mut self, now: Instant) {
        if !self.news.is_due(now) {
            return;
        }
        if self.marks.is_dirty() {
            self.write_marks();
        }
        let news = self.own_news();
        for peer in self.peers.connected() {
            self.send(peer, Letter::News(Box::new(news.clone())));
        }
    }

    pub(super) fn tell_news(&mut self, _now: Instant, peer: NodeId) {
        let news = self.own_news();
        self.send(peer, Letter::News(Box::new(news)));
    }

    fn own_news(&self) -> News {
        News {
            version: self.chain.version(),
            digest: self.chain.digest(),
            settled: self.chain.settled(),
            staged: self.staging.present().cloned(),
            marks: self.marks.to_tell(),
            moving: self.progress.moving,
            sender: self.me.clone(),
        }
    }

    pub(super) fn hear_news(&mut self, now: Instant, from: NodeId, news: News) {
        if news.sender.member.id != from {
            tracing::debug!(%from, "news in the name of another node");
            return;
        }
        let member = &news.sender.member;
        let is_itself = || NodeId::of_name(&member.name) == from && is_possible(member);
        if !is_known(&self.chain, from) && !is_itself() {
            tracing::warn!(%from, "a node that calls says of itself what no node can be: it is not listened to");
            return;
        }
        let chain = &self.chain;
        self.peers.take_in(now, from, &news, |node| is_known(chain, node));
        self.compare_versions(now, from, &news);
        // Whoever has a certificate of the cluster may call; only members have a say, and numbers of another history mean nothing in this one.
        if !is_known(&self.chain, from) || self.peers.is_apart(from) {
            return;
        }
        if let Some(staged) = news.staged
            && self.staging.take_in(staged, self.chain.version())
        {
            self.news.hurry(now);
        }
        let mut is_news = false;
        for (node, told) in news.marks {
            // What others say of this store they have from this node.
            if is_known(&self.chain, node) {
                is_news |= self.marks.take_in(node, told, self.chain.store_of(node));
            }
        }
        if self.chain.settle(news.settled) {
            self.after_settling();
            is_news = true;
        }
        if is_news {
            self.rework(now);
        }
    }

    /// Another member goes by the file alone, as this node does: once most of them do, there is nothing later.
    fn note_company(&mut self, from: NodeId, version: u64) {
        let founding = self.chain.founding();
        let is_by_file = version == founding.ring().version().0 && founding.ring().member(from).is_some();
        if is_by_file && self.configurations.in_want_of_company().is_some() && self.company.insert(from) {
            let configurations = Configurations::clone(&self.configurations).in_company_of(self.company.len() + 1);
            self.configurations = Arc::new(configurations);
            self.outputs.push_back(Output::Configurations(self.configurations.clone()));
        }
    }

    fn compare_versions(&mut self, now: Instant, from: NodeId, news: &News) {
        let version = self.chain.version();
        if news.version > version {
            // What it says of itself tells nothing of its history: its records do.
            self.want(now, from);
            return;
        }
        self.note_company(from, news.version);
        let apart = self.chain.apart(news.version, news.digest);
        if apart.is_none() && news.version < version && version > 1 && self.peers.may_push(now, from) {
            self.tell_records(from, news.version);
        }
        self.set_apart(from, apart);
    }
}

/// Between two news. A node that is away for three of them is not counted on.
const PERIOD: Duration = Duration::from_secs(1);

/// Between two news when things change: marks of many nodes rise at nearly the same time.
const HURRY: Duration = Duration::from_millis(50);
