//! `driftless status --watch`: the whole cluster on a terminal, for as long as somebody looks.
//!
//! ```text
//! asking ─ figures of each node ─▶ machine ─▶ panel: rows ─▶ draw ─▶ terminal
//!                                    ▲ load: rates   news: events   tasks: what is under way
//!   keys ────────────────────────────┘
//! ```
//! The machine takes answers and keys and has no I/O, and drawing is a function of it; the loop here only carries from one to the other.
//! Nodes are asked by a client like any other, once in an interval, and not at all while it is paused or nobody looks.

mod asking;
mod content;
mod draw;
mod load;
mod look;
mod machine;
mod news;
mod panel;
mod tasks;
mod terminal;
#[cfg(test)]
mod tests;
mod words;

use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime};

use crossterm::event::{Event, EventStream};
use driftless_client::{Client, NoRetry, Profile};
use driftless_proto::Topology;
use futures::StreamExt;
use serde_json::{Value, json};
use tokio::time::{MissedTickBehavior, interval, timeout};

use self::asking::Asking;
use self::look::Look;
use self::machine::{End, Watch};
use self::terminal::Screen;
use super::{Node, all_as_json, ask, change, topology_on_disk};
use crate::exit::{Exit, Failure, Result};
use crate::global::GlobalArgs;
use crate::interrupt::Interrupts;
use crate::members::ANSWER_MAX;
use crate::output::{self, Format};
use crate::session::{self, Found};

/// Until whoever looks has seen enough.
pub(super) fn run(global: &GlobalArgs, every: Duration) -> Result<ExitCode> {
    let access = global.cluster.access()?;
    // What cannot be drawn on is said before anybody is asked.
    let streams = global.format == Format::Json;
    if !streams {
        terminal::check()?;
    }
    let mut profile = Profile::new().retry(NoRetry);
    if let Some(timeout) = global.cluster.timeout {
        profile = profile.timeout(timeout);
    }
    session::runtime()?.block_on(async {
        let Found { client, nobody } = session::find(&access, profile).await?;
        let on_disk = nobody.as_ref().and_then(|_| topology_on_disk(&access));
        let ended = match streams {
            true => stream(&client, every, on_disk, nobody).await,
            false => view(&client, every, on_disk, nobody).await,
        };
        session::say_goodbye(client).await;
        ended.map(|()| ExitCode::SUCCESS)
    })
}

/// The view.
async fn view(client: &Client, every: Duration, on_disk: Option<Topology>, nobody: Option<Failure>) -> Result {
    let began = Instant::now();
    let mut interrupts = Interrupts::listen()?;
    let mut watch = Watch::new(SystemTime::now(), every);
    let mut asking = Asking::new(client.clone());
    match on_disk {
        Some(topology) => asking::tell_of_file(topology, &mut watch),
        None => nobody.into_iter().for_each(|failure| watch.handle_lost(failure.message().to_owned())),
    }
    asking.tell_members(&mut watch);
    let look = Look { has_colours: output::wants_colours() };
    let mut screen = Screen::open()?;
    let mut keys = EventStream::new();
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // Answers of many nodes come one by one, and are drawn together.
    let mut frames = interval(FRAME);
    frames.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut is_stale = true;
    loop {
        tokio::select! {
            () = interrupts.next() => watch.handle_interrupt(),
            () = screen.accident.happens() => {
                return Err(Failure::failed("the view has ended by a mistake in this program, which is told above"));
            }
            event = keys.next() => {
                match event {
                    Some(Ok(Event::Key(key))) => watch.handle_key(began.elapsed(), key),
                    Some(Ok(_)) => {}
                    Some(Err(error)) => return Err(terminal::failure(&error)),
                    None => watch.handle_interrupt(),
                }
                is_stale = true;
                frames.reset_immediately();
            }
            _ = ticks.tick() => {
                watch.handle_timeout(began.elapsed());
                if watch.asks() {
                    asking.ask_all(&watch);
                }
                is_stale = true;
            }
            () = asking.next(&mut watch) => is_stale = true,
            _ = frames.tick(), if is_stale => {
                let mut room = None;
                let drawn = screen.terminal.draw(|frame| room = Some(draw::draw(frame, &watch, began.elapsed(), look)));
                drawn.map_err(|error| terminal::failure(&error))?;
                room.into_iter().for_each(|room| watch.handle_drawn(room));
                is_stale = false;
            }
        }
        match watch.end() {
            None => {}
            Some(End::Wanted) => return Ok(()),
            Some(End::Denied(why)) => return Err(Failure::new(Exit::Refused, why)),
        }
    }
}

/// For programs: what `status` prints, a line each time. It ends when nobody reads it any more, or by a signal.
async fn stream(client: &Client, every: Duration, on_disk: Option<Topology>, nobody: Option<Failure>) -> Result {
    let mut interrupts = Interrupts::listen()?;
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let nobody = nobody.as_ref().map_or("", Failure::message);
    let lines = async {
        loop {
            ticks.tick().await;
            output::json_line(&sight(client, on_disk.as_ref(), nobody).await)?;
        }
    };
    tokio::select! {
        ended = lines => ended,
        () = interrupts.next() => Ok(()),
    }
}

async fn sight(client: &Client, on_disk: Option<&Topology>, nobody: &str) -> Value {
    let mut summary = nobody.to_owned();
    if client.topology().is_none()
        && let Ok(Err(error)) = timeout(ANSWER_MAX, client.refresh_topology()).await
    {
        summary = error.to_string();
    }
    match (client.topology(), on_disk) {
        (Some(topology), _) => {
            let nodes = ask(client, &topology).await;
            all_as_json(&topology, &nodes, change(client).await.as_ref())
        }
        (None, Some(topology)) => all_as_json(topology, &Node::all_silent(topology), None),
        (None, None) => json!({ "nodes": [], "moving": null, "healthy": false, "summary": summary }),
    }
}

/// How often it is drawn at most; a key is answered at once.
const FRAME: Duration = Duration::from_millis(100);

/// For clap: how often nodes are asked. A number is one of seconds, as `watch` and `top` have it.
pub(crate) fn parse_interval(text: &str) -> std::result::Result<Duration, String> {
    let expected = || format!("expected seconds from {SHORTEST_S} to {LONGEST_S}, such as \"2\", \"0.5\" or \"30s\"");
    let time = match text.parse::<f64>() {
        Ok(seconds) => Duration::try_from_secs_f64(seconds).ok(),
        Err(_) => humantime::parse_duration(text).ok(),
    };
    let allowed = Duration::from_secs_f64(SHORTEST_S)..=Duration::from_secs_f64(LONGEST_S);
    time.filter(|time| allowed.contains(time)).ok_or_else(expected)
}

/// Nodes measure some things anew once a second; more often than that shows hardly more.
const SHORTEST_S: f64 = 0.2;
const LONGEST_S: f64 = 3600.0;
