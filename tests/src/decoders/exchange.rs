//! The two machines of an exchange, given whatever a peer may say.

use driftless_antientropy::{Initiator, InitiatorOutput, Micros, Reply, Request, Responder, ResponderOutput, Settings};

use super::laws;
use super::samples::{self, SIDE_KEYS, Side};

/// Messages to one side of an exchange, each after two bytes of length; the first byte says to which side.
pub fn exchange(bytes: &[u8]) {
    let [side, rest @ ..] = bytes else { return };
    let bodies = split(rest);
    match side % 2 {
        0 => to_initiator(&bodies),
        _ => to_responder(&bodies),
    }
}

/// A stream of such messages.
pub(super) fn joined(side: u8, bodies: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = vec![side];
    for body in bodies {
        bytes.extend((body.len() as u16).to_le_bytes());
        bytes.extend(body);
    }
    bytes
}

fn split(mut rest: &[u8]) -> Vec<&[u8]> {
    let mut bodies = Vec::new();
    while let Some((length, after)) = rest.split_first_chunk::<2>()
        && bodies.len() < MESSAGES_MAX
    {
        let length = usize::from(u16::from_le_bytes(*length)).min(after.len());
        let (body, after) = after.split_at(length);
        bodies.push(body);
        rest = after;
    }
    bodies
}

fn to_initiator(bodies: &[&[u8]]) {
    let side = side();
    let mut initiator = samples::initiator(side);
    let mut now = Micros(0);
    let mut ended = drain_initiator(&mut initiator, now, side);
    for body in bodies {
        if let Some(reply) = laws::arrives::<Reply>(body) {
            initiator.handle_reply(now, side.local(), reply);
        } else if let Some(at) = initiator.poll_timeout() {
            now = now.max(at);
            initiator.handle_timeout(now, side.local());
        }
        ended += drain_initiator(&mut initiator, now, side);
    }
    // Left alone it gives up.
    for _ in 0..ROUNDS_MAX {
        let Some(at) = initiator.poll_timeout() else { break };
        now = now.max(at);
        initiator.handle_timeout(now, side.local());
        ended += drain_initiator(&mut initiator, now, side);
    }
    assert_eq!((ended, initiator.poll_timeout()), (1, None), "an exchange ends, once");
}

fn drain_initiator(initiator: &mut Initiator, now: Micros, side: &Side) -> usize {
    let mut ended = 0;
    for _ in 0..ROUNDS_MAX {
        match initiator.poll_output() {
            Some(InitiatorOutput::Send(request)) => {
                assert_eq!(laws::arrives::<Request>(&laws::encoded(&request)), Some(request));
            }
            Some(InitiatorOutput::Repair(differences)) => {
                assert!(!differences.is_empty() && differences.is_sorted_by(|a, b| a.token < b.token));
                initiator.resume(now, side.local());
            }
            Some(InitiatorOutput::Ended(_)) => ended += 1,
            None => return ended,
        }
    }
    panic!("it never waits for anything");
}

fn to_responder(bodies: &[&[u8]]) {
    let side = side();
    let mut responder: Option<Responder> = None;
    let (mut now, settings) = (Micros(0), Settings::default());
    for body in bodies {
        match (&mut responder, laws::arrives::<Request>(body)) {
            (None, Some(request)) => match Responder::start(now, settings, side.local(), request) {
                Ok(started) => responder = Some(started),
                Err(reply) => drop(laws::encoded(&reply)),
            },
            (Some(responder), Some(request)) => responder.handle_request(now, side.local(), request),
            (Some(responder), None) => {
                if let Some(at) = responder.poll_timeout() {
                    now = now.max(at);
                    responder.handle_timeout(now);
                }
            }
            (None, None) => {}
        }
        drain_responder(&mut responder, now);
    }
    for _ in 0..ROUNDS_MAX {
        let Some(at) = responder.as_ref().and_then(Responder::poll_timeout) else { break };
        now = now.max(at);
        responder.iter_mut().for_each(|responder| responder.handle_timeout(now));
        drain_responder(&mut responder, now);
    }
    assert!(responder.is_none(), "left alone it ends");
}

fn drain_responder(responder: &mut Option<Responder>, now: Micros) {
    while let Some(machine) = responder {
        match machine.poll_output() {
            Some(ResponderOutput::Send(reply)) => {
                assert!(reply.encoded_len() <= driftless_proto::frame::FRAME_SHARED_MAX);
                assert_eq!(laws::arrives::<Reply>(&laws::encoded(&reply)), Some(reply));
            }
            Some(ResponderOutput::Repair(tokens)) => {
                assert!(tokens.is_sorted());
                machine.resume(now);
            }
            Some(ResponderOutput::Ended) => *responder = None,
            None => break,
        }
    }
}

/// The side that listens.
fn side() -> &'static Side {
    static SIDE: std::sync::LazyLock<Side> = std::sync::LazyLock::new(|| Side::new(SIDE_KEYS, 0));
    &SIDE
}

const MESSAGES_MAX: usize = 32;

const ROUNDS_MAX: usize = 200;
