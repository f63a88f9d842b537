//! Criterion benchmarks live beside this file, one subject each.
