//! The protocol core: a plain struct that is told what happened and answers with what to write and what to do. It performs no
//! I/O, reads no clock, makes no random numbers and has no order that could differ between two runs.
//!
//! ```text
//!              Input                                  WriteAhead<Effects>
//!   deliveries, timers, ─────►  Session::handle ─────►  changes ─► journal ─► effects: publish, settle, offer, load
//!   connection, loads           (this folder)                      (synced)
//! ```
//!
//! One session serves one endpoint and all of its peers. Each peer's two streams are handled in a file of their own:
//! `outgoing.rs` decides what is published and resent, `incoming.rs` what is accepted, `status.rs` what is said and concluded,
//! `succession.rs` what happens when a journal was restored from an old copy, lost, or copied.

mod canon;
mod config;
mod effects;
mod freeze;
mod incoming;
mod outgoing;
mod status;
mod succession;
mod view;

use std::collections::{BTreeMap, VecDeque};

use journal::{Change, Incoming, Link, PeerState, State, WriteAhead};
use messages::{
    ChainHash, DecodeError, EndpointId, Envelope, Epoch, Incarnation, Message, Nonce, Presence, ProbeId, Seq,
};

#[doc(hidden)]
pub use canon::{Timers, UnderWay};
pub use config::{Config, Millis, Now};
pub use effects::{
    Applied, Arrived, DeliveryTag, Disposition, Effects, Fault, Load, Outbound, Publish, Published, ResolveError,
    Rewound, TransactError, Transaction,
};
pub use freeze::Freeze;
pub use view::{PeerView, StreamView};

/// Which process of which journal speaks.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Identity {
    /// Whose session this is.
    pub local: EndpointId,
    /// Its journal.
    pub incarnation: Incarnation,
    /// This opening of the journal.
    pub epoch: Epoch,
    /// This process.
    pub nonce: Nonce,
}

/// Something happened.
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    /// The broker can be published to and consumed from.
    Connected,
    /// It no longer can.
    Disconnected,
    /// The broker delivered something.
    Delivered(DeliveryTag, Box<Envelope>),
    /// The broker delivered bytes that are not an envelope.
    Garbled(DeliveryTag, DecodeErrorText),
    /// Messages that [`Effects::load`] asked for, lowest first. Those that are gone are left out.
    Loaded(EndpointId, Vec<Message>),
    /// The broker refused, returned or lost something published to that peer.
    Trouble(EndpointId),
    /// What this endpoint says of itself changed.
    Present(Presence),
    /// The next message of that peer for the application is not whole in this journal.
    NotWhole(EndpointId, Seq),
    /// [`Session::next_timeout`] has come.
    TimedOut,
}

/// Why bytes are not an envelope, in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecodeErrorText(pub String);

impl From<DecodeError> for DecodeErrorText {
    fn from(error: DecodeError) -> Self {
        Self(error.to_string())
    }
}

/// The protocol core of one endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Session {
    identity: Identity,
    config: Config,
    /// What is durable, or will be before any effect of it is seen. Changed by the journal's own fold alone.
    state: State,
    peers: BTreeMap<EndpointId, Peer>,
    connected: bool,
    presence: Option<Presence>,
    next_probe: ProbeId,
}

/// What is known of a peer beyond what is durable. All of it may be forgotten at any time.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
struct Peer {
    frozen: Option<Freeze>,
    /// The peer has heard this very process. Were its journal an old copy, that would have shown by then.
    agreed: bool,
    /// This process has begun a part of its own of the stream sent to the peer.
    apart: bool,
    sending: SendingSide,
    receiving: ReceivingSide,
}

/// The volatile part of the stream sent to a peer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
struct SendingSide {
    /// Everything up to here may have reached the broker.
    published: Option<Seq>,
    /// The broker confirmed this many; for people.
    resent: u64,
    /// What a probe found missing and is not yet published again, lowest first.
    missing: VecDeque<(Seq, Seq)>,
    /// What is being read from the journal.
    loading: Option<(Seq, Seq)>,
    /// Probes without an answer, oldest first.
    probes: VecDeque<Asked>,
    /// Probes since there was last any progress.
    attempts: u32,
    /// Answers in a row that found something missing, without anything received in between.
    fruitless: u32,
    /// When the next probe is due.
    probe_due: Option<Millis>,
    /// Hashes of headers that the peer may soon name as its head. Bounded by the window.
    recent: BTreeMap<Seq, ChainHash>,
    /// How many messages the peer is willing to take beyond its mark.
    peer_window: Option<u32>,
}

