//! The chapter in which a cluster grows and shrinks while clients write.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use driftless_client::{Bucket, Client, ClusterAnswer, ClusterChange as Change, ClusterCommand, ClusterState};
use futures::{StreamExt, stream};
use tokio::task::JoinHandle;

use super::{STOP_PATIENCE, Tour, count_equal, texts};
use crate::cluster::moving::{Progress, is_unfinished};
use crate::cluster::{ask, decide, misunderstood, state};
use crate::exit::{Failure, Result};
use crate::local::{Addition, Event, LocalCluster, free_ports};
use crate::output::{grouped, size};
use crate::session::IntoFailure;
use driftless_node::jsonl::Record;

/// Clients that write until they are told to stop.
struct Writers {
    stop: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<Written>>,
}

/// What one of them has done.
#[derive(Default)]
struct Written {
    /// Keys of acknowledged puts; the value is the key.
    keys: Vec<String>,
    /// Puts that were not.
    failed: u64,
    /// Why, of the first.
    problem: Option<String>,
    /// Clients that came to no end of their own: what was acknowledged to them is not known, and cannot be looked for.
    panicked: u32,
}

impl Tour {
    /// Three nodes become four, and three again.
    pub(super) async fn grow_and_shrink(
        &mut self,
        cluster: &mut LocalCluster,
        client: &Client,
        bucket: &Bucket,
        records: &[Record],
    ) -> Result {
        self.title("A node joins while clients write, and another leaves")?;
        if let Some(reason) = self.cannot_change(client).await? {
            return self.check(format_args!("the cluster can be changed: {reason}"), false);
        }
        let writers = Writers::start(bucket);
        let changed = self.change(cluster, client).await;
        let written = writers.stop().await;
        let leaver = changed?;
        let node = cluster.running(&leaver).ok_or_else(|| Failure::failed(format_args!("{leaver} does not run")))?;
        cluster.retire(node, STOP_PATIENCE)?;
        self.say(format_args!("{leaver} is stopped, and its disk could be thrown away."))?;
        self.nothing_is_lost(bucket, records, &written).await
    }

