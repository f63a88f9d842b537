//! `driftless bench`: load on a running cluster, and what it felt like.
//!
//! ```text
//! workload.rs  what requests do           load.rs     clients that do it        result.rs   what came of it, as JSON
//! keys.rs      which keys                 prefill.rs  keys that are missing     report.rs   … for people
//! inserts.rs   … and new ones             problem.rs  why requests failed       plot.rs     … as a picture
//! pace.rs      when they begin            record.rs   latencies, time line      compare.rs  two of them side by side
//! random.rs    the same in every run      cpu.rs      processor time            hdr.rs      histograms for other tools
//! ```

mod compare;
mod cpu;
mod hdr;
mod inserts;
mod keys;
mod load;
mod pace;
mod plot;
mod prefill;
mod problem;
mod random;
mod record;
mod report;
mod result;
mod workload;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use driftless_client::{Bucket, Client};
use driftless_node::config::units;

use super::exit::{Exit, Failure, Result};
use super::global::GlobalArgs;
use super::interrupt::Interrupts;
use super::new_file::{NewFile, PUBLIC};
use super::output::{self, Format};
use super::quorum::ReadWriteArgs;
use super::session::{self, BucketArg};
use keys::Distribution;
use load::{Load, Measured, Times};
use problem::NOT_FOUND;
use result::{Errors, Latencies, Report, Settings};
use workload::{Kind, Mix, Operation, Workload};

/// What is measured: from the call of the client library to its answer, retries included; with --rate from when the
/// request was due. Exit code 1 if requests failed.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// Clients, each with one request under way; with --rate the most that are under way
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    clients: u32,
    /// Begin so many requests a second, whatever becomes of them (open loop), instead of one as the last is answered
    #[arg(long, value_name = "OPS_PER_SECOND", value_parser = parse_rate)]
    rate: Option<f64>,
    /// How long to measure
    #[arg(long, value_name = "N", default_value_t = 10.0, value_parser = parse_seconds)]
    seconds: f64,
    /// How long to run before that
    #[arg(long, value_name = "N", default_value_t = 1.0, value_parser = parse_seconds)]
    warmup: f64,
    /// What to do
    #[arg(long, value_enum, default_value_t = Operation::Put)]
    op: Operation,
    /// Share of gets, with --op mixed
    #[arg(long, value_name = "0..1", default_value_t = 0.5, value_parser = parse_ratio)]
    read_ratio: f64,
    /// What to do, as YCSB has it, in place of --op
    #[arg(long, value_enum, value_name = "a|b|c|d|f", conflicts_with_all = ["op", "read_ratio"])]
    workload: Option<Workload>,
    /// How popular keys are [default: uniform, or as the workload has it]
    #[arg(long, value_enum)]
    distribution: Option<Distribution>,
    /// Length of each value
    #[arg(long, value_name = "SIZE", default_value = "1KiB", value_parser = units::bytes)]
    value_size: u64,
    /// Number of keys
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..))]
    keys: u32,
    #[command(flatten)]
    bucket: BucketArg,
    #[command(flatten)]
    quorum: ReadWriteArgs,
    /// Do not look for missing keys and write them, and do not read the context of the others, before measuring: gets then
    /// meet keys that do not exist, and the first put of each key makes a sibling of what an earlier run left
    #[arg(long)]
    no_prefill: bool,
    #[command(flatten)]
    files: FileArgs,
    /// Print how the second of two results of --output differs from the first; needs no cluster
    #[arg(long, num_args = 2, value_names = ["A.json", "B.json"], conflicts_with_all = ["op", "workload", "distribution", "rate", "no_prefill", "output", "hdr", "plot"])]
    compare: Option<Vec<PathBuf>>,
}

/// Where results go beside standard output.
#[derive(clap::Args, Debug)]
struct FileArgs {
    /// Write all of the result: settings, time line, histograms (JSON)
    #[arg(long, value_name = "FILE.json")]
    output: Option<PathBuf>,
    /// Write the distribution of the latencies, in milliseconds, as HdrHistogram's plotters read it
    #[arg(long, value_name = "FILE.hgrm")]
    hdr: Option<PathBuf>,
    /// Draw throughput and latencies over time, and their distribution (SVG)
    #[arg(long, value_name = "FILE.svg")]
    plot: Option<PathBuf>,
}

