//! What the rows mean: a pure fold. Recovery, the running session, the operator's tools and the simulator all use this one
//! function, so they cannot disagree. It never reads a store and never holds a body.

use std::collections::BTreeMap;

use messages::{ChainHash, EndpointId, Seq};

use crate::incoming::Incoming;
use crate::key::Direction;
use crate::row::{Meta, Outgoing, Row, Work};
use crate::totals::Totals;
use crate::write_ahead::Change;

/// Everything that an endpoint durably knows, short of messages and application rows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct State {
    /// What journal this is; nothing in an empty one.
    pub meta: Option<Meta>,
    /// The streams shared with each peer.
    pub peers: BTreeMap<EndpointId, PeerState>,
    /// What the rows add up to, as far as this fold was told: only the writer's own keeps up.
    pub totals: Totals,
}

/// The two streams shared with one peer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct PeerState {
    /// The stream sent to the peer.
    pub outgoing: Outgoing,
    /// The stream received from the peer, once anything was heard of it.
    pub incoming: Option<Incoming>,
    /// Messages received and applied whose outcome is not settled.
    pub work: BTreeMap<Seq, Work>,
    /// The links of the chain beyond the contiguous mark: for each message held there, the hash it expects before it and its
    /// own. Bounded by the receive window.
    pub beyond: BTreeMap<Seq, Link>,
}

/// One link of a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Link {
    /// The hash that the header expects before it.
    pub previous: ChainHash,
    /// The header's own hash.
    pub hash: ChainHash,
}

/// A change that no correct session makes. While running it is a defect; while opening it is damage.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IllegalChange {
    /// A mark moved backwards.
    #[error("the {mark} mark of the {direction} stream with {peer} went back from {from} to {to}")]
    Backwards {
        /// The stream's other end.
        peer: EndpointId,
        /// Which of the two streams.
        direction: Direction,
        /// Which mark.
        mark: &'static str,
        /// Where it stood.
        from: u64,
        /// Where it was put.
        to: u64,
    },
    /// A mark overtook the one that it depends on.
    #[error("the {mark} mark of the {direction} stream with {peer} stands at {at}, beyond {limit}")]
    Overtaken {
        /// The stream's other end.
        peer: EndpointId,
        /// Which of the two streams.
        direction: Direction,
        /// Which mark.
        mark: &'static str,
        /// Where it stands.
        at: u64,
        /// How far it may be.
        limit: u64,
    },
    /// The count of batches went backwards.
    #[error("the count of batches went back from {from} to {to}")]
    Batches {
        /// Where it stood.
        from: u64,
        /// Where it was put.
        to: u64,
    },
    /// The rows are not those that were written: some are missing, or old ones are back.
    #[error("the rows do not add up: {written} were written, {found} are there, and not all of them are the same")]
    Rows {
        /// Rows by the journal's own count.
        written: u64,
        /// Rows found.
        found: u64,
    },
    /// A header's bytes cannot be decoded.
    #[error("the header {seq} of the {direction} stream with {peer} cannot be decoded")]
    Header {
        /// The stream's other end.
        peer: EndpointId,
        /// Which of the two streams.
        direction: Direction,
        /// The message.
        seq: Seq,
    },
    /// A row of work for a message that was never applied.
    #[error("message {seq} from {peer} is recorded as work but was never applied")]
    WorkNotApplied {
        /// Who sent the message.
        peer: EndpointId,
        /// The message.
        seq: Seq,
    },
}

impl State {
    /// Takes one change in. This is the only place where rows get meaning.
    ///
    /// # Errors
    /// [`IllegalChange`]; the state is then as before, apart from an empty entry for the peer.
    pub fn apply(&mut self, change: &Change) -> Result<(), IllegalChange> {
        match change {
            Change::Put(row) => self.put(row),
            Change::DeleteWork(peer, seq) => {
                self.peers.entry(peer.clone()).or_default().work.remove(seq);
                Ok(())
            }
            Change::DeleteApp(_) | Change::DropBodies(..) | Change::DropHeaders(..) => Ok(()),
        }
    }

