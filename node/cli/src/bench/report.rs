//! What a benchmark prints.

use std::time::Duration;

use driftless_client::Topology;
use hdrhistogram::Histogram;
use serde_json::{Value, json};

use super::tally::NOT_FOUND;
use super::{Args, Measured, Operation};
use crate::exit::Result;
use crate::output::{self, grouped, size};

/// What was asked for, and what it came to.
pub(super) struct Report<'a> {
    pub(super) args: &'a Args,
    pub(super) topology: &'a Topology,
    pub(super) quorum: driftless_proto::Quorum,
    pub(super) durability: &'static str,
    pub(super) sloppy: bool,
    pub(super) measured: Measured,
}

impl Report<'_> {
    /// Whether requests failed, or none was answered within the measured time. That a key does not exist is none of the cluster's if nothing was to write it.
    pub(super) fn has_failed(&self) -> bool {
        let expected = |kind: &str| kind == NOT_FOUND && self.args.no_prefill;
        let tally = &self.measured.tally;
        tally.kinds.keys().any(|kind| !expected(kind)) || (tally.operations() == 0 && tally.kinds.is_empty())
    }

    /// For people.
    pub(super) fn print(&self) -> Result {
        let Report { args, quorum, measured, .. } = self;
        let tally = &measured.tally;
        let what = match args.op {
            Operation::Put => "put".to_owned(),
            Operation::Get => "get".to_owned(),
            Operation::Mixed => format!("mixed ({:.0} % gets)", args.read_ratio * 100.0),
        };
        output::line(format_args!(
            "{what}: {} clients, {:.1} s after {:.1} s of warm-up, {} keys, values of {}",
            grouped(args.clients.into()),
            measured.elapsed.as_secs_f64(),
            args.warmup,
            grouped(args.keys.into()),
            size(args.value_size),
        ))?;
        output::line(format_args!(
            "bucket {}: n = {}, r = {}, w = {}, {}, durability = {}; {} nodes",
            args.bucket.bucket,
            quorum.n(),
            quorum.r(),
            quorum.w(),
            if self.sloppy { "sloppy" } else { "strict" },
            self.durability,
            self.topology.ring().members().len(),
        ))?;
        let mut rows = Vec::new();
        for (name, histogram) in [("put", &tally.put), ("get", &tally.get)] {
            if !histogram.is_empty() {
                let ms = |nanos: u64| format!("{:.3}", nanos as f64 / 1e6);
                rows.push(vec![
                    name.to_owned(),
                    grouped((histogram.len() as f64 / measured.elapsed.as_secs_f64()) as u64),
                    ms(histogram.value_at_quantile(0.5)),
                    ms(histogram.value_at_quantile(0.99)),
                    ms(histogram.value_at_quantile(0.999)),
                    ms(histogram.max()),
                ]);
            }
        }
        output::line("")?;
        output::line(output::table(&["", "ops/s", "p50 ms", "p99 ms", "p99.9 ms", "max ms"], rows))?;
        output::line("")?;
        if tally.kinds.is_empty() && tally.operations() == 0 {
            output::line(
                "no request was answered within the measured time; measure for longer than --timeout to see why",
            )?;
        } else if tally.kinds.is_empty() {
            output::line("errors: none")?;
        } else {
            output::line(format_args!(
                "errors: {} refused, {} unknown, {} otherwise",
                grouped(tally.refused),
                grouped(tally.unknown),
                grouped(tally.failed),
            ))?;
            for (kind, count) in &tally.kinds {
                let text = tally.texts.get(kind).map_or("", String::as_str);
                output::line(format_args!("  {} {kind}, the first: {text}", grouped(*count)))?;
            }
        }
        match (&measured.server_cpu, self.per_operation(measured.server_cpu.as_ref().ok())) {
            (Err(reason), _) => output::line(format_args!("server CPU: not measured: {reason}"))?,
            (Ok(_), Some(micros)) => {
                output::line(format_args!("server CPU: {micros:.1} µs per operation, all nodes together"))?;
            }
            (Ok(_), None) => {}
        }
        if let Some(micros) = self.per_operation(measured.client_cpu.as_ref()) {
            output::line(format_args!("client CPU: {micros:.1} µs per operation"))?;
        }
        Ok(())
    }

    /// For programs.
    pub(super) fn as_json(&self) -> Value {
        let Report { args, quorum, measured, .. } = self;
        let tally = &measured.tally;
        let seconds = measured.elapsed.as_secs_f64();
        let operation = |histogram: &Histogram<u64>| {
            let ms = |nanos: u64| nanos as f64 / 1e6;
            json!({
                "operations": histogram.len(),
                "ops_per_second": histogram.len() as f64 / seconds,
                "mean_ms": histogram.mean() / 1e6,
                "p50_ms": ms(histogram.value_at_quantile(0.5)),
                "p99_ms": ms(histogram.value_at_quantile(0.99)),
                "p99_9_ms": ms(histogram.value_at_quantile(0.999)),
                "max_ms": ms(histogram.max()),
            })
        };
        let mut json = json!({
            "op": match args.op { Operation::Put => "put", Operation::Get => "get", Operation::Mixed => "mixed" },
            "clients": args.clients,
            "seconds": seconds,
            "value_bytes": args.value_size,
            "keys": args.keys,
            "bucket": args.bucket.bucket,
            "n": quorum.n(),
            "r": quorum.r(),
            "w": quorum.w(),
            "sloppy": self.sloppy,
            "durability": self.durability,
            "nodes": self.topology.ring().members().len(),
            "operations": tally.operations(),
            "ops_per_second": tally.operations() as f64 / seconds,
            "errors": { "refused": tally.refused, "unknown": tally.unknown, "failed": tally.failed, "kinds": tally.kinds },
            "server_cpu_us_per_op": self.per_operation(measured.server_cpu.as_ref().ok()),
            "client_cpu_us_per_op": self.per_operation(measured.client_cpu.as_ref()),
        });
        if let Err(reason) = &measured.server_cpu {
            json["server_cpu_reason"] = reason.as_str().into();
        }
        for (name, histogram) in [("put", &tally.put), ("get", &tally.get)] {
            if !histogram.is_empty() {
                json[name] = operation(histogram);
            }
        }
        json
    }

    fn per_operation(&self, cpu: Option<&Duration>) -> Option<f64> {
        let operations = self.measured.tally.operations();
        cpu.filter(|_| operations > 0).map(|cpu| cpu.as_secs_f64() * 1e6 / operations as f64)
    }
}