    /// Why members cannot be changed, if they cannot.
    async fn cannot_change(&mut self, client: &Client) -> Result<Option<String>> {
        let deadline = Instant::now() + AGREE_PATIENCE;
        loop {
            self.stop.check()?;
            let reason = match state(client, None).await {
                Ok(state) if !state.is_agreed => "the members have not agreed on a first version",
                Ok(state) if state.members.iter().any(|member| !member.is_whole) => "a store is not filled again yet",
                Ok(state) if is_unfinished(&state) => "an earlier change is not finished",
                Ok(_) => return Ok(None),
                Err(failure) => return Ok(Some(format!("the nodes do not change members ({})", failure.message()))),
            };
            if Instant::now() > deadline {
                return Ok(Some(reason.to_owned()));
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    /// Lets one join and then one leave. Gives the name of the latter.
    async fn change(&mut self, cluster: &mut LocalCluster, client: &Client) -> Result<String> {
        let name = format!("n{}", cluster.layout().nodes.len() + 1);
        let ports = free_ports(1)?.into_iter().next().ok_or_else(|| Failure::failed("there is no free port"))?;
        let (zone, shards) = ("default".to_owned(), cluster.layout().shards);
        cluster.layout().add(&Addition { name: name.clone(), ports, zone, weight: 1, shards })?;
        let added = matches!(cluster.adopt()?[..], [Event::Added { .. }]);
        self.say(format_args!(
            "{WRITERS} clients write all the time. {name} starts with an empty disk and calls the cluster, which does not know it."
        ))?;
        let called = |state: &ClusterState| state.candidates.iter().any(|candidate| candidate.name == name);
        let state = self.wait_for(client, CALL_PATIENCE, called).await?;
        self.check(format_args!("{name} has called and is no member yet"), added && called(&state))?;

        let join = Change::Join { name: name.clone(), zone: None, weight: None };
        let moved = self.commit(client, join, &format!("cluster join {name}")).await?;
        let members = moved.members.iter().filter(|member| member.stays).count();
        self.check(format_args!("{members} members share the data, and reads count at the new owners"), members == 4)?;

        // No node is special: it may be the first one.
        let leaver = cluster.layout().nodes[0].name.clone();
        self.say(format_args!("Now {leaver} leaves: it hands over what it holds, and serves until it holds nothing."))?;
        let leave = Change::Leave { name: leaver.clone(), lost: false };
        let moved = self.commit(client, leave, &format!("cluster leave {leaver}")).await?;
        let stays = moved.members.iter().any(|member| member.stays && member.name == leaver);
        self.check(format_args!("{leaver} has left and holds nothing"), !stays)?;
        Ok(leaver)
    }

    /// Stages, plans and commits a change, and waits until all that it moves has moved.
    async fn commit(&mut self, client: &Client, change: Change, typed: &str) -> Result<ClusterState> {
        ask(client, ClusterCommand::Stage(change)).await?;
        let ClusterAnswer::Plan(plan) = ask(client, ClusterCommand::Plan).await? else { return Err(misunderstood()) };
        let bytes: u64 = plan.nodes.iter().map(|node| node.bytes_in).sum();
        self.show(format_args!(
            "{typed}; cluster plan  →  moves {} of {} slots (minimum {}), about {}",
            plan.slots_moved,
            plan.slots,
            plan.slots_minimum,
            size(bytes)
        ))?;
        self.check(
            format_args!("{} slots move, and {} is the least", plan.slots_moved, plan.slots_minimum),
            plan.slots_moved * 20 <= plan.slots_minimum * 21,
        )?;
        let began = Instant::now();
        let decided = decide(client, ClusterCommand::Commit { plan: plan.name.clone() }).await?;
        self.show(format_args!(
            "cluster commit {}  →  version {} decided by {}",
            plan.name,
            decided.version,
            decided.by.join(", ")
        ))?;
        let is_done = |state: &ClusterState| state.version >= decided.version && !is_unfinished(state);
        let state = self.wait_for(client, MOVE_PATIENCE, is_done).await?;
        let seconds = began.elapsed().as_secs_f64();
        self.check(format_args!("version {} is settled after {seconds:.1} s", decided.version), is_done(&state))?;
        Ok(state)
    }

    /// Waits until that is so, and shows what moves meanwhile.
    async fn wait_for(
        &mut self,
        client: &Client,
        patience: Duration,
        is_so: impl Fn(&ClusterState) -> bool,
    ) -> Result<ClusterState> {
        let deadline = Instant::now() + patience;
        let mut shown = Instant::now();
        loop {
            self.stop.check()?;
            match state(client, None).await {
                Ok(state) if is_so(&state) || Instant::now() > deadline => return Ok(state),
                Ok(state) => {
                    if is_unfinished(&state) && shown.elapsed() >= SHOW_INTERVAL {
                        self.show(format_args!("transfers  →  {}", Progress::of_all(&state).words()))?;
                        shown = Instant::now();
                    }
                }
                Err(failure) if Instant::now() > deadline => return Err(failure),
                Err(_) => {}
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    async fn nothing_is_lost(&mut self, bucket: &Bucket, records: &[Record], written: &Written) -> Result {
        let (claim, holds) = written.verdict();
        self.check(claim, holds)?;
        let keys = &written.keys;
        let acknowledged = keys.len() as u64;
        let mut reads = Box::pin(
            stream::iter(keys)
                .map(async |key| {
                    let read = bucket.get(key.clone()).await.map_err(IntoFailure::into_failure)?;
                    Result::Ok(texts(&read) == [key.clone()])
                })
                .buffer_unordered(64),
        );
        let mut there = 0;
        while let Some(is_there) = reads.next().await {
            there += u64::from(is_there?);
        }
        self.check(
            format_args!("{} of {} acknowledged puts are there", grouped(there), grouped(acknowledged)),
            acknowledged > 0 && there == acknowledged,
        )?;
        let same = count_equal(bucket, records).await?;
        self.check(
            format_args!("so are {} of {} records, byte by byte", grouped(same), grouped(records.len() as u64)),
            same == records.len() as u64,
        )?;
        let gone = !bucket.get("cart").await.map_err(IntoFailure::into_failure)?.exists();
        self.check("and the deleted key has not come back", gone)
    }
}

impl Writers {
    fn start(bucket: &Bucket) -> Writers {
        let stop = Arc::new(AtomicBool::new(false));
        let write = |writer: u32| {
            let (bucket, stop) = (bucket.clone(), Arc::clone(&stop));
            async move {
                let mut written = Written::default();
                for i in 0_u64.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let key = format!("while-moving-{writer}-{i}");
                    match bucket.put(key.clone(), key.clone()).await {
                        Ok(_) => written.keys.push(key),
                        Err(error) => {
                            written.failed += 1;
                            written.problem.get_or_insert_with(|| error.to_string());
                        }
                    }
                    tokio::time::sleep(WRITE_INTERVAL).await;
                }
                written
            }
        };
        let tasks = (0..WRITERS).map(|writer| tokio::spawn(write(writer))).collect();
        Writers { stop, tasks }
    }

    /// What they have done together.
    async fn stop(self) -> Written {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Written::default();
        for task in self.tasks {
            match task.await {
                Ok(written) => {
                    all.keys.extend(written.keys);
                    all.failed += written.failed;
                    all.problem = all.problem.or(written.problem);
                }
                Err(_) => all.panicked += 1,
            }
        }
        all
    }
}

impl Written {
    /// What is claimed of it, and whether that holds: a change of members costs nobody a put.
    fn verdict(&self) -> (String, bool) {
        if self.panicked > 0 {
            let what = "what was acknowledged to them is not known";
            return (format!("{} of the {WRITERS} clients panicked meanwhile: {what}", self.panicked), false);
        }
        if self.failed > 0 {
            let all = grouped(self.keys.len() as u64 + self.failed);
            let problem = self.problem.as_deref().unwrap_or("no reason was given");
            return (format!("{} of {all} puts meanwhile failed, the first: {problem}", grouped(self.failed)), false);
        }
        let all = grouped(self.keys.len() as u64);
        (format!("all {all} puts meanwhile were acknowledged, none failed"), !self.keys.is_empty())
    }
}

const WRITERS: u32 = 4;

/// Hundreds of puts a second together, which leaves a small machine room to move.
const WRITE_INTERVAL: Duration = Duration::from_millis(10);

const POLL_INTERVAL: Duration = Duration::from_millis(250);

const SHOW_INTERVAL: Duration = Duration::from_secs(1);

/// The members agree once all are connected; a store whose disk was lost is filled meanwhile.
const AGREE_PATIENCE: Duration = Duration::from_secs(60);

/// A node that starts calls at once.
const CALL_PATIENCE: Duration = Duration::from_secs(30);

/// Seconds are usual; a machine that does much else may need longer.
const MOVE_PATIENCE: Duration = Duration::from_secs(240);

#[cfg(test)]
mod tests {
    use super::*;

    /// Puts that failed were said in passing, a client that panicked not at all, and the tour ended with 0.
    #[test]
    fn a_put_that_failed_or_a_client_that_panicked_fails_the_tour() {
        let writers = |tasks| Writers { stop: Arc::default(), tasks };
        let wrote = |key: &str| Written { keys: vec![key.to_owned()], ..Written::default() };
        let stopped = |first: Written, panics: bool| {
            let second = async move {
                assert!(!panics, "this one is to panic");
                Written { keys: vec!["b".to_owned()], ..Written::default() }
            };
            let runtime = crate::session::runtime().expect("can be made");
            runtime.block_on(async { writers(vec![tokio::spawn(async { first }), tokio::spawn(second)]).stop().await })
        };
        let verdict = stopped(wrote("a"), false).verdict();
        assert_eq!(verdict, ("all 2 puts meanwhile were acknowledged, none failed".to_owned(), true));
        let lost = Written { failed: 1, problem: Some("no answer".to_owned()), ..wrote("a") };
        let verdict = stopped(lost, false).verdict();
        assert_eq!(verdict, ("1 of 3 puts meanwhile failed, the first: no answer".to_owned(), false));
        let (said, holds) = stopped(wrote("a"), true).verdict();
        assert!(said.starts_with("1 of the 4 clients panicked meanwhile") && !holds, "{said}");
        assert!(!Written::default().verdict().1, "nothing was written at all");
    }
}
