//! Pieces of logs that arrive. They are in no stream and in no journal, and may be lost: whoever sent one sends it again.

use messages::{Envelope, LogDatagram, decode};

use super::Driver;
use crate::seldom::Seldom;

// Whoever can publish can make this happen as often as he likes.
static NO_LOGS: Seldom = Seldom::new();

impl Driver {
    /// A piece of a log touches no stream and no journal: it goes straight to the application.
    pub(super) fn log(&self, bytes: Vec<u8>) {
        match decode(bytes) {
            Ok(Envelope::Log(log)) => self.pass_on(log),
            Ok(Envelope::Message(_) | Envelope::Status(_)) => {
                if let Some(left_out) = NO_LOGS.now() {
                    tracing::warn!(
                        left_out,
                        "Something that is no piece of a log came with the logs; it was dropped, its sender sends it again."
                    );
                }
            }
            Err(error) => {
                if let Some(left_out) = NO_LOGS.now() {
                    tracing::warn!(%error, left_out, "Something that is no envelope came with the logs; it was dropped.");
                }
            }
        }
    }

    pub(super) fn pass_on(&self, log: LogDatagram) {
        if self.logs.try_send(log).is_err() {
            tracing::debug!("A piece of a log found no room; its sender sends it again.");
        }
    }
}
