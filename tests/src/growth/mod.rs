//! How cost grows with keys, values, clients, nodes and siblings: real processes, `driftless bench`, one figure changed at a time.

mod chart;
mod measure;
mod start;

use std::io;

use serde::Serialize;

pub use chart::chart;
pub use measure::{Axis, Plan, measure};
pub use start::{Started, starts};

/// One measurement.
#[derive(Clone, Debug, Serialize)]
pub struct Cell {
    /// What was changed.
    pub axis: Axis,
    /// To what.
    pub at: u64,
    /// `put` or `get`.
    pub op: &'static str,
    /// Operations a second.
    pub per_second: f64,
    /// Percentiles of the latency in milliseconds.
    pub p50_ms: f64,
    /// See [`Cell::p50_ms`].
    pub p99_ms: f64,
    /// See [`Cell::p50_ms`].
    pub p99_9_ms: f64,
    /// Processor time of all nodes for an operation, in microseconds.
    pub server_cpu_us: Option<f64>,
    /// Memory of the largest node's process, in MiB.
    pub resident_mib: u64,
    /// Errors that reached the application.
    pub errors: u64,
}

/// A table in Markdown: the cells of an axis.
pub fn table(axis: Axis, cells: &[Cell]) -> String {
    let mut lines = vec![
        format!(
            "| {} | | per second | p50 ms | p99 ms | p99.9 ms | server CPU µs | largest node MiB | errors |",
            axis.title()
        ),
        "|---|---|---|---|---|---|---|---|---|".to_owned(),
    ];
    for cell in cells.iter().filter(|cell| cell.axis == axis) {
        let Cell { at, op, per_second, p50_ms, p99_ms, p99_9_ms, resident_mib, errors, .. } = cell;
        let cpu = cell.server_cpu_us.map_or("–".to_owned(), |cpu| format!("{cpu:.0}"));
        lines.push(format!(
            "| {} | {op} | {per_second:.0} | {p50_ms:.2} | {p99_ms:.1} | {p99_9_ms:.1} | {cpu} | {resident_mib} | {errors} |",
            axis.shown(*at)
        ));
    }
    lines.join("\n")
}

/// Everything as JSON, for another day's comparison.
///
/// # Errors
/// The file cannot be written.
pub fn keep(path: &std::path::Path, cells: &[Cell], starts: &[Started]) -> io::Result<()> {
    #[derive(Serialize)]
    struct Kept<'a> {
        cells: &'a [Cell],
        starts: &'a [Started],
    }
    std::fs::write(path, serde_json::to_vec_pretty(&Kept { cells, starts })?)
}
