//! Several rounds as one figure: the median, and between what it lies.

use crate::result::{Cell, Op, Report};
use crate::systems::Name;

/// Of the rounds' figures.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) low: f64,
    pub(crate) high: f64,
}

impl Spread {
    /// None of no figures.
    pub(crate) fn of(mut figures: Vec<f64>) -> Option<Spread> {
        figures.sort_by(f64::total_cmp);
        let (low, high) = (*figures.first()?, *figures.last()?);
        let middle = figures.len() / 2;
        let median =
            if figures.len() % 2 == 1 { figures[middle] } else { (figures[middle - 1] + figures[middle]) / 2.0 };
        Some(Spread { median, low, high })
    }
}

/// One figure of a cell, if it has it.
pub(crate) type Figure = fn(&Cell) -> Option<f64>;

pub(crate) const RATE: Figure = |cell| Some(cell.ops_per_second);
pub(crate) const P50: Figure = |cell| Some(cell.latency?.p50_ms);
pub(crate) const P99: Figure = |cell| Some(cell.latency?.p99_ms);
pub(crate) const P99_9: Figure = |cell| Some(cell.latency?.p99_9_ms);
pub(crate) const MAX: Figure = |cell| Some(cell.latency?.max_ms);
pub(crate) const SERVER_CPU: Figure = |cell| cell.server_cpu_us_per_op;
pub(crate) const CLIENT_CPU: Figure = |cell| cell.client_cpu_us_per_op;
pub(crate) const RESIDENT: Figure = |cell| Some(cell.memory.resident_bytes as f64);
pub(crate) const ANONYMOUS: Figure = |cell| Some(cell.memory.anonymous_bytes as f64);

/// The cells of one row: all rounds of a system, an operation and a number of clients.
#[derive(Clone, Copy)]
pub(crate) struct Row {
    pub(crate) system: Name,
    pub(crate) op: Op,
    pub(crate) clients: u32,
}

impl Row {
    pub(crate) fn cells(self, report: &Report) -> impl Iterator<Item = &Cell> {
        report
            .cells
            .iter()
            .filter(move |cell| (cell.system, cell.op, cell.clients) == (self.system, self.op, self.clients))
    }

    pub(crate) fn spread(self, report: &Report, figure: Figure) -> Option<Spread> {
        Spread::of(self.cells(report).filter_map(figure).collect())
    }

    /// Of this row to another: that of each round, in which they ran one after the other.
    pub(crate) fn ratio(self, other: Row, report: &Report, figure: Figure) -> Option<Spread> {
        let of_round = |cell: &Cell| {
            let beside = other.cells(report).find(|beside| beside.round == cell.round)?;
            let ratio = figure(cell)? / figure(beside)?;
            ratio.is_finite().then_some(ratio)
        };
        Spread::of(self.cells(report).filter_map(of_round).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_the_figure_in_the_middle() {
        let spread = |median, low, high| Some(Spread { median, low, high });
        assert_eq!(Spread::of(vec![]), None);
        assert_eq!(Spread::of(vec![4.0]), spread(4.0, 4.0, 4.0));
        assert_eq!(Spread::of(vec![9.0, 1.0, 4.0]), spread(4.0, 1.0, 9.0));
        assert_eq!(Spread::of(vec![9.0, 1.0, 4.0, 6.0]), spread(5.0, 1.0, 9.0));
    }
}
