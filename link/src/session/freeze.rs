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
    /// The peer knows another journal under this endpoint's name, and has given this one up.
    Replaced {
        /// The journal that the peer knows.
        known: Incarnation,
    },
    /// The peer was told by this journal that it has more than it has: this journal was restored from an old copy.
    Forgetful {
        /// What the peer was told.
        said: Option<Seq>,
        /// What this journal has.
        found: Option<Seq>,
    },
    /// The peer has heard another process in the same opening of this journal.
    Doubled,
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
            Self::Replaced { known } => {
                write!(
                    f,
                    "the peer takes journal {known} for this endpoint's, and no longer this one: another one was started under its name"
                )
            }
            Self::Forgetful { said, found } => write!(
                f,
                "this journal had told the peer that it has everything up to {}, it has only up to {}: it was restored from an old copy",
                Seq::count(*said),
                Seq::count(*found)
            ),
            Self::Doubled => f.write_str(
                "the peer has heard another process in this opening of the journal: a copy of it is running, or was",
            ),
            Self::Cloned => f.write_str("two processes speak for the same journal: the machine was cloned"),
        }
    }
}
