//! The name under which what one request does at several nodes is found again: a trace context of the W3C, level 1
//! (<https://www.w3.org/TR/trace-context/>).
//!
//! ```text
//! 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01
//! │  └ trace: the whole road          └ span: a part    └ sampled: somebody records it
//! └ version                             of it
//! ```
//! Whoever passes a request on gives the trace as it is, and names its own part of the road as the span.

#[cfg(feature = "otel")]
pub mod otel;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A place in a trace. Machines carry it and read nothing of it. An id of zeros is none: what comes from the wire with one belongs to no trace.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct TraceContext {
    /// The trace.
    pub trace_id: [u8; 16],
    /// The span that this is a part of.
    pub parent_id: [u8; 8],
    /// Whether whoever began the trace keeps it.
    pub sampled: bool,
}

impl TraceContext {
    /// Draws a new trace, which is to be kept.
    ///
    /// ```
    /// # use driftless_proto::TraceContext;
    /// assert_ne!(TraceContext::random().trace_id, TraceContext::random().trace_id);
    /// ```
    #[cfg(feature = "random")]
    pub fn random() -> TraceContext {
        let (trace, span) = (rand::random::<u128>().max(1), rand::random::<u64>().max(1));
        TraceContext { trace_id: trace.to_be_bytes(), parent_id: span.to_be_bytes(), sampled: true }
    }

    /// The same trace, for what this span of it causes.
    #[must_use = "this gives another context and leaves this one as it is"]
    pub fn below(self, span: u64) -> TraceContext {
        TraceContext { parent_id: span.to_be_bytes(), ..self }
    }

    /// The span that this is a part of, as a number.
    pub fn parent(self) -> u64 {
        u64::from_be_bytes(self.parent_id)
    }

    /// Whether it is a place in a trace.
    pub fn is_valid(self) -> bool {
        self.trace_id != [0; 16] && self.parent_id != [0; 8]
    }

    /// Whether anybody records what belongs to it.
    pub fn is_kept(self) -> bool {
        self.sampled && self.is_valid()
    }

    /// The trace as text: 32 hexadecimal digits.
    pub fn trace_text(self) -> String {
        format!("{:032x}", u128::from_be_bytes(self.trace_id))
    }

    /// The span as text: 16 hexadecimal digits.
    pub fn parent_text(self) -> String {
        format!("{:016x}", self.parent())
    }
}

/// Text that is no `traceparent`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "a trace context is 00-TRACE-SPAN-FLAGS with 32, 16 and 2 hexadecimal digits in lower case and no id of zeros, as the W3C's \
     `traceparent` has it"
)]
pub struct MalformedTraceContext;

/// As the header `traceparent` has it.
impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let trace = u128::from_be_bytes(self.trace_id);
        write!(f, "00-{trace:032x}-{:016x}-{:02x}", self.parent(), u8::from(self.sampled))
    }
}

impl FromStr for TraceContext {
    type Err = MalformedTraceContext;

    /// A later version may have more behind the flags, and is read as far as it is known.
    fn from_str(text: &str) -> Result<TraceContext, MalformedTraceContext> {
        let mut parts = text.splitn(5, '-');
        let mut digits = |count: usize| {
            let is_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
            parts.next().filter(|part| part.len() == count && part.bytes().all(is_hex)).ok_or(MalformedTraceContext)
        };
        let (version, trace, span, flags) = (digits(2)?, digits(32)?, digits(16)?, digits(2)?);
        let has_more = parts.next().is_some();
        if version == "ff" || (version == "00" && has_more) {
            return Err(MalformedTraceContext);
        }
        let trace_id = u128::from_str_radix(trace, 16).map_err(|_| MalformedTraceContext)?;
        let span_id = u64::from_str_radix(span, 16).map_err(|_| MalformedTraceContext)?;
        let flags = u8::from_str_radix(flags, 16).map_err(|_| MalformedTraceContext)?;
        let context = TraceContext {
            trace_id: trace_id.to_be_bytes(),
            parent_id: span_id.to_be_bytes(),
            sampled: flags & SAMPLED != 0,
        };
        if context.is_valid() { Ok(context) } else { Err(MalformedTraceContext) }
    }
}

const SAMPLED: u8 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_context_is_the_same_after_it_was_text_and_after_it_was_bytes() {
        let context: TraceContext = EXAMPLE.parse().expect("is one");
        assert_eq!(context.to_string(), EXAMPLE);
        assert_eq!(context.trace_text(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!((context.parent_text(), context.sampled), ("00f067aa0ba902b7".to_owned(), true));
        let bytes = postcard::to_allocvec(&context).expect("can be written");
        assert_eq!(bytes.len(), 25);
        assert_eq!(postcard::from_bytes(&bytes), Ok(context));
        assert_eq!(context.below(7).to_string(), "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000007-01");
        assert!(context.is_valid() && !context.below(0).is_valid());
    }

    #[test]
    fn flags_of_later_versions_are_read_as_far_as_they_are_known() {
        let later: TraceContext = format!("01{}-what-comes", EXAMPLE.strip_prefix("00").expect("is 00"))
            .replace("-01-", "-fe-")
            .parse()
            .expect("is read");
        assert!(!later.sampled);
    }

    #[test]
    fn other_text_and_ids_of_zeros_are_no_context() {
        for text in [
            "",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-+bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ] {
            assert_eq!(text.parse::<TraceContext>(), Err(MalformedTraceContext), "{text}");
        }
    }
}
