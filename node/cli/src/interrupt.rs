//! Ctrl-C, SIGTERM and a terminal that closes, for commands that have something to say or to put away before they end.

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::exit::{Failure, Result};

/// From when it is made on the signals no longer end the process; they are to be waited for.
pub(crate) struct Interrupts {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Interrupts {
    /// Within a runtime.
    pub(crate) fn listen() -> Result<Interrupts> {
        let listen =
            |kind| signal(kind).map_err(|error| Failure::failed(format_args!("cannot listen to signals: {error}")));
        Ok(Interrupts {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            hangup: listen(SignalKind::hangup())?,
        })
    }

    /// Until somebody wants this program to end.
    pub(crate) async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }
}
