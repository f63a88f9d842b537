//! Histograms in the forms that the tools of HdrHistogram read.
//!
//! ```text
//! encoded       base64 of the compressed V2 form, as in interval logs ("HISTFAAAA…"); values are nanoseconds
//! percentiles   text of `outputPercentileDistribution`, one line a percentile, as plotters read it; values are milliseconds
//! ```

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Serializer as _, V2DeflateSerializer};

/// All of it, in one word.
pub(super) fn encoded(histogram: &Histogram<u64>) -> String {
    let mut bytes = Vec::new();
    V2DeflateSerializer::new()
        .serialize(histogram, &mut bytes)
        .expect("counts are below 2^63, and writing to memory does not fail");
    STANDARD.encode(bytes)
}

/// Its percentiles in milliseconds.
pub(super) fn percentiles(histogram: &Histogram<u64>) -> String {
    let ms = |nanos: f64| nanos / 1e6;
    let mut text = format!("{:>12} {:>14} {:>10} {:>14}\n\n", "Value", "Percentile", "TotalCount", "1/(1-Percentile)");
    let mut total = 0;
    for step in histogram.iter_quantiles(TICKS_PER_HALF) {
        total += step.count_since_last_iteration();
        let (value, quantile) = (ms(step.value_iterated_to() as f64), step.quantile_iterated_to());
        let _ = write!(text, "{value:12.6} {quantile:14.12} {total:10}");
        if quantile < 1.0 {
            let _ = write!(text, " {:14.2}", 1.0 / (1.0 - quantile));
        }
        text.push('\n');
    }
    let (mean, deviation, max) = (ms(histogram.mean()), ms(histogram.stdev()), ms(histogram.max() as f64));
    let _ = writeln!(text, "#[Mean    = {mean:12.6}, StdDeviation   = {deviation:12.6}]");
    let _ = writeln!(text, "#[Max     = {max:12.6}, Total count    = {:12}]", histogram.len());
    let sub_buckets = 2 * 10_u64.pow(histogram.sigfig().into());
    let _ = writeln!(
        text,
        "#[Buckets = {:12}, SubBuckets     = {:12}]",
        histogram.buckets(),
        sub_buckets.next_power_of_two()
    );
    text
}

/// As other tools print them.
const TICKS_PER_HALF: u32 = 5;

#[cfg(test)]
mod tests {
    use hdrhistogram::serialization::Deserializer;

    use super::*;

    fn histogram() -> Histogram<u64> {
        let mut histogram = Histogram::new_with_bounds(1, 600_000_000_000, 3).expect("bounds");
        for i in 1..=10_000_u64 {
            histogram.record(i * i * 10).expect("within the bounds");
        }
        histogram
    }

    #[test]
    fn an_encoded_histogram_is_read_back() {
        let histogram = histogram();
        let text = encoded(&histogram);
        assert!(text.starts_with("HISTFAAA"), "as tools know it: {text}");
        let bytes = STANDARD.decode(&text).expect("is base64");
        let read: Histogram<u64> = Deserializer::new().deserialize(&mut bytes.as_slice()).expect("is a histogram");
        assert_eq!(read, histogram);
        let empty = encoded(&Histogram::new_with_bounds(1, 1000, 3).expect("bounds"));
        let bytes = STANDARD.decode(empty).expect("is base64");
        let read: Histogram<u64> = Deserializer::new().deserialize(&mut bytes.as_slice()).expect("is a histogram");
        assert!(read.is_empty());
    }

    #[test]
    fn the_text_form_says_what_the_histogram_does() {
        let histogram = histogram();
        let text = percentiles(&histogram);
        assert!(text.starts_with("       Value     Percentile TotalCount 1/(1-Percentile)\n\n"), "{text}");
        let lines: Vec<Vec<f64>> = text
            .lines()
            .skip(2)
            .filter(|line| !line.starts_with('#'))
            .map(|line| line.split_whitespace().map(|word| word.parse().expect("a number")).collect())
            .collect();
        assert!(lines.len() > 30);
        for line in &lines {
            let (value, quantile, total) = (line[0], line[1], line[2]);
            let exact = histogram.value_at_quantile(quantile) as f64 / 1e6;
            assert!((value - exact).abs() <= exact * 0.002, "{quantile}: {value} for {exact}");
            let below = histogram.count_between(0, (value * 1e6) as u64) as f64;
            assert!((total - below).abs() <= 1.0 + below * 0.01, "{quantile}: {total} for {below}");
        }
        let last = lines.last().expect("there are lines");
        assert_eq!((last[1], last[2], last.len()), (1.0, 10_000.0, 3), "the last has no inverse");
        assert!(
            text.contains("Total count    =        10000]") && text.contains("SubBuckets     =         2048]"),
            "{text}"
        );
        let empty = percentiles(&Histogram::new_with_bounds(1, 1000, 3).expect("bounds"));
        assert!(!empty.contains("NaN") && empty.contains("Total count    =            0]"), "{empty}");
    }
}
