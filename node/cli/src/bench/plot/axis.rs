//! From numbers to places, and which numbers are written beside the axis.

use crate::output::grouped;

/// An axis of a panel.
pub(super) struct Axis {
    pub(super) scale: Scale,
    pub(super) from: f64,
    pub(super) to: f64,
    /// Numbers that get a line and a label.
    pub(super) ticks: Vec<f64>,
    /// The places of `from` and `to`.
    pub(super) range: (f64, f64),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Scale {
    Linear,
    Log,
}

impl Axis {
    /// Up to a round number that is not below `to`.
    pub(super) fn linear(from: f64, to: f64, range: (f64, f64)) -> Axis {
        let to = if to > from { to } else { from + 1.0 };
        let step = round_step((to - from) / 8.0);
        let last = (to / step - 1e-9).ceil();
        let ticks: Vec<f64> = (0..=last as u32).map(|i| f64::from(i) * step).filter(|&tick| tick >= from).collect();
        Axis { scale: Scale::Linear, from, to: last * step, ticks, range }
    }

    /// Seconds from 0 to exactly `to`, which is more.
    pub(super) fn seconds(to: f64, range: (f64, f64)) -> Axis {
        // A second is one point: there is nothing between two of them.
        let step = round_step(to / 8.0).max(if to >= 2.0 { 1.0 } else { 0.0 });
        let last = (to / step + 0.05).floor();
        Axis {
            scale: Scale::Linear,
            from: 0.0,
            to,
            ticks: (0..=last as u32).map(|i| f64::from(i) * step).collect(),
            range,
        }
    }

    /// From a round number to another. Anything if there is nothing between 0 and `high`.
    pub(super) fn log(low: f64, high: f64, range: (f64, f64)) -> Axis {
        let (low, high) = if low > 0.0 && low <= high && high.is_finite() { (low, high) } else { (0.1, 10.0) };
        // Few decades have lines at 1, 2 and 5, many at 1 alone.
        let marks: &[f64] = if (high / low).log10() > 2.5 { &[1.0] } else { &[1.0, 2.0, 5.0] };
        let (first, last) = (low.log10().floor() as i32 - 1, high.log10().ceil() as i32 + 1);
        let all: Vec<f64> =
            (first..=last).flat_map(|decade| marks.iter().map(move |mark| mark * 10_f64.powi(decade))).collect();
        let from = all.iter().copied().filter(|&mark| mark <= low * 1.000_001).fold(f64::MIN_POSITIVE, f64::max);
        let to = all.iter().copied().filter(|&mark| mark >= high && mark > from).fold(f64::INFINITY, f64::min);
        let ticks = all.into_iter().filter(|tick| (from..=to).contains(tick)).collect();
        Axis { scale: Scale::Log, from, to, ticks, range }
    }

    /// The place of a number, within the range.
    pub(super) fn at(&self, value: f64) -> f64 {
        let part = match self.scale {
            Scale::Linear => (value - self.from) / (self.to - self.from),
            Scale::Log => (value.max(self.from) / self.from).ln() / (self.to / self.from).ln(),
        };
        let (start, end) = self.range;
        start + (end - start) * part.clamp(0.0, 1.0)
    }
}

/// 1, 2 or 5 with zeros, not below this.
fn round_step(least: f64) -> f64 {
    let decade = 10_f64.powf(least.log10().floor());
    let mark = [1.0, 2.0, 5.0].into_iter().find(|mark| mark * decade >= least * 0.999_999);
    decade * mark.unwrap_or(10.0)
}

/// A number in as few digits as tell it from its neighbours.
pub(super) fn short(number: f64) -> String {
    if number >= 1000.0 {
        return grouped(number.round() as u64);
    }
    let text = format!("{number:.6}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn linear_axes_have_round_numbers_and_room_for_the_highest() {
        let axis = Axis::linear(0.0, 23_456.0, (100.0, 0.0));
        assert_eq!((axis.ticks.as_slice(), axis.to), ([0.0, 5e3, 1e4, 1.5e4, 2e4, 2.5e4].as_slice(), 25_000.0));
        assert_eq!((axis.at(0.0), axis.at(12_500.0), axis.at(99_999.0)), (100.0, 50.0, 0.0));
        assert_eq!(Axis::linear(0.0, 0.0, (0.0, 1.0)).to, 1.0);
        let time = Axis::seconds(60.02, (0.0, 60.02));
        assert_eq!((time.ticks.len(), time.ticks[6], time.at(30.0)), (7, 60.0, 30.0));
        let labels = |to: f64| Axis::seconds(to, (0.0, 1.0)).ticks.iter().map(|&tick| short(tick)).collect::<Vec<_>>();
        assert_eq!(labels(3.001), ["0", "1", "2", "3"]);
        assert_eq!(labels(0.5), ["0", "0.1", "0.2", "0.3", "0.4", "0.5"]);
    }

    #[test]
    fn logarithmic_axes_begin_and_end_at_round_numbers() {
        let axis = Axis::log(0.3, 45.0, (100.0, 0.0));
        assert_eq!(
            axis.ticks.iter().map(|&tick| short(tick)).collect::<Vec<_>>(),
            ["0.2", "0.5", "1", "2", "5", "10", "20", "50"]
        );
        let wide = Axis::log(0.03, 4500.0, (100.0, 0.0));
        assert_eq!(
            wide.ticks.iter().map(|&tick| short(tick)).collect::<Vec<_>>(),
            ["0.01", "0.1", "1", "10", "100", "1,000", "10,000"]
        );
        assert!((wide.at(10.0) - 50.0).abs() < 1e-9, "in the middle");
        let flat = Axis::log(1.0, 1.0, (100.0, 0.0));
        assert_eq!((flat.from, flat.to), (1.0, 2.0));
        let nothing = Axis::log(f64::INFINITY, 0.0, (100.0, 0.0));
        assert!(nothing.from > 0.0 && nothing.to.is_finite() && nothing.at(0.0) == 100.0);
    }
}
