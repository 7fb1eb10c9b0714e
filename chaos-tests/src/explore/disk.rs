//! A journal in memory, as small as a search wants it: what its rows amount to, and the messages. It takes changes through the
//! journal's own fold and never accepts one that the fold refuses.

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use journal::{Change, Direction, HeaderRow, IllegalChange, Incoming, Meta, PeerState, Row, State};
use link::session::{Config, Session};
use messages::{ChainHash, EndpointId, Message, MessageId, Seq};

/// A header, and the id in it.
type Kept = (HeaderRow, Option<MessageId>);

/// One journal, of an endpoint with one peer.
#[derive(Debug, Clone, Default)]
pub struct Disk {
    /// What the rows amount to.
    pub state: State,
    headers: BTreeMap<(Direction, Seq), Arc<Kept>>,
    bodies: BTreeMap<(Direction, Seq), Arc<Vec<u8>>>,
}

impl Hash for Disk {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.state.hash(state);
        for (place, row) in &self.headers {
            // The header speaks of its body by digest.
            (place, &row.0.header, row.0.refused.is_some(), self.bodies.contains_key(place)).hash(state);
        }
    }
}

impl Disk {
    /// A journal that has just been created.
    #[must_use]
    pub fn new(meta: Meta) -> Self {
        Self { state: State { meta: Some(meta), ..State::default() }, ..Self::default() }
    }

    /// Makes changes durable.
    ///
    /// # Errors
    /// [`IllegalChange`], which no correct session causes.
    pub fn write(&mut self, changes: &[Change]) -> Result<(), IllegalChange> {
        for change in changes {
            self.state.apply(change)?;
            match change {
                Change::Put(Row::Header(direction, _, seq, row)) => {
                    let message = row.decode().ok().map(|header| header.id);
                    self.headers.insert((*direction, *seq), Arc::new((row.clone(), message)));
                }
                Change::Put(Row::Body(direction, _, seq, body)) => {
                    self.bodies.insert((*direction, *seq), Arc::new(body.clone()));
                }
                Change::DropBodies(direction, _, from, to) => {
                    self.bodies.retain(|(of, seq), _| of != direction || seq < from || seq > to);
                }
                Change::DropHeaders(direction, _, from, to) => {
                    self.headers.retain(|(of, seq), _| of != direction || seq < from || seq > to);
                }
                Change::Put(_) | Change::DeleteApp(_) | Change::DeleteWork(..) => {}
            }
        }
        Ok(())
    }

    /// What a process that starts finds: the rows folded anew, in the order in which a journal is read.
    ///
    /// # Errors
    /// [`IllegalChange`] when the rows contradict each other.
    pub fn replay(&self) -> Result<State, IllegalChange> {
        let mut state = State::default();
        state.meta.clone_from(&self.state.meta);
        for (peer, streams) in &self.state.peers {
            state.put(&Row::Outgoing(peer.clone(), streams.outgoing.clone()))?;
            if let Some(incoming) = &streams.incoming {
                state.put(&Row::Incoming(peer.clone(), incoming.clone()))?;
            }
            for ((direction, seq), row) in &self.headers {
                state.put(&Row::Header(*direction, peer.clone(), *seq, row.0.clone()))?;
            }
            for (seq, work) in &streams.work {
                state.put(&Row::Work(peer.clone(), *seq, *work))?;
            }
        }
        Ok(state)
    }

    /// The whole message at that place, if it is there.
    #[must_use]
    pub fn message(&self, direction: Direction, seq: Seq) -> Option<Message> {
        let (header, body) = (self.headers.get(&(direction, seq))?, self.bodies.get(&(direction, seq))?);
        Message::restore(&header.0.header, body).ok()
    }

    /// Whether the whole message is there, at any place.
    #[must_use]
    pub fn holds_id(&self, direction: Direction, message: MessageId) -> bool {
        let is_it = |row: &Kept| row.1 == Some(message);
        self.headers.iter().any(|(place, row)| place.0 == direction && is_it(row) && self.bodies.contains_key(place))
    }

    /// The messages that are whole there.
    pub(super) fn whole(&self, direction: Direction) -> impl Iterator<Item = MessageId> + '_ {
        let there = move |place: &(Direction, Seq)| place.0 == direction && self.bodies.contains_key(place);
        self.headers.iter().filter(move |(place, _)| there(place)).filter_map(|(_, row)| row.1)
    }

    /// Both streams shared with the peer.
    #[must_use]
    pub fn streams(&self, peer: &EndpointId) -> Option<&PeerState> {
        self.state.peers.get(peer)
    }

    /// The row of the stream received from the peer.
    #[must_use]
    pub fn incoming(&self, peer: &EndpointId) -> Option<&Incoming> {
        self.streams(peer)?.incoming.as_ref()
    }

    /// The hashes that [`Session::recover`] wants.
    #[must_use]
    pub fn recent(&self, config: &Config, peer: &EndpointId) -> BTreeMap<Seq, ChainHash> {
        let Some(streams) = self.streams(peer) else { return BTreeMap::new() };
        let (from, to) = Session::recent_span(config, streams);
        let sent = self.headers.iter().filter(|((direction, _), _)| *direction == Direction::Out);
        let span = sent.filter(|((_, seq), _)| from <= *seq && Some(*seq) <= to);
        span.map(|((_, seq), row)| (*seq, row.0.hash())).collect()
    }
}
