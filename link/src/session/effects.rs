//! What a session asks for, and what the application asks of it.

use journal::{Change, HeaderRow};
use messages::{EncodeError, EndpointId, Frame, Incarnation, Kind, LogDatagram, Message, MessageId, Seq};
use serde::{Deserialize, Serialize};

use super::Freeze;

/// One delivery of one connection to the broker. Tags of an earlier connection mean nothing to a later one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeliveryTag {
    /// Counts connections.
    pub connection: u64,
    /// The broker's number within it.
    pub tag: u64,
}

/// What is to be done, once the changes it belongs to are on stable storage.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Effects {
    /// To be published, in this order.
    pub publish: Vec<Publish>,
    /// Whether that may wait a moment for what comes next to the same peers, so that both leave together.
    pub may_wait: bool,
    /// To be read from the journal and handed back as [`Input::Loaded`](super::Input::Loaded).
    pub load: Vec<Load>,
    /// Deliveries to acknowledge to the broker.
    pub acknowledge: Vec<DeliveryTag>,
    /// Deliveries to reject to the broker's dead-letter queue.
    pub discard: Vec<DeliveryTag>,
    /// Peers whose messages up to there the application may now have.
    pub offer: Vec<(EndpointId, Seq)>,
    /// Messages that are journaled with this, next in their streams. They may be lent to the application before that
    /// ([`WriteAhead::lend`](journal::WriteAhead::lend)).
    pub arrived: Vec<Arrived>,
    /// Messages that were journaled and go out when there is room for them: whoever keeps them need not read them again then.
    pub sealed: Vec<Message>,
    /// Pieces of logs that arrived.
    pub logs: Vec<LogDatagram>,
    /// What peers did wrong, and what was concluded.
    pub faults: Vec<Fault>,
    /// What a lost or restored journal means for work that the application has or will get.
    pub rewound: Vec<Rewound>,
    /// Peers of which something changed that people look at.
    pub changed: Vec<EndpointId>,
}

/// A message that is just being journaled.
#[derive(Debug, Clone, PartialEq)]
pub struct Arrived {
    /// Its place in this journal.
    pub seq: Seq,
    /// The message.
    pub message: Message,
    /// When it was journaled, in milliseconds since 1970.
    pub at_ms: u64,
}

/// A journal was lost or restored, and the two ends have agreed on what is left: what the application must know of it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rewound {
    /// This endpoint's journal, with this peer. Work that is not in the journal any more is over: its outcome is with the peer.
    /// Other work may have gone further than the journal says; its row of the stream says up to which place.
    Own(EndpointId),
    /// This peer's journal: it may not know what it had sent, nor what it had been told.
    Peers(EndpointId),
}

/// Something to publish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publish {
    /// To whom.
    pub to: EndpointId,
    /// What it is.
    pub what: Published,
    /// Its bytes.
    pub frame: Frame,
}

/// What is published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Published {
    /// A message, for the first time.
    Message(Seq),
    /// A message that the peer was found to miss.
    Resent(Seq),
    /// A status.
    Status,
    /// A piece of a log.
    Log,
}

/// Messages to read from the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Load {
    /// Of the stream sent to this peer.
    pub peer: EndpointId,
    /// The first one.
    pub from: Seq,
    /// The last one, included.
    pub to: Seq,
}

/// What a peer, or somebody in its name, did wrong. The session goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// Bytes that are not an envelope; they went to the dead-letter queue.
    Garbled {
        /// Why not.
        reason: String,
    },
    /// An envelope of somebody unknown, or for somebody else; nothing was journaled. A message went to the dead-letter
    /// queue; a status is acknowledged, since it is worth nothing to anybody later.
    Stranger {
        /// Who it says it is from.
        from: EndpointId,
        /// For whom it is.
        to: EndpointId,
    },
    /// A message too far beyond what was received. It was dropped; the sender will send it again.
    OutsideWindow {
        /// From whom.
        peer: EndpointId,
        /// Its place.
        seq: Seq,
    },
    /// A message that the peer needs is not whole in this endpoint's own journal.
    Unreadable {
        /// To whom it was sent.
        peer: EndpointId,
        /// Its place.
        seq: Seq,
    },
    /// A message or status of an older process, or of a journal that is superseded, which was ignored.
    Stale {
        /// From whom.
        peer: EndpointId,
    },
    /// A status of a journal that was not known under that name. It is asked; what it answers is believed.
    Unproven {
        /// Whose name it has.
        peer: EndpointId,
        /// The journal.
        found: Incarnation,
    },
    /// The peer has less than it had said. It finds that out from the next status, and says what it makes of it.
    PeerBehind {
        /// Which peer.
        peer: EndpointId,
        /// What it had.
        received: Option<Seq>,
        /// What it has.
        found: Option<Seq>,
    },
    /// This journal was restored from an old copy, and goes on under another name.
    Superseding {
        /// The peer whose status shows it.
        peer: EndpointId,
        /// What shows it.
        behind: Freeze,
        /// The name that the stream had.
        from: Incarnation,
        /// The name that it has now.
        to: Incarnation,
    },
    /// The peer's journal was lost or restored. Everything that was not settled is sent again, marked as perhaps done.
    PeerSuperseded {
        /// Which peer.
        peer: EndpointId,
        /// The journal that was known.
        known: Incarnation,
        /// The journal that it sends from now.
        found: Incarnation,
        /// The last message to it that may have been carried out without this end knowing.
        doubtful: Option<Seq>,
    },
    /// What this journal knows less than the peer: messages of it up to `over` are gone here, and settled there.
    Truncated {
        /// Which peer.
        peer: EndpointId,
        /// The first place of the hole, here.
        from: Seq,
        /// The last place of the hole, here.
        over: Seq,
    },
    /// The streams shared with a peer were stopped.
    Frozen {
        /// Which peer.
        peer: EndpointId,
        /// Why.
        freeze: Freeze,
    },
}

