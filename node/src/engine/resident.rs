//! Whether the record that an input will read is in memory. If not, it is being fetched, and the shell puts the input aside until it is
//! there. Nothing but speed rests on this.

use driftless_proto::client::{self, Access, Class};
use driftless_proto::{BucketId, Key};

use super::Engine;
use crate::peer::{Body, Message, ReplicaRequest, Request, Traced, Want};
use crate::replica::store::{Listener, Store};

impl<S: Store> Engine<S> {
    /// Whether this node's own replica has in memory what a client's request will read of it.
    pub fn prepare_for_client(&self, request: &client::Request) -> bool {
        match request.class() {
            Class::Key { bucket, key, access: Access::Read } => self.prepare(bucket, key, Want::Full),
            Class::Key { bucket, key, access: Access::Write } => self.prepare(bucket, key, Want::Header),
            Class::Key { access: Access::Restore, .. } | Class::Arc { .. } | Class::Node => true,
        }
    }

    /// The same of what a peer says.
    pub fn prepare_for_peer(&self, message: &Message) -> bool {
        match &message.body {
            Body::Request { request: Request::Forward(request), .. } => self.prepare_for_client(request),
            Body::Request { request: Request::Replica(request) | Request::Traced(Traced { request, .. }), .. } => {
                match request {
                    ReplicaRequest::Merge(merge) => self.prepare(merge.bucket, &merge.key, Want::Header),
                    ReplicaRequest::Read(read) => self.prepare(read.bucket, &read.key, read.want),
                    ReplicaRequest::Scan(_) => true,
                }
            }
            Body::Request { request: Request::Ping | Request::Exchange(_) | Request::Membership(_), .. }
            | Body::Reply(_) => true,
        }
    }

    /// Whom to tell, from any thread, that what was not in memory has been fetched; [`Engine::handle_fetched`] is to be called then.
    pub fn on_fetched(&mut self, listener: Listener) {
        self.store_mut().on_fetched(listener);
    }

    /// Something that was not in memory has been fetched.
    pub fn handle_fetched(&mut self) {
        self.replica.handle_fetched();
    }

    fn prepare(&self, bucket: BucketId, key: &Key, want: Want) -> bool {
        self.replica.prepare(&self.shard, bucket, key, want)
    }
}