    /// Takes one row in, as [`Self::apply`] does for a put.
    ///
    /// # Errors
    /// As for [`Self::apply`].
    pub fn put(&mut self, row: &Row) -> Result<(), IllegalChange> {
        match row {
            Row::Meta(meta) => {
                self.meta = Some(meta.clone());
                Ok(())
            }
            Row::Outgoing(peer, row) => {
                let state = self.peers.entry(peer.clone()).or_default();
                check_outgoing(peer, &state.outgoing, row)?;
                state.outgoing = row.clone();
                Ok(())
            }
            Row::Incoming(peer, row) => {
                let state = self.peers.entry(peer.clone()).or_default();
                check_incoming(peer, state.incoming.as_ref(), row)?;
                let first_beyond = Seq::after(row.through);
                state.beyond = state.beyond.split_off(&first_beyond);
                state.incoming = Some(row.clone());
                Ok(())
            }
            Row::Header(Direction::In, peer, seq, row) => {
                let state = self.peers.entry(peer.clone()).or_default();
                let through = state.incoming.as_ref().and_then(|incoming| incoming.through);
                if Some(*seq) > through {
                    let illegal = |_| IllegalChange::Header { peer: peer.clone(), direction: Direction::In, seq: *seq };
                    let previous = row.decode().map_err(illegal)?.previous;
                    state.beyond.insert(*seq, Link { previous, hash: row.hash() });
                }
                Ok(())
            }
            Row::Work(peer, seq, work) => {
                let state = self.peers.entry(peer.clone()).or_default();
                if state.incoming.as_ref().and_then(|incoming| incoming.applied) < Some(*seq) {
                    return Err(IllegalChange::WorkNotApplied { peer: peer.clone(), seq: *seq });
                }
                state.work.insert(*seq, *work);
                Ok(())
            }
            Row::Totals(row) if row.batches < self.totals.batches => {
                Err(IllegalChange::Batches { from: self.totals.batches, to: row.batches })
            }
            Row::Totals(row) => {
                self.totals = *row;
                Ok(())
            }
            Row::Header(Direction::Out, ..) | Row::Body(..) | Row::App(..) => Ok(()),
        }
    }
}

struct Marks<'a> {
    peer: &'a EndpointId,
    direction: Direction,
}

impl Marks<'_> {
    fn forward(&self, mark: &'static str, from: Option<Seq>, to: Option<Seq>) -> Result<(), IllegalChange> {
        if to < from {
            let (peer, direction) = (self.peer.clone(), self.direction);
            return Err(IllegalChange::Backwards { peer, direction, mark, from: Seq::count(from), to: Seq::count(to) });
        }
        Ok(())
    }

    fn within(&self, mark: &'static str, at: Option<Seq>, limit: Option<Seq>) -> Result<(), IllegalChange> {
        if at > limit {
            let (peer, direction) = (self.peer.clone(), self.direction);
            return Err(IllegalChange::Overtaken {
                peer,
                direction,
                mark,
                at: Seq::count(at),
                limit: Seq::count(limit),
            });
        }
        Ok(())
    }
}

fn check_outgoing(peer: &EndpointId, old: &Outgoing, new: &Outgoing) -> Result<(), IllegalChange> {
    let marks = Marks { peer, direction: Direction::Out };
    marks.forward("next", Some(old.next), Some(new.next))?;
    // Another journal of the peer may have less than the one that was lost.
    if old.peer.is_none() || old.peer == new.peer {
        marks.forward("received", old.received, new.received)?;
    }
    marks.forward("settled", old.settled, new.settled)?;
    marks.forward("forgotten", old.forgotten, new.forgotten)?;
    let last = new.next.previous();
    marks.within("received", new.ranges.last().max(new.received), last)?;
    marks.within("settled", new.settled, new.received)?;
    marks.within("forgotten", new.forgotten, new.settled)
}

fn check_incoming(peer: &EndpointId, old: Option<&Incoming>, new: &Incoming) -> Result<(), IllegalChange> {
    let marks = Marks { peer, direction: Direction::In };
    if let Some(old) = old {
        marks.forward("received", old.through, new.through)?;
        marks.forward("applied", old.applied, new.applied)?;
        marks.forward("settled", old.settled, new.settled)?;
        marks.forward("forgotten", old.forgotten, new.forgotten)?;
    }
    marks.within("applied", new.applied, new.through)?;
    marks.within("settled", new.settled, new.applied)?;
    marks.within("forgotten", new.forgotten, new.settled)
}