/// Files that have been begun: that one cannot be written is said before anything is measured.
struct Files {
    output: Option<NewFile>,
    hdr: Option<NewFile>,
    plot: Option<NewFile>,
}

/// Runs the load and prints what was measured.
pub(crate) fn run(global: &GlobalArgs, args: &Args) -> Result<ExitCode> {
    if let Some(files) = &args.compare {
        return compare::run(files, global.format).map(|()| ExitCode::SUCCESS);
    }
    let access = global.cluster.access()?;
    let files = args.files.begin()?;
    session::run(global, async |client| {
        let (bucket, settings) = args.settle(client)?;
        let mut interrupts = Interrupts::listen()?;
        let mix = args.mix();
        let time = Duration::from_secs_f64(args.seconds);
        let mut load = Load::new(bucket, &settings, mix, time);
        tokio::select! {
            prepared = prepare(&mut load, args, mix) => prepared?,
            () = interrupts.next() => return Err(Failure::failed("interrupted before anything was measured")),
        }
        let pids = match &access.dev_dir {
            Some(dir) => cpu::pids(dir),
            None => {
                Err("--profile is not the directory of a dev cluster, so the nodes' processes are not known".to_owned())
            }
        };
        let times = Times { warmup: Duration::from_secs_f64(args.warmup), time, rate: args.rate, pids };
        let measured = load.measure(&times, &mut interrupts).await?;
        let finished = finish(settings, measured);
        // Whoever measured for an hour sees the result even if a file cannot be written.
        let written = files.write(&finished);
        match global.format {
            Format::Json => output::json_line(&as_json(&finished.report.brief()))?,
            _ => report::print(&finished.report)?,
        }
        written?;
        Ok(if has_failed(&finished.report, args.no_prefill) { Exit::Failed.into() } else { ExitCode::SUCCESS })
    })
}

/// The result, and what files are made from beside it.
struct Finished {
    report: Report,
    latencies: BTreeMap<Kind, hdrhistogram::Histogram<u64>>,
    all: hdrhistogram::Histogram<u64>,
}

impl Args {
    fn mix(&self) -> Mix {
        self.workload.map_or_else(|| self.op.mix(self.read_ratio), Workload::mix)
    }

    /// The bucket that is meant, and all that the result depends on.
    fn settle(&self, client: &Client) -> Result<(Bucket, Settings)> {
        let topology = session::topology(client);
        let bucket = session::existing_bucket(client, &self.bucket)?;
        let definition = topology.bucket_named(bucket.name()).expect("a bucket that exists is in the topology");
        let quorum = definition.quorum.with(self.quorum.read.r, self.quorum.write.w).map_err(Failure::usage)?;
        let settings = Settings {
            op: self.workload.is_none().then_some(self.op),
            read_ratio: self.mix().reads,
            workload: self.workload,
            distribution: self
                .distribution
                .unwrap_or_else(|| self.workload.map_or(Distribution::Uniform, Workload::distribution)),
            clients: self.clients,
            rate: self.rate,
            warmup_seconds: self.warmup,
            value_bytes: self.value_size,
            keys: self.keys,
            bucket: self.bucket.bucket.clone(),
            n: quorum.n(),
            r: quorum.r(),
            w: quorum.w(),
            sloppy: self.quorum.sloppiness.sloppy().unwrap_or(definition.sloppy),
            durability: super::bucket::durability(definition.durability).to_owned(),
            nodes: topology.ring().members().len(),
        };
        Ok((bucket.with_profile(&self.quorum.profile()), settings))
    }
}

impl FileArgs {
    fn begin(&self) -> Result<Files> {
        let begin = |path: &Option<PathBuf>| path.as_ref().map(|path| NewFile::beside(path, PUBLIC)).transpose();
        Ok(Files { output: begin(&self.output)?, hdr: begin(&self.hdr)?, plot: begin(&self.plot)? })
    }
}

