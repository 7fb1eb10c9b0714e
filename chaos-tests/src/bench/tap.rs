//! A tap on the wire between an endpoint's driver and its transport: counts what is published and changes nothing. It costs each message
//! two hops between tasks, so both sides of a comparison have one or neither.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use link::session::Published;
use link::wire::{Wire, WireCommand, WireEnd, wire};
use messages::{Envelope, decode};
use tokio::task::JoinHandle;

/// What was published.
#[derive(Debug, Default)]
pub(super) struct Counts {
    /// Messages published again.
    pub(super) resent: AtomicU64,
    /// Bytes of statuses that ask or answer. The others report what was received, as in a quiet life.
    pub(super) asking_bytes: AtomicU64,
    /// The same one by one, with the time of each.
    asking: Mutex<Vec<(Instant, u64)>>,
    /// When the first message was published again since that was asked for.
    first_resent: Mutex<Option<Instant>>,
}

impl Counts {
    pub(super) fn of(counter: &AtomicU64) -> u64 {
        counter.load(Ordering::Relaxed)
    }

    /// When the first message was published again since [`Self::forget_resent`], if any was.
    pub(super) fn first_resent(&self) -> Option<Instant> {
        *self.first_resent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was published again so far does not count as the first.
    pub(super) fn forget_resent(&self) {
        *self.first_resent.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Bytes of statuses that asked or answered from one moment to another.
    pub(super) fn asking_between(&self, from: Instant, to: Instant) -> u64 {
        let asking = self.asking.lock().unwrap_or_else(PoisonError::into_inner);
        asking.iter().filter(|(at, _)| (from..=to).contains(at)).map(|(_, bytes)| bytes).sum()
    }

    fn add(counter: &AtomicU64, number: u64) {
        counter.fetch_add(number, Ordering::Relaxed);
    }

    fn command(&self, command: &WireCommand) {
        match command {
            WireCommand::Publish(publish) | WireCommand::PublishSoon(publish) => match publish.what {
                Published::Resent(_) => {
                    let mut first = self.first_resent.lock().unwrap_or_else(PoisonError::into_inner);
                    first.get_or_insert_with(Instant::now);
                    Self::add(&self.resent, 1);
                }
                Published::Status => self.status(publish.frame.bytes()),
                Published::Message(_) | Published::Log => {}
            },
            WireCommand::Acknowledge(_) | WireCommand::Discard(_) => {}
        }
    }

    fn status(&self, bytes: &[u8]) {
        // What an endpoint publishes can be decoded.
        if let Ok(Envelope::Status(status)) = decode(bytes.to_vec())
            && (status.probe.is_some() || status.answers.is_some())
        {
            Self::add(&self.asking_bytes, bytes.len() as u64);
            let mut asking = self.asking.lock().unwrap_or_else(PoisonError::into_inner);
            asking.push((Instant::now(), bytes.len() as u64));
        }
    }
}

/// Puts a tap between a driver and what `transport` serves. The task ends when both have let go of the wire.
pub(super) fn tap(
    driver: WireEnd,
    counts: Arc<Counts>,
    transport: impl FnOnce(WireEnd) -> JoinHandle<()>,
) -> JoinHandle<()> {
    let WireEnd { events: to_driver, logs, commands: mut from_driver } = driver;
    let (Wire { mut events, commands, logs: _unused }, end) = wire();
    // Pieces of logs are not counted: they go past.
    let transport = transport(WireEnd { logs, ..end });
    let up = tokio::spawn(async move {
        while let Some(event) = events.recv().await {
            if to_driver.send(event).await.is_err() {
                break;
            }
        }
    });
    tokio::spawn(async move {
        while let Some(command) = from_driver.recv().await {
            counts.command(&command);
            if commands.send(command).await.is_err() {
                break;
            }
        }
        // The transport ends with its wire, and has nothing to say to anybody then.
        drop(commands);
        for part in [up, transport] {
            // A panic of the transport shows in the log and in what did not arrive.
            let _ended = part.await;
        }
    })
}