/// A probe, and what was known when it was published. Only against that its answer can be held: answers may be overtaken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Asked {
    id: ProbeId,
    /// What had been published before it: if the answer does not have it, it is lost.
    published: Option<Seq>,
    /// What the peer had already said it had: if the answer does not have it, the peer lost it.
    received: Option<Seq>,
}

/// The volatile part of the stream received from a peer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
struct ReceivingSide {
    /// Messages taken since the last status.
    unreported: u32,
    /// When a status is due.
    status_due: Option<Millis>,
    /// The probe to be answered.
    answer: Option<ProbeId>,
    /// Messages received again.
    duplicates: u64,
    /// The process heard from in the epoch noted beside it.
    nonce: Option<(Epoch, Nonce)>,
    /// Another process that was heard from in the same opening.
    rival: Option<Nonce>,
    /// When the peer was last heard from.
    heard: Option<Millis>,
    /// What the peer last said of itself.
    presence: Option<Presence>,
    /// The peer says that it has stopped the streams.
    peer_frozen: bool,
}

/// Changes and effects of one input, gathered.
#[derive(Debug, Default)]
struct Turn {
    changes: Vec<Change>,
    effects: Effects,
}

impl Session {
    /// A session over what a journal holds, with these peers. Streams of others that the journal holds are left as they are:
    /// nothing of them is lost, taken or sent until their peer is known again. `recent` gives, for each peer, the hashes of
    /// the headers sent after its received mark, as many as [`Session::recent_span`] says.
    #[must_use]
    pub fn recover(
        identity: Identity,
        config: Config,
        state: State,
        known: impl IntoIterator<Item = EndpointId>,
        mut recent: BTreeMap<EndpointId, BTreeMap<Seq, ChainHash>>,
    ) -> Self {
        let mut peers = BTreeMap::new();
        for id in known {
            let mut peer = Peer::default();
            if let Some(streams) = state.peers.get(&id) {
                // An earlier process can have published as far as the window let it, and nobody knows how far it came.
                let (_, last) = Self::recent_span(&config, streams);
                peer.sending.published = last;
                peer.sending.recent = recent.remove(&id).unwrap_or_default();
            }
            peers.insert(id, peer);
        }
        let next_probe = ProbeId::new(identity.nonce.value());
        Self { identity, config, state, peers, connected: false, presence: None, next_probe }
    }

    /// The first and the last message of the outgoing stream that an earlier process may have published without knowing
    /// that they were received.
    #[must_use]
    pub fn recent_span(config: &Config, streams: &PeerState) -> (Seq, Option<Seq>) {
        let received = streams.outgoing.received;
        let reach = Seq::new(Seq::count(received) + u64::from(config.window));
        (Seq::after(received), streams.outgoing.next.previous().min(reach))
    }

    /// What is durable, or will be before any effect of it is seen.
    #[must_use]
    pub const fn state(&self) -> &State {
        &self.state
    }

    /// Who this is.
    #[must_use]
    pub const fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Takes in what happened. Cannot fail: what peers do wrong is in the effects.
    pub fn handle(&mut self, now: Now, input: Input) -> WriteAhead<Effects> {
        let mut turn = Turn::default();
        match input {
            Input::Connected => self.connected(now, &mut turn),
            Input::Disconnected => self.disconnected(),
            Input::Delivered(tag, envelope) => match *envelope {
                Envelope::Message(message) => self.take_message(now, &mut turn, tag, message),
                Envelope::Status(status) => {
                    turn.effects.acknowledge.push(tag);
                    self.take_status(now, &mut turn, status);
                }
                Envelope::Log(log) => {
                    turn.effects.acknowledge.push(tag);
                    turn.effects.logs.push(log);
                }
            },
            Input::Garbled(tag, reason) => {
                turn.effects.discard.push(tag);
                turn.effects.faults.push(Fault::Garbled { reason: reason.0 });
            }
            Input::Loaded(peer, messages) => self.loaded(now, &mut turn, &peer, messages),
            Input::Trouble(peer) => self.probe_soon(now, &peer),
            Input::Present(presence) => self.present(now, presence),
            Input::NotWhole(peer, at) => self.freeze(now, &mut turn, &peer, Freeze::NotWhole { at }),
            Input::TimedOut => self.timed_out(now, &mut turn),
        }
        WriteAhead::new(turn.changes, turn.effects)
    }

    /// When [`Input::TimedOut`] is wanted next, on the clock of [`Now::at`].
    #[must_use]
    pub fn next_timeout(&self) -> Option<Millis> {
        if !self.connected {
            return None;
        }
        self.peers
            .values()
            .filter(|peer| peer.frozen.is_none())
            .flat_map(|peer| [peer.sending.probe_due, peer.receiving.status_due])
            .flatten()
            .min()
    }

