//! Why there is no connection to a peer, in words, with what to do about it.

use std::net::SocketAddr;

use quinn::{ApplicationClose, ConnectionError, TransportErrorCode};

use super::refusal::{CloseCode, CloseReason};
use crate::conditions::{NO_ANSWER, Problem, TWO_HISTORIES};

/// This node turned the other away.
pub(super) fn of_refusal(reason: &CloseReason) -> Problem {
    Problem {
        text: format!("this node turns it away: {}", reason.text),
        remedy: remedy(reason.code as u64),
        is_there: true,
    }
}

/// An address that cannot be called.
pub(super) fn of_address(text: String) -> Problem {
    Problem {
        text,
        remedy: "check the address of that member in the cluster file, and the names that this machine knows",
        is_there: false,
    }
}

/// Nobody has answered.
pub(super) fn of_silence(address: SocketAddr) -> Problem {
    no_answer(format!("nothing answers at {address}"))
}

/// A connection did not come about, or ended before both sides had said who they are.
pub(super) fn of_error(address: SocketAddr, error: &ConnectionError) -> Problem {
    let certificates = |text: String| Problem { text, remedy: CERTIFICATES, is_there: true };
    match error {
        // Nobody has said this: the other side has dropped the connection, for another one or to start again.
        ConnectionError::ApplicationClosed(close) if close.error_code.into_inner() == 0 && close.reason.is_empty() => {
            no_answer(format!("{address} went away"))
        }
        ConnectionError::ApplicationClosed(close) => of_close(close),
        ConnectionError::TransportError(error) if alert(error.code).is_some() => {
            certificates(format!("its certificate does not count here: {}", error.reason))
        }
        ConnectionError::ConnectionClosed(close) => match alert(close.error_code) {
            Some(NO_PROTOCOL) => Problem { text: NO_PROTOCOL.to_owned(), remedy: RELEASES, is_there: true },
            Some(said) => certificates(format!("it does not let this node's certificate count: {said}")),
            // That of an application which ended the handshake (RFC 9000, section 10.2.3).
            None if close.error_code == TransportErrorCode::CONNECTION_REFUSED => {
                Problem { is_there: true, ..no_answer(format!("{address} takes no new connections now")) }
            }
            None => no_answer(error.to_string()),
        },
        ConnectionError::TimedOut | ConnectionError::Reset => of_silence(address),
        other => no_answer(other.to_string()),
    }
}

fn of_close(close: &ApplicationClose) -> Problem {
    let (said, code) = (String::from_utf8_lossy(&close.reason), close.error_code.into_inner());
    let text = format!("it turns this node away: {said}");
    Problem { text, remedy: remedy(code), is_there: code != CloseCode::Stopping as u64 }
}

fn no_answer(text: String) -> Problem {
    Problem { text, remedy: NO_ANSWER, is_there: false }
}

/// What a TLS alert says (RFC 8446, section 6.2).
fn alert(code: TransportErrorCode) -> Option<&'static str> {
    let number = u64::from(code).checked_sub(CRYPTO_ERRORS_FROM).filter(|number| *number <= u64::from(u8::MAX))?;
    Some(match number {
        42 => "it is not valid",
        44 => "it was revoked",
        45 => "it has expired, or is not valid yet",
        48 => "it was not issued by an authority that is trusted there",
        116 => "none was shown",
        70 | 120 => NO_PROTOCOL,
        _ => "the handshake failed",
    })
}

fn remedy(code: u64) -> &'static str {
    const IDENTITY: u64 = CloseCode::Identity as u64;
    const REVOKED: u64 = CloseCode::Revoked as u64;
    const EXPIRED: u64 = CloseCode::Expired as u64;
    const VERSION: u64 = CloseCode::ProtocolVersion as u64;
    const HELLO: u64 = CloseCode::Hello as u64;
    const INCARNATION: u64 = CloseCode::Incarnation as u64;
    const STOPPING: u64 = CloseCode::Stopping as u64;
    const LOST: u64 = CloseCode::Lost as u64;
    const APART: u64 = CloseCode::Apart as u64;
    match code {
        IDENTITY | EXPIRED => CERTIFICATES,
        REVOKED => {
            "take it off the deny list (`access.toml`, or `driftless access show`), or give that node another certificate"
        }
        VERSION => RELEASES,
        HELLO => "give all nodes the same cluster file, and start those again whose file was another",
        INCARNATION => "run that node once, on the newest of its data directories",
        LOST => "start that node with an empty directory, and have it join anew",
        APART => TWO_HISTORIES,
        STOPPING => "start that node again when it is wanted",
        _ => "see the logs of both nodes",
    }
}

/// Where the codes of TLS alerts begin (RFC 9001, section 4.8).
const CRYPTO_ERRORS_FROM: u64 = 0x100;

const NO_PROTOCOL: &str = "both sides share no protocol";

const RELEASES: &str = "update the older of the two";

const CERTIFICATES: &str =
    "compare the certificates and authorities of both nodes (`driftless cert show`), and their clocks";

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use quinn::{ConnectionClose, VarInt};

    use super::*;

    fn address() -> SocketAddr {
        "127.0.0.1:7400".parse().expect("an address")
    }

    #[test]
    fn an_expired_certificate_is_called_so_and_not_a_fault_of_the_network() {
        let close =
            ConnectionClose { error_code: TransportErrorCode::crypto(45), frame_type: None, reason: Bytes::new() };
        let problem = of_error(address(), &ConnectionError::ConnectionClosed(close));
        assert!(problem.text.ends_with("it has expired, or is not valid yet"), "{problem:?}");
        assert_eq!(problem.remedy, CERTIFICATES);
    }

    #[test]
    fn what_the_other_side_said_is_passed_on_with_what_to_do() {
        let close = |code: CloseCode, text: &'static str| ApplicationClose {
            error_code: VarInt::from_u32(code as u32),
            reason: Bytes::from_static(text.as_bytes()),
        };
        let problem =
            of_error(address(), &ConnectionError::ApplicationClosed(close(CloseCode::Hello, "another topology")));
        assert_eq!(problem.text, "it turns this node away: another topology");
        assert!(problem.remedy.contains("cluster file"));
        let problem =
            of_error(address(), &ConnectionError::ApplicationClosed(close(CloseCode::Incarnation, "an older copy")));
        assert!(problem.remedy.contains("newest of its data directories"));
        let problem =
            of_error(address(), &ConnectionError::ApplicationClosed(close(CloseCode::Apart, "it is at version 8")));
        assert!(problem.remedy.contains("before anything is wiped"));
    }

    #[test]
    fn who_has_turned_this_node_away_is_there_and_who_stops_or_says_nothing_is_not() {
        let closed = |code: CloseCode| {
            let error_code = VarInt::from_u32(code as u32);
            let close = ApplicationClose { error_code, reason: Bytes::from_static(b"why") };
            of_error(address(), &ConnectionError::ApplicationClosed(close)).is_there
        };
        assert!(closed(CloseCode::Lost) && closed(CloseCode::Incarnation) && !closed(CloseCode::Stopping));
        assert!(of_refusal(&CloseReason::new(CloseCode::Expired, "its certificate")).is_there);
        assert!(!of_silence(address()).is_there && !of_address("no such name".to_owned()).is_there);
    }

    #[test]
    fn silence_is_silence() {
        assert_eq!(of_error(address(), &ConnectionError::TimedOut), of_silence(address()));
    }
}