impl Files {
    fn write(self, finished: &Finished) -> Result {
        let Finished { report, latencies, all } = finished;
        let write = |file: Option<NewFile>, text: &dyn Fn() -> String| -> Result {
            let Some(file) = file else { return Ok(()) };
            file.file()
                .write_all(text().as_bytes())
                .map_err(|error| Failure::failed(format_args!("cannot write a result: {error}")))?;
            let path = file.replace()?;
            output::note(format_args!("written: {}", path.display()));
            Ok(())
        };
        write(self.output, &|| format!("{:#}\n", as_json(report)))?;
        write(self.hdr, &|| hdr::percentiles(all))?;
        write(self.plot, &|| plot::svg(report, latencies))
    }
}

/// Fills what is missing, and finds where inserts begin.
async fn prepare(load: &mut Load, args: &Args, mix: Mix) -> Result {
    if !args.no_prefill {
        prefill::prefill(load).await?;
    }
    if mix.inserts() {
        let first = prefill::first_insert(load, args.clients.into()).await?;
        load.insert_from(first);
    }
    Ok(())
}

fn finish(settings: Settings, measured: Measured) -> Finished {
    let Measured { record, elapsed, interrupted, open_loop, server_cpu, client_cpu } = measured;
    let seconds = elapsed.as_secs_f64().max(f64::MIN_POSITIVE);
    let operations = record.operations();
    let per_operation =
        |cpu: Option<Duration>| cpu.filter(|_| operations > 0).map(|cpu| cpu.as_secs_f64() * 1e6 / operations as f64);
    let (all, latencies) = (record.all_latencies(), record.latencies().clone());
    let of = |kind: Kind| latencies.get(&kind).and_then(|histogram| Latencies::of(histogram, seconds));
    let problems = &record.problems;
    let report = Report {
        settings,
        release: env!("CARGO_PKG_VERSION").to_owned(),
        unix_ms: SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_millis() as u64),
        seconds,
        interrupted,
        operations,
        ops_per_second: operations as f64 / seconds,
        errors: Errors {
            refused: problems.refused,
            unknown: problems.unknown,
            failed: problems.failed,
            kinds: problems.kinds.clone(),
            first: problems.first.clone(),
        },
        open_loop,
        server_cpu_us_per_op: per_operation(server_cpu.as_ref().ok().copied()),
        server_cpu_reason: server_cpu.err(),
        client_cpu_us_per_op: per_operation(client_cpu),
        put: of(Kind::Put),
        get: of(Kind::Get),
        insert: of(Kind::Insert),
        read_modify_write: of(Kind::ReadModifyWrite),
        histograms: latencies.iter().map(|(kind, one)| (kind.field().to_owned(), hdr::encoded(one))).collect(),
        time_line: record.into_time_line(elapsed),
    };
    Finished { report, latencies, all }
}

/// Whether requests failed, or none was answered within the measured time. That a key does not exist is none of the cluster's
/// if nothing was to write it.
fn has_failed(report: &Report, no_prefill: bool) -> bool {
    let expected = |kind: &str| kind == NOT_FOUND && no_prefill;
    let kinds = &report.errors.kinds;
    kinds.keys().any(|kind| !expected(kind)) || (report.operations == 0 && kinds.is_empty())
}

fn as_json(report: &Report) -> serde_json::Value {
    serde_json::to_value(report).expect("numbers and words are JSON")
}

fn parse_seconds(text: &str) -> std::result::Result<f64, String> {
    match text.trim_end_matches('s').parse::<f64>() {
        Ok(seconds) if seconds.is_finite() && (0.0..=86_400.0).contains(&seconds) => Ok(seconds),
        _ => Err("expected a number of seconds".to_owned()),
    }
}

fn parse_rate(text: &str) -> std::result::Result<f64, String> {
    text.parse::<f64>()
        .ok()
        .filter(|rate| (0.01..=10_000_000.0).contains(rate))
        .ok_or_else(|| "expected requests a second, from 0.01 to 10000000".to_owned())
}

fn parse_ratio(text: &str) -> std::result::Result<f64, String> {
    text.parse::<f64>()
        .ok()
        .filter(|ratio| (0.0..=1.0).contains(ratio))
        .ok_or_else(|| "expected a number from 0 to 1".to_owned())
}

const PROGRESS_INTERVAL: Duration = Duration::from_secs(2);