    /// Messages of the peer that the application has not applied yet, both ends included. An agent gets none before the server has
    /// heard this process: if the journal is an old copy, they may have been carried out, and only then that is known. What the
    /// server gets are reports, which are true whenever they come.
    #[must_use]
    pub fn unapplied(&self, peer: &EndpointId) -> Option<(Seq, Seq)> {
        if self.is_agent() && !self.is_heard(peer) {
            return None;
        }
        let incoming = self.state.peers.get(peer)?.incoming.as_ref()?;
        let first = Seq::after(incoming.applied);
        incoming.through.filter(|through| first <= *through).map(|through| (first, through))
    }

    /// The peers that are known.
    pub fn peers(&self) -> impl Iterator<Item = &EndpointId> {
        self.peers.keys()
    }

    fn connected(&mut self, now: Now, turn: &mut Turn) {
        self.connected = true;
        for peer in self.peers.keys().cloned().collect::<Vec<_>>() {
            self.pump(now, turn, &peer);
            // An agent says that it is there; the server asks only where something is open, or where it is not known yet as the
            // process that it is. It speaks to all of them, which also shows whether their queues still take anything.
            let asks = self.is_agent() || !self.is_heard(&peer) || self.anything_unreceived(&peer);
            self.publish_status(now, turn, &peer, if asks { Probe::Yes } else { Probe::No });
        }
    }

    fn is_agent(&self) -> bool {
        self.identity.local.agent().is_some()
    }

    fn disconnected(&mut self) {
        self.connected = false;
        // What was turned away is delivered again if its acknowledgement was lost, so an answer that is still owed would no longer be
        // one to everything published before its question. The question comes again too, or is asked again.
        for peer in self.peers.values_mut() {
            peer.receiving.answer = None;
        }
    }

    fn present(&mut self, now: Now, presence: Presence) {
        if self.presence.as_ref() != Some(&presence) {
            self.presence = Some(presence);
            let due = now.at.after(self.config.status_delay_ms);
            for peer in self.peers.values_mut() {
                peer.receiving.status_due = Some(peer.receiving.status_due.map_or(due, |set| set.min(due)));
            }
        }
    }

    fn timed_out(&mut self, now: Now, turn: &mut Turn) {
        if !self.connected {
            return;
        }
        for (id, due) in self.due(now.at) {
            self.publish_status(now, turn, &id, due);
        }
    }

    /// The peers to which something must be said now, and whether it must ask.
    fn due(&self, at: Millis) -> Vec<(EndpointId, Probe)> {
        let mut due = Vec::new();
        for (id, peer) in &self.peers {
            if peer.frozen.is_some() {
                continue;
            }
            if peer.sending.probe_due.is_some_and(|set| set <= at) {
                due.push((id.clone(), Probe::Yes));
            } else if peer.receiving.status_due.is_some_and(|set| set <= at) {
                // An agent gets nothing to do before it knows that it was heard, so it asks until it does.
                let asks = self.is_agent() && !peer.agreed;
                due.push((id.clone(), if asks { Probe::Yes } else { Probe::No }));
            }
        }
        due
    }

    /// Records a change in the state, by the journal's own fold, and for the journal.
    fn change(&mut self, turn: &mut Turn, change: Change) {
        // A change that the fold refuses is a defect; the journal refuses it too, and closes instead of writing it.
        let applied = self.state.apply(&change);
        debug_assert!(applied.is_ok(), "{applied:?}");
        turn.changes.push(change);
    }

    fn streams(&self, peer: &EndpointId) -> Option<&PeerState> {
        self.state.peers.get(peer)
    }

    fn incoming(&self, peer: &EndpointId) -> Option<&Incoming> {
        self.streams(peer)?.incoming.as_ref()
    }

    fn link_beyond(&self, peer: &EndpointId, seq: Seq) -> Option<Link> {
        self.streams(peer)?.beyond.get(&seq).copied()
    }

    fn freeze(&mut self, now: Now, turn: &mut Turn, peer: &EndpointId, freeze: Freeze) {
        let Some(entry) = self.peers.get_mut(peer).filter(|entry| entry.frozen.is_none()) else { return };
        turn.effects.faults.push(Fault::Frozen { peer: peer.clone(), freeze: freeze.clone() });
        entry.frozen = Some(freeze);
        if entry.receiving.answer.is_some() {
            // Timers of a stopped stream are dead, and from this answer the peer learns what it is.
            self.publish_status(now, turn, peer, Probe::No);
        }
    }
}

/// Whether a status asks for an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Probe {
    Yes,
    No,
}
