//! The connections of one shard that have shown a certificate, and their end when that counts no more: because it has
//! expired, or because it has been denied since.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use quinn::Connection;

use super::refusal::{CloseCode, CloseReason};
use super::shard_context::ShardContext;
use super::verified::Verified;

/// The connections of one shard, with what they were opened with.
#[derive(Default)]
pub(crate) struct Admitted {
    next: Cell<u64>,
    connections: RefCell<BTreeMap<u64, (Connection, Rc<Verified>)>>,
}

/// One of them, until this is dropped.
pub(crate) struct Admittance {
    context: Rc<ShardContext>,
    number: u64,
}

impl Admitted {
    /// Adds a connection whose certificate has just been looked at.
    pub(crate) fn enter(context: &Rc<ShardContext>, connection: &Connection, verified: Rc<Verified>) -> Admittance {
        let admitted = &context.admitted;
        let number = admitted.next.get();
        admitted.next.set(number + 1);
        let shared = &context.shared;
        let role = shared.credentials.allowed().1.grant(&verified.subject).role;
        shared.audit.connected(shared, &verified, connection.remote_address(), role);
        admitted.connections.borrow_mut().insert(number, (connection.clone(), verified));
        Admittance { context: context.clone(), number }
    }

    /// Closes those whose certificate has expired or is denied.
    pub(crate) fn inspect(&self, context: &ShardContext) {
        let (_, allowed) = context.shared.credentials.allowed();
        let now = SystemTime::UNIX_EPOCH + Duration::from_millis(context.shared.clock.now().wall.millis());
        for (connection, verified) in self.connections.borrow().values() {
            // It is closed already, and its conversation about to end.
            if connection.close_reason().is_some() {
                continue;
            }
            let metrics = &context.shared.metrics;
            let reason = if verified.is_expired(now) {
                metrics.connections_expired.inc();
                CloseReason::new(CloseCode::Expired, "the certificate of this connection has expired")
            } else if let Some(text) = verified.denied_by(&allowed) {
                metrics.connections_revoked.inc();
                CloseReason::new(CloseCode::Revoked, text)
            } else {
                continue;
            };
            reason.close(connection);
            let (who, address) = (verified.subject.to_string(), connection.remote_address());
            context.shared.audit.refused(&context.shared, &who, address, &reason.text);
            context.log_closing(&who, address, &reason.text);
        }
    }
}

impl Drop for Admittance {
    fn drop(&mut self) {
        let shared = &self.context.shared;
        if let Some((connection, verified)) = self.context.admitted.connections.borrow_mut().remove(&self.number) {
            let reason = connection.close_reason().map_or_else(String::new, |reason| reason.to_string());
            shared.audit.disconnected(shared, &verified.subject.to_string(), connection.remote_address(), &reason);
        }
    }
}
