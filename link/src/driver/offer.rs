//! Handing the application what it has not dealt with, in the order of its stream, one batch per peer at a time. What arrived a moment ago is
//! still in memory and is lent to it, on stable storage or not: all that it can do about it here is a transaction, which is committed
//! with it or behind it. Everything else is read, which only what is on stable storage can be.

use journal::Direction;
use messages::{Body, EndpointId, Seq};

use super::{Driver, RunError};
use crate::endpoint::{Work, WorkItem};
use crate::session::{Arrived, Input};

/// Messages handed to the application at a time, per peer.
const BATCH_MAX: u64 = 256;
/// Bytes of messages handed to the application at a time, per peer.
const BATCH_BYTES_MAX: usize = 1024 * 1024;

impl Driver {
    /// Hands the application what it has not dealt with, one batch per peer.
    pub(super) fn offer(&mut self) -> Result<(), RunError> {
        for peer in self.waiting.clone() {
            if self.out.contains_key(&peer) || self.work.capacity() == 0 {
                continue;
            }
            self.waiting.remove(&peer);
            let Some((from, through)) = self.session.unapplied(&peer) else { continue };
            let durable = self.durable.get(&peer).copied();
            let through = if self.rewinding == 0 { Some(through) } else { durable };
            let Some(through) = through.filter(|through| from <= *through) else { continue };
            let to = through.min(Seq::new(from.value() + BATCH_MAX - 1).unwrap_or(through));
            let items = self.read_work(&peer, (from, to), durable)?;
            let Some(last) = items.last().map(|item| item.seq) else {
                if durable.is_none_or(|durable| durable < from) {
                    // It comes with its commit.
                    continue;
                }
                // Nothing behind it may be offered before it, so the streams are stopped, which is said here, there and to people.
                self.input(Input::NotWhole(peer, from));
                continue;
            };
            if self.work.try_send(Work { peer: peer.clone(), items }).is_ok() {
                if Some(last) > durable {
                    self.gathered.lent(&peer);
                }
                self.out.insert(peer, last);
            }
        }
        Ok(())
    }

    /// What is in memory, or else what is on stable storage, which goes up to `durable`.
    fn read_work(
        &mut self,
        peer: &EndpointId,
        (from, to): (Seq, Seq),
        durable: Option<Seq>,
    ) -> Result<Vec<WorkItem>, RunError> {
        let mut arrived = self.kept.arrived.take(peer, (from, to), BATCH_BYTES_MAX);
        if let (true, Some(durable)) = (arrived.is_empty(), durable) {
            let before_kept = self.kept.arrived.first(peer).and_then(Seq::previous).filter(|before| from <= *before);
            arrived = self.read_arrived(peer, from, before_kept.unwrap_or(to).min(to).min(durable))?;
        }
        let stream = self.session.state().peers.get(peer).and_then(|streams| streams.incoming.as_ref());
        let (doubtful, losses) = stream.map_or((None, 0), |stream| (stream.doubtful, stream.losses));
        let item = |Arrived { seq, message, at_ms }| {
            let body = Body::decode(message.header.kind, message.body());
            WorkItem { seq, message, at_ms, body, doubtful: Some(seq) <= doubtful, losses }
        };
        Ok(arrived.into_iter().map(item).collect())
    }

    /// Reads messages without a gap from the journal.
    fn read_arrived(&self, peer: &EndpointId, from: Seq, to: Seq) -> Result<Vec<Arrived>, RunError> {
        let messages = self.journal.messages(Direction::In, peer, (from, to), BATCH_BYTES_MAX)?;
        let mut arrived = Vec::with_capacity(messages.len());
        for ((seq, message), expected) in messages.into_iter().zip(from.value()..) {
            if seq.value() != expected {
                break;
            }
            let at_ms = self.journal.header(Direction::In, peer, seq)?.map_or(0, |row| row.at_ms);
            arrived.push(Arrived { seq, message, at_ms });
        }
        Ok(arrived)
    }
}