/// What the application wants to happen as one: messages applied, its own rows changed, messages sent.
#[derive(Debug, Clone, Default)]
pub struct Transaction {
    /// Messages that the application has now dealt with, in the order of their stream.
    pub apply: Vec<Applied>,
    /// Changes of the application's own rows.
    pub rows: Vec<Change>,
    /// Messages to send.
    pub send: Vec<Outbound>,
    /// Whether this admits new work, and so may be refused when an outbox is full. Outcomes of admitted work may not.
    pub admission: bool,
    /// Whether what is sent may wait a moment for what is sent next, which is likely to come soon.
    pub may_wait: bool,
    /// Whether nobody minds if it is committed some milliseconds later, with what comes next: because it means little, or because that is known
    /// to come at once.
    pub unhurried: bool,
}

/// A message that the application has dealt with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// From whom.
    pub peer: EndpointId,
    /// Its place, which must be the first one not yet applied.
    pub seq: Seq,
    /// What it means for its outcome.
    pub disposition: Disposition,
}

/// What applying a message means for its outcome.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Disposition {
    /// There is nothing more to come of it: it is settled.
    Settle,
    /// Work was begun; it is settled when a message that [`Outbound::answers`] it has been received.
    Hold,
    /// It is unacceptable and will never be acted on. Its header row says why. It is settled when a message of the same transaction
    /// that [`Outbound::answers`] it has been received, or at once if there is none.
    Refuse(Box<HeaderRow>),
}

/// A message to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outbound {
    /// To whom.
    pub to: EndpointId,
    /// Chosen by the submitter.
    pub id: MessageId,
    /// What the body is.
    pub kind: Kind,
    /// The body.
    pub body: Vec<u8>,
    /// The message that this one answers or follows from.
    pub cause: Option<MessageId>,
    /// The held message from the same peer whose final outcome this is.
    pub answers: Option<Seq>,
}

/// Why a transaction is refused. Nothing of it happened.
#[derive(Debug, thiserror::Error)]
pub enum TransactError {
    /// The peer is not known.
    #[error("{peer} is not known here")]
    UnknownPeer {
        /// The peer.
        peer: EndpointId,
    },
    /// The outbox to a peer is full.
    #[error("{waiting} messages already wait for {peer}; no new work is taken for it until some are received")]
    OutboxFull {
        /// The peer.
        peer: EndpointId,
        /// Unsettled messages to it.
        waiting: u64,
    },
    /// A body is too large or cannot be encoded.
    #[error("a message cannot be made")]
    Encode(#[from] EncodeError),
    /// Messages must be applied in the order of their stream.
    #[error("message {seq} of {peer} is not the next to apply")]
    OutOfOrder {
        /// The peer.
        peer: EndpointId,
        /// The message.
        seq: Seq,
    },
    /// The message that would be answered is not held.
    #[error("message {seq} of {peer} waits for no answer")]
    NotHeld {
        /// The peer.
        peer: EndpointId,
        /// The message.
        seq: Seq,
    },
}

/// Why a person's decision about a peer's streams cannot be carried out. Nothing happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "kebab-case")]
pub enum ResolveError {
    /// The peer is not known.
    #[error("{peer} is not known here")]
    UnknownPeer {
        /// The peer.
        peer: EndpointId,
    },
    /// There is nothing to decide.
    #[error("the streams with {peer} are not stopped at this end")]
    NotStopped {
        /// The peer.
        peer: EndpointId,
    },
    /// The two journals contradict each other, and going on would hide that.
    #[error(
        "message {at} is not the same in the journals of this endpoint and of {peer}: one of the two journals must be put aside"
    )]
    Diverged {
        /// The peer.
        peer: EndpointId,
        /// Where.
        at: Seq,
    },
    /// This journal lacks what is to be dealt with next: no decision brings it back.
    #[error("message {at} of {peer} is not whole in this journal, which must be put aside")]
    NotWhole {
        /// The peer.
        peer: EndpointId,
        /// Which.
        at: Seq,
    },
}
