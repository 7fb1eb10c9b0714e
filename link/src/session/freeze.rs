//! Why the streams shared with a peer are stopped, for people. A frozen stream loses nothing: both
//! journals keep what they have until a person has looked.

use std::fmt;

use messages::{Epoch, Incarnation, Seq};

/// Why the streams shared with a peer are stopped.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Freeze {
    /// The peer has more of the outgoing stream than this journal ever sent: this journal was restored from an old copy.
    RolledBack {
        /// The last message that this journal knows of.
        sent: Option<Seq>,
        /// What the peer has.
        received: Option<Seq>,
    },
    /// The peer has heard of a later opening of this journal than this one: this process is old, or was restored.
    Superseded {
        /// This opening.
        epoch: Epoch,
        /// The one that the peer has heard of.
        heard: Epoch,
    },
    /// The same place of a stream holds different messages on the two sides: a clone, tampering, or corruption.
    Diverged {
        /// Where.
        at: Seq,
    },
    /// The peer's journal no longer has what it said it had, or nothing at all.
    PeerLostPart {
        /// What it had.
        received: Option<Seq>,
        /// What it has.
        found: Option<Seq>,
    },
    /// The peer sends from another journal than before.
    PeerReplaced {
        /// The journal that was known.
        known: Incarnation,
        /// The journal that it sends from.
        found: Incarnation,
    },
    /// The peer knows another journal under this endpoint's name.
    Replaced {
        /// The journal that the peer knows.
        known: Incarnation,
    },
    /// Two processes speak for the same opening of the same journal: the machine was cloned.
    Cloned,
}

impl fmt::Display for Freeze {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RolledBack { sent, received } => write!(
                f,
                "this journal was restored from an old copy: it has sent up to {}, the peer has received up to {}",
                Seq::count(*sent),
                Seq::count(*received)
            ),
            Self::Superseded { epoch, heard } => write!(
                f,
                "this process is opening {epoch} of its journal, but the peer has heard of opening {heard}: an older copy is running"
            ),
            Self::Diverged { at } => {
                write!(f, "message {at} is not the same on both sides: a clone, tampering or corruption")
            }
            Self::PeerLostPart { received, found } => write!(
                f,
                "the peer had received up to {}, now it has only up to {}: it lost part of its journal",
                Seq::count(*received),
                Seq::count(*found)
            ),
            Self::PeerReplaced { known, found } => {
                write!(f, "the peer's journal was {known}, now it is {found}: it was reinstalled or replaced")
            }
            Self::Replaced { known } => {
                write!(f, "the peer knows journal {known} under this name: this endpoint was reinstalled")
            }
            Self::Cloned => f.write_str("two processes speak for the same journal: the machine was cloned"),
        }
    }
}
