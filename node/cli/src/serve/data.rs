//! Opening what a node keeps on disk.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use driftless_node::config::NodeConfig;
use driftless_node::node::agreed;
use driftless_node::store::directory::{DataDirectory, Identity};
use driftless_node::store::log::{Layout, LogDatabase, LogOptions, LogStore, LogSyncer};
use driftless_proto::Topology;
use driftless_ring::{Member, NodeId};
use tokio::sync::oneshot;

use super::stop::StopSignals;
use crate::exit::{Failure, Result};

/// What a node keeps on disk.
pub(super) struct Data {
    pub(super) stores: Vec<LogStore>,
    pub(super) syncer: LogSyncer,
}

impl Data {
    pub(super) fn open(config: &NodeConfig, directory: &DataDirectory, partitions: u32, shards: u16) -> Result<Data> {
        let database = LogDatabase::open(directory.store_path(), log_options(config, partitions));
        let database = database.map_err(Failure::failed)?;
        let stores = (0..shards.max(1)).map(|shard| database.store(shard)).collect();
        // The stores hold the database as long as they live; after them nobody does, and it closes.
        Ok(Data { stores, syncer: database.syncer() })
    }
}

/// What a node goes by: what it has agreed on with others, if it has, and else its files.
pub(super) struct Part {
    pub(super) topology: Arc<Topology>,
    /// The node itself, as a member or as it would be one.
    pub(super) member: Member,
}

impl Part {
    pub(super) fn of(config: &NodeConfig, directory: &DataDirectory, founding: &Arc<Topology>) -> Result<Part> {
        let files = directory.agreement().map_err(Failure::failed)?;
        let agreed = agreed::configurations(&config.name, directory.store_id(), founding, files);
        let agreed = agreed.map_err(|error| {
            let place = directory.path().join("ring");
            Failure::failed(format_args!("{} cannot be used: {error}", place.display()))
        })?;
        let topology = agreed.topology().clone();
        if agreed.is_agreed() {
            if !is_same(&topology, founding) {
                let (version, file) = (agreed.version(), config.cluster.display());
                tracing::warn!(
                    version,
                    %file,
                    "the cluster has agreed on other members or buckets than its file names: the file only says whom to ask"
                );
            }
        } else if founding.ring().member_by_name(&config.name).is_some() {
            directory.check_topology(founding).map_err(Failure::failed)?;
        }
        let member = agreed.member(NodeId::of_name(&config.name)).cloned().or_else(|| config.as_member());
        // Who has left may be waited for by others, who did not hear it say so before it died: where it is says the file that it
        // was a member by.
        let member = member.or_else(|| founding.ring().member_by_name(&config.name).cloned());
        let member = member.ok_or_else(|| super::not_a_member(config, founding))?;
        Ok(Part { topology, member })
    }
}

fn is_same(one: &Topology, other: &Topology) -> bool {
    one.ring().members() == other.ring().members() && one.buckets() == other.buckets()
}

/// Opens it on a thread of its own, since that may take minutes. Nothing if a signal comes before: then the process ends as by a
/// crash, which costs the data nothing.
pub(super) async fn unless_stopped(
    open: impl FnOnce() -> Result<Data> + Send + 'static,
    stop: &mut StopSignals,
) -> Result<Option<Data>> {
    let (done, opened) = oneshot::channel();
    let thread = std::thread::Builder::new().name("open".to_owned()).spawn(move || {
        // Nobody waits any more if a signal came.
        let _ = done.send(open());
    });
    thread.map_err(|error| Failure::failed(format_args!("cannot start a thread: {error}")))?;
    tokio::select! {
        opened = opened => match opened {
            Ok(opened) => opened.map(Some),
            Err(_) => Err(Failure::failed("the data cannot be opened: a thread panicked")),
        },
        why = stop.wait() => {
            tracing::info!(why, "stopped while the data was being opened");
            Ok(None)
        }
    }
}

/// A node that went on with an empty directory because its disk is not mounted would be taken for a later life of itself.
pub(crate) fn no_data(path: &Path, name: &str) -> Failure {
    let state = if path.exists() { "is empty" } else { "does not exist" };
    Failure::failed(format_args!("the data directory {} of {name} {state}", path.display()))
        .hint("if it should hold data, see whether its disk is mounted; on the first start of this node, or if its data is lost, add --init")
}

pub(super) fn open_directory(path: &Path, cluster: &str, name: &str) -> Result<DataDirectory> {
    DataDirectory::open(path, &expected_identity(cluster, name)).map_err(Failure::failed)
}

/// Whose a data directory has to be, and what is written into one that is made now.
pub(crate) fn expected_identity(cluster: &str, name: &str) -> Identity {
    // Whatever the clock shows: what cannot be written as a date is written as the nearest that can.
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().min(END_OF_9999);
    Identity {
        cluster: cluster.to_owned(),
        node: name.to_owned(),
        created: humantime::format_rfc3339_seconds(SystemTime::UNIX_EPOCH + since).to_string(),
        created_s: since.as_secs(),
        nonce: rand::random(),
    }
}

fn log_options(config: &NodeConfig, partitions: u32) -> LogOptions {
    LogOptions {
        layout: Layout::of_records(partitions),
        segment_bytes: config.store.segment,
        reserve_bytes: config.store.free_space_reserve,
        ..LogOptions::default()
    }
}

/// The last second that a date of four digits can name.
const END_OF_9999: Duration = Duration::from_secs(253_402_300_799);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_of_the_store_are_the_stores_own() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("node.toml");
        std::fs::write(&path, "name = \"n1\"").expect("writes");
        let (ours, theirs) =
            (log_options(&NodeConfig::read(&path, [], &[]).expect("is fine"), 1), LogOptions::default());
        assert_eq!(ours.segment_bytes, theirs.segment_bytes);
        assert_eq!(ours.reserve_bytes, theirs.reserve_bytes);
    }
}
