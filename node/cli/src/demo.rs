//! `driftless demo`: the tour. It says what it does, does it with real processes, and checks every claim.

mod grow;

use std::collections::BTreeMap;
use std::io::BufReader;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use bytes::Bytes;
use driftless_client::{Bucket, Client, NoRetry, Profile};
use driftless_node::jsonl::{Line, Record, parse_line};
use driftless_proto::Key;
use futures::StreamExt;
use futures::{future, stream};

use super::dev::{READY_PATIENCE, STOP_PATIENCE, temporary_dir};
use super::exit::{Exit, Failure, Result};
use super::load::{Lines, Load, Options, Progress, Reader};
use super::local::{Layout, LocalCluster, Plan, StopSignal, free_ports};
use super::output::{self, Tone, grouped, paint, text_bytes, wrapped};
use super::profile::ClusterArgs;
use super::session::{self, IntoFailure};

/// Uses a temporary directory and free ports, and leaves nothing behind. Exit code 0 only if every check held.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// Threads of each node that own a part of its data
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=8), hide = true)]
    shards: u16,
}

/// Runs the tour.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let stop = StopSignal::install()?;
    let started = Instant::now();
    let dir = temporary_dir()?;
    let layout = Layout::create(dir.path(), &Plan { ports: free_ports(NODES)?, shards: args.shards })?;

    let mut tour = Tour { stop: stop.clone(), ..Tour::default() };
    tour.title("A cluster of three peer processes")?;
    tour.say(
        "Each is a `driftless serve` of its own with its own data, and none is a leader. They speak QUIC with \
            mutual TLS; a throw-away authority has just issued their certificates.",
    )?;
    let mut cluster = LocalCluster::start(layout, stop.clone())?;
    cluster.wait_ready(READY_PATIENCE)?;
    tour.check("three nodes are ready", true)?;

    let runtime = session::runtime()?;
    let outcome = runtime.block_on(async {
        let profile = cluster.layout().dir.display().to_string();
        let access = ClusterArgs { profile: Some(profile), ..ClusterArgs::default() }.access()?;
        let client = session::connect_on_own_thread(&access).await?;
        let interrupted = async {
            while !stop.is_set() {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        let result = tokio::select! {
            result = tour.run(&mut cluster, &client) => result,
            () = interrupted => Err(Failure::failed("interrupted; the nodes are stopped and their data is removed")),
        };
        let _ = tokio::time::timeout(Duration::from_millis(300), client.close()).await;
        result
    });
    if outcome.is_err() && !stop.is_set() {
        for node in &cluster.layout().nodes {
            output::note(format_args!("\nthe end of {}:\n{}", node.log.display(), node.log_tail()));
        }
    }
    cluster.stop(STOP_PATIENCE)?;
    outcome?;

    let failed = tour.checks - tour.held;
    let tone = if failed == 0 { Tone::Good } else { Tone::Bad };
    let sentence = match failed {
        0 => format!("All {} checks held, in {:.0} s.", tour.checks, started.elapsed().as_secs_f64()),
        _ => format!("{failed} of {} checks did not hold.", tour.checks),
    };
    output::line(format_args!("\n{}", paint(tone, sentence)))?;
    if failed > 0 {
        return Ok(Exit::Failed.into());
    }
    output::line("The nodes are stopped and their data is removed.\nNow yourself: driftless dev --dir ./my-cluster")?;
    Ok(ExitCode::SUCCESS)
}

/// How far the tour has come.
#[derive(Default)]
struct Tour {
    chapter: u32,
    checks: u32,
    held: u32,
    stop: StopSignal,
}

impl Tour {
    async fn run(&mut self, cluster: &mut LocalCluster, client: &Client) -> Result {
        let bucket = client.bucket("default");
        let records = self.load(client, &bucket).await?;
        self.read_everywhere(cluster, &bucket, &records).await?;
        self.siblings(&bucket).await?;
        self.delete(&bucket).await?;
        self.crash_and_return(cluster, client, &bucket).await?;
        self.restart_all(cluster, &bucket, &records).await?;
        self.lose_a_disk(cluster, client, &bucket, &records).await?;
        self.grow_and_shrink(cluster, client, &bucket, &records).await
    }

    async fn load(&mut self, client: &Client, bucket: &Bucket) -> Result<Vec<Record>> {
        let records = sample()?;
        self.title("Real records")?;
        let quorum = session::topology(client).bucket_named("default").map(|bucket| bucket.quorum);
        let (n, w) = quorum.map_or((3, 2), |quorum| (quorum.n(), quorum.w()));
        self.say(format_args!(
            "{} entries of Debian's package catalogue. Each key belongs to a partition of the ring, and each partition to {n} \
             nodes. A put is acknowledged once {w} of them have it on disk, fsync included.",
            grouped(records.len() as u64)
        ))?;
        let options = Options { concurrency: 128, puts: Profile::new(), replace: false };
        let progress = Progress::new(Some(SAMPLE.len() as u64), "loading");
        let reader = Reader::start(Lines::new(BufReader::new(SAMPLE)))
            .map_err(|error| Failure::failed(format_args!("cannot start a thread: {error}")))?;
        let summary = Load::new(bucket, options, progress, None, None).run(reader, future::pending()).await?;
        let rate = summary.loaded as f64 / summary.elapsed.as_secs_f64();
        self.say(format_args!(
            "{} records stored in {:.1} s ({} a second).",
            grouped(summary.loaded),
            summary.elapsed.as_secs_f64(),
            grouped(rate as u64)
        ))?;
        self.check(
            format_args!("all {} records are acknowledged, none failed", grouped(records.len() as u64)),
            summary.loaded == records.len() as u64 && summary.failed == 0 && summary.keys.with_siblings == 0,
        )?;
        Ok(records)
    }

    async fn read_everywhere(&mut self, cluster: &LocalCluster, bucket: &Bucket, records: &[Record]) -> Result {
        self.title("Any node answers for any key")?;
        self.say("Every record is now read through each node in turn, and compared byte by byte.")?;
        for node in &cluster.layout().nodes {
            let same = count_equal(&bucket.with_profile(&Profile::new().via(node.listen.to_string())), records).await?;
            self.check(
                format_args!("through {}: {} of {} are equal", node.name, grouped(same), grouped(records.len() as u64)),
                same == records.len() as u64,
            )?;
        }
        Ok(())
    }

    async fn siblings(&mut self, bucket: &Bucket) -> Result {
        self.title("Two writers who do not know of each other")?;
        self.say(
            "Ann and Bob both write the key `cart`, and neither has read it. No clock can say who is right, so \
            neither write is thrown away: the key has two siblings.",
        )?;
        put(bucket, "cart", "apples").await?;
        let done = bucket.put("cart", "bread").await.map_err(IntoFailure::into_failure)?;
        let read = bucket.get("cart").await.map_err(IntoFailure::into_failure)?;
        let mut values = texts(&read);
        values.sort();
        self.show(format_args!("get cart  →  {}", values.join("  |  ")))?;
        self.check("both values are there", values == ["apples", "bread"] && done.siblings() == 2)?;
        self.say(
            "A read hands out a context: a sealed note of what it has seen. A put with that context replaces exactly \
            that, and nothing that came later.",
        )?;
        let stale = read.context().cloned();
        let merged = bucket
            .put("cart", "apples, bread")
            .context(read.context().cloned())
            .await
            .map_err(IntoFailure::into_failure)?;
        let read = bucket.get("cart").await.map_err(IntoFailure::into_failure)?;
        self.show(format_args!(
            "put cart 'apples, bread' --context …  →  get cart  →  {}",
            texts(&read).join("  |  ")
        ))?;
        self.check("the merged value has replaced both", texts(&read) == ["apples, bread"] && merged.siblings() == 1)?;
        bucket.put("cart", "cheese").context(stale).await.map_err(IntoFailure::into_failure)?;
        let read = bucket.get("cart").await.map_err(IntoFailure::into_failure)?;
        let mut values = texts(&read);
        values.sort();
        self.show(format_args!("put cart cheese, with the old context  →  get cart  →  {}", values.join("  |  ")))?;
        self.check("a write that had not seen the merge does not undo it", values == ["apples, bread", "cheese"])
    }

    async fn delete(&mut self, bucket: &Bucket) -> Result {
        self.title("Deleting")?;
        self.say("A delete is a write too: it removes what it has seen, and leaves a mark that others learn of.")?;
        let done = bucket.delete("cart").await.map_err(IntoFailure::into_failure)?;
        let read = bucket.get("cart").await.map_err(IntoFailure::into_failure)?;
        self.check("the key is gone", done.existed() && !read.exists())?;
        let again = bucket.delete("cart").await.map_err(IntoFailure::into_failure)?;
        self.check("deleting it again says that there was nothing", !again.existed())
    }

    async fn crash_and_return(&mut self, cluster: &mut LocalCluster, client: &Client, bucket: &Bucket) -> Result {
        self.title("A node dies")?;
        let victim = NODES - 1;
        let name = cluster.layout().nodes[victim].name.clone();
        self.say(format_args!(
            "{name} is killed with SIGKILL: no goodbye, nothing written. r and w are 2 of 3, so the cluster goes on."
        ))?;
        cluster.kill(victim)?;
        let began = Instant::now();
        put(bucket, "while-away-0", "value 0").await?;
        self.say(format_args!("The first put after the crash took {} ms.", began.elapsed().as_millis()))?;
        for i in 1..AWAY_WRITES {
            put(bucket, &away_key(i), &away_value(i)).await?;
        }
        let read = count_away(bucket).await?;
        self.check(
            format_args!("{AWAY_WRITES} puts with w = 2 and {read} gets with r = 2 succeed on two nodes"),
            read == AWAY_WRITES,
        )?;

        let strict = Profile::new().retry(NoRetry).timeout(Duration::from_secs(5));
        let refused = bucket.with_profile(&strict).get("while-away-0").r(3).await;
        match refused {
            Ok(_) => self.check("a get with r = 3 is refused", false)?,
            Err(error) => {
                self.show(format_args!("get while-away-0 -r 3  →  {error}"))?;
                self.check("a get that insists on three replicas is told that it cannot have them", true)?;
            }
        }

        let hints = self.wait_for_hints(client, &name, |hints| hints >= u64::from(AWAY_WRITES)).await?;
        self.check(
            format_args!("the others keep hints of these keys for {name} (driftless hints shows {hints})"),
            hints >= u64::from(AWAY_WRITES),
        )?;

        self.title("It comes back")?;
        self.say(format_args!(
            "{name} starts on its old data. It has everything that it ever acknowledged, and lacks what was written meanwhile. \
             Once it has been up for some seconds the others hand that over; nobody reads or types anything."
        ))?;
        cluster.restart(victim, READY_PATIENCE)?;
        let began = Instant::now();
        let hints = self.wait_for_hints(client, &name, |hints| hints == 0).await?;
        self.check(
            format_args!("after {:.0} s there are no hints left for {name}", began.elapsed().as_secs_f64()),
            hints == 0,
        )?;
        let lacking = count_lacking(bucket, &name).await?;
        self.check(
            format_args!("each replica was asked for each of the {AWAY_WRITES} keys: {name} lacked {lacking}"),
            lacking == 0,
        )?;
        let address = cluster.layout().nodes[victim].listen.to_string();
        let through = bucket.with_profile(&Profile::new().via(address));
        let answers = count_away(&through).await?;
        self.check(
            format_args!("{name} serves again: {answers} of {AWAY_WRITES} gets through it are right"),
            answers == AWAY_WRITES,
        )
    }

    /// Waits until what the others hold for a node is `enough`, and answers how much that is.
    async fn wait_for_hints(&mut self, client: &Client, node: &str, enough: impl Fn(u64) -> bool) -> Result<u64> {
        let deadline = Instant::now() + HINTS_PATIENCE;
        loop {
            self.stop.check()?;
            let hints = count_hints(client, node).await;
            if enough(hints) || Instant::now() > deadline {
                return Ok(hints);
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    async fn restart_all(&mut self, cluster: &mut LocalCluster, bucket: &Bucket, records: &[Record]) -> Result {
        self.title("Everything stops, everything starts")?;
        self.say("All three are stopped and started again on their data.")?;
        let killed = cluster.stop(STOP_PATIENCE)?;
        self.check("all three stopped in order when asked to", killed.is_empty())?;
        cluster.restart_all(READY_PATIENCE)?;
        let same = count_equal(bucket, records).await?;
        self.check(
            format_args!("{} of {} records are there, byte by byte", grouped(same), grouped(records.len() as u64)),
            same == records.len() as u64,
        )?;
        let away = count_away(bucket).await?;
        let gone = !bucket.get("cart").await.map_err(IntoFailure::into_failure)?.exists();
        self.check(
            "so is what was written during the crash, and the deleted key has not come back",
            away == AWAY_WRITES && gone,
        )
    }

    async fn lose_a_disk(
        &mut self,
        cluster: &mut LocalCluster,
        client: &Client,
        bucket: &Bucket,
        records: &[Record],
    ) -> Result {
        self.title("A disk is lost")?;
        let victim = 1;
        let files = &cluster.layout().nodes[victim];
        let (name, data_dir) = (files.name.clone(), files.data_dir.clone());
        let keys = async || client.status(&name).await.ok().and_then(|status| status.keys).unwrap_or(0);
        let before = keys().await;
        self.say(format_args!(
            "{name} is killed, its data directory is deleted, and it starts again with nothing. Nobody reads a key."
        ))?;
        self.say("The others compare what they hold with it, find what it lacks, and send that.")?;
        cluster.kill(victim)?;
        std::fs::remove_dir_all(&data_dir)
            .map_err(|error| Failure::failed(format_args!("cannot delete {}: {error}", data_dir.display())))?;
        let began = Instant::now();
        cluster.restart(victim, READY_PATIENCE)?;
        let mut held = keys().await;
        let mut shown = None;
        while held < before && began.elapsed() < FILL_PATIENCE {
            self.stop.check()?;
            tokio::time::sleep(Duration::from_millis(250)).await;
            held = keys().await;
            if shown.is_none_or(|shown: Instant| shown.elapsed() >= Duration::from_secs(1)) {
                self.show(format_args!("{name} holds {} of {} keys", grouped(held), grouped(before)))?;
                shown = Some(Instant::now());
            }
        }
        self.say(format_args!("That took {:.1} s.", began.elapsed().as_secs_f64()))?;
        self.check(format_args!("{name} holds {} keys again", grouped(held)), before > 0 && held == before)?;
        let there = count_held(bucket, records, &name).await?;
        self.check(
            format_args!(
                "asked key by key, it has {} of {} records, none of them by a read",
                grouped(there),
                grouped(records.len() as u64)
            ),
            there == records.len() as u64,
        )
    }

    fn title(&mut self, title: &str) -> Result {
        self.stop.check()?;
        self.chapter += 1;
        output::line(format_args!("\n{}", paint(Tone::Strong, format_args!("{}. {title}", self.chapter))))
    }

    fn say(&self, text: impl std::fmt::Display) -> Result {
        output::line(format_args!("   {}", wrapped(&text.to_string(), 3)))
    }

    fn show(&self, text: impl std::fmt::Display) -> Result {
        output::line(format_args!("     {}", paint(Tone::Quiet, wrapped(&text.to_string(), 5))))
    }

    fn check(&mut self, claim: impl std::fmt::Display, holds: bool) -> Result {
        self.stop.check()?;
        self.checks += 1;
        self.held += u32::from(holds);
        let mark = if holds { paint(Tone::Good, "✓") } else { paint(Tone::Bad, "✗") };
        output::line(format_args!("   {mark} {}", wrapped(&claim.to_string(), 5)))
    }
}

fn sample() -> Result<Vec<Record>> {
    let lines = SAMPLE.split(|&byte| byte == b'\n').filter_map(|line| parse_line(line).transpose());
    let records = lines.map(|line| match line {
        Ok(Line::Record(record)) => Ok(record),
        Ok(mark) => Err(format!("it has {}", mark.to_json())),
        Err(problem) => Err(problem),
    });
    records
        .collect::<std::result::Result<_, _>>()
        .map_err(|problem| Failure::failed(format_args!("the sample data is damaged: {problem}")))
}

/// How many records read as exactly what was written.
async fn count_equal(bucket: &Bucket, records: &[Record]) -> Result<u64> {
    // Later lines of a file win over earlier ones with the same key; the sample has none, this only states it.
    let expected: BTreeMap<&Key, &Bytes> = records.iter().map(|record| (&record.key, &record.values[0])).collect();
    let reads = stream::iter(expected).map(async |(key, value)| {
        bucket.get(key.to_bytes()).await.map(|read| read.one() == Ok(Some(value))).map_err(IntoFailure::into_failure)
    });
    let mut reads = Box::pin(reads.buffer_unordered(128));
    let mut same = 0;
    while let Some(equal) = reads.next().await {
        same += u64::from(equal?);
    }
    Ok(same)
}

/// Of how many records this node's replica holds what the others hold, before the read repairs anything.
async fn count_held(bucket: &Bucket, records: &[Record], node: &str) -> Result<u64> {
    let reads = stream::iter(records).map(async |record| {
        let read = bucket.get(record.key.to_bytes()).explain().await.map_err(IntoFailure::into_failure)?;
        let replicas =
            read.explanation().and_then(|explanation| explanation.read.as_ref()).map_or(&[][..], |read| &read.replicas);
        let holds =
            replicas.iter().any(|replica| replica.node == node && replica.state().is_some() && !replica.repaired);
        Result::Ok(holds)
    });
    let mut reads = Box::pin(reads.buffer_unordered(64));
    let mut held = 0;
    while let Some(holds) = reads.next().await {
        held += u64::from(holds?);
    }
    Ok(held)
}

async fn count_away(bucket: &Bucket) -> Result<u32> {
    let mut right = 0;
    for i in 0..AWAY_WRITES {
        let read = bucket.get(away_key(i)).await.map_err(IntoFailure::into_failure)?;
        right += u32::from(texts(&read) == [away_value(i)]);
    }
    Ok(right)
}

/// Reads every key on all replicas: on how many `node` said nothing, or lacked something and had to be sent it.
async fn count_lacking(bucket: &Bucket, node: &str) -> Result<u32> {
    let mut lacking = 0;
    for i in 0..AWAY_WRITES {
        let read = bucket.get(away_key(i)).explain().await.map_err(IntoFailure::into_failure)?;
        let replicas =
            read.explanation().and_then(|explanation| explanation.read.as_ref()).map_or(&[][..], |read| &read.replicas);
        let said = replicas.iter().find(|replica| replica.node == node);
        lacking += u32::from(!said.is_some_and(|replica| replica.state().is_some() && !replica.repaired));
    }
    Ok(lacking)
}

/// How many keys the others hold for a node.
async fn count_hints(client: &Client, target: &str) -> u64 {
    let topology = session::topology(client);
    let mut keys = 0;
    for holder in topology.ring().members().iter().filter(|member| member.name != target) {
        let hints = client.hints(&holder.name).await.unwrap_or_default();
        keys += hints.iter().filter(|hints| hints.target == target).map(|hints| hints.keys).sum::<u64>();
    }
    keys
}

async fn put(bucket: &Bucket, key: &str, value: &str) -> Result {
    bucket.put(key.to_owned(), value.to_owned()).await.map(|_| ()).map_err(IntoFailure::into_failure)
}

fn texts(read: &driftless_client::Read) -> Vec<String> {
    read.values().map(|value| text_bytes(value)).collect()
}

fn away_key(i: u32) -> String {
    format!("while-away-{i}")
}

fn away_value(i: u32) -> String {
    format!("value {i}")
}

/// Where the records come from is in `node/data/README.md`.
const SAMPLE: &[u8] = include_bytes!("../../data/debian-packages.jsonl");

const NODES: usize = 3;

/// Hints are on their way some seconds after their target is back.
const HINTS_PATIENCE: Duration = Duration::from_secs(30);

/// Seconds are usual; a machine that does much else may need longer.
const FILL_PATIENCE: Duration = Duration::from_secs(120);

/// Enough to be convincing, few enough to be quick one after the other.
const AWAY_WRITES: u32 = 100;
