//! A tap on the wire between an endpoint's driver and its transport: counts what goes through and changes nothing. It costs each message
//! two hops between tasks, so both sides of a comparison have one or neither.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use link::session::Published;
use link::wire::{Wire, WireCommand, WireEnd, WireEvent, wire};
use tokio::task::JoinHandle;

/// What went through.
#[derive(Debug, Default)]
pub(super) struct Counts {
    /// Messages published for the first time.
    pub(super) messages: AtomicU64,
    /// Messages published again.
    pub(super) resent: AtomicU64,
    /// Statuses published, and their bytes.
    pub(super) statuses: AtomicU64,
    pub(super) status_bytes: AtomicU64,
    /// Deliveries of whatever kind.
    pub(super) deliveries: AtomicU64,
    /// Publishes that the broker confirmed.
    pub(super) confirmed: AtomicU64,
    /// Commands to acknowledge, each for one or more deliveries.
    pub(super) acknowledges: AtomicU64,
}

impl Counts {
    pub(super) fn of(counter: &AtomicU64) -> u64 {
        counter.load(Ordering::Relaxed)
    }

    fn add(counter: &AtomicU64, number: u64) {
        counter.fetch_add(number, Ordering::Relaxed);
    }

    fn command(&self, command: &WireCommand) {
        match command {
            WireCommand::Publish(publish) => match publish.what {
                Published::Message(_) => Self::add(&self.messages, 1),
                Published::Resent(_) => Self::add(&self.resent, 1),
                Published::Status => {
                    Self::add(&self.statuses, 1);
                    Self::add(&self.status_bytes, publish.frame.bytes().len() as u64);
                }
                Published::Log => {}
            },
            WireCommand::Acknowledge(_) => Self::add(&self.acknowledges, 1),
            WireCommand::Discard(_) => {}
        }
    }

    fn event(&self, event: &WireEvent) {
        match event {
            WireEvent::Delivery { .. } => Self::add(&self.deliveries, 1),
            WireEvent::Confirmed(all) => Self::add(&self.confirmed, all.len() as u64),
            WireEvent::Up { .. } | WireEvent::Down { .. } | WireEvent::Refused { .. } | WireEvent::Blocked(_) => {}
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
    let counts_events = Arc::clone(&counts);
    let up = tokio::spawn(async move {
        while let Some(event) = events.recv().await {
            counts_events.event(&event);
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
