//! Why the streams shared with a peer are stopped, and what to do about it, for people. A frozen stream loses nothing: both
//! journals keep what they have until a person has looked. It decides nothing itself.

use std::fmt;

use messages::{EndpointId, Epoch, Incarnation, Seq};

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
        /// The last message that it was told of and that is not here.
        said: Option<Seq>,
        /// What this journal has.
        found: Option<Seq>,
    },
    /// The peer has heard another process in the same opening of this journal.
    Doubled,
    /// Two processes speak for the same opening of the same journal: the machine was cloned.
    Cloned,
    /// A message of the peer that is to be dealt with next is missing in this journal, or a part of it is.
    NotWhole {
        /// Which.
        at: Seq,
    },
}

/// What holds for all stopped streams.
const KEPT: &str = "Nothing is lost: both journals keep what they have, and nothing new is taken.";

impl Freeze {
    /// Whether a person's decision at this end can let the streams go on.
    #[must_use]
    pub const fn is_resolvable(&self) -> bool {
        match self {
            Self::Diverged { .. } | Self::NotWhole { .. } => false,
            Self::RolledBack { .. }
            | Self::Superseded { .. }
            | Self::Replaced { .. }
            | Self::Forgetful { .. }
            | Self::Doubled
            | Self::Cloned => true,
        }
    }

    /// What state things are in and what to do, in the words of whoever runs the endpoint `local`.
    #[must_use]
    pub fn advice(&self, local: &EndpointId, peer: &EndpointId) -> String {
        match self {
            Self::Diverged { .. } => format!(
                "{KEPT} The two journals contradict each other, and one of them must go: stop its endpoint, put its journal aside \
                 there with `longshore journal quarantine`, and start it again. What the other end holds for it is sent again, \
                 marked as perhaps done."
            ),
            Self::NotWhole { .. } => format!(
                "{KEPT} This journal is damaged: stop {local}, look with `longshore journal verify --endpoint {local}`, put the journal aside \
                 with `longshore journal quarantine --endpoint {local}`, and start it again. What {peer} holds for it is sent again, marked as \
                 perhaps done."
            ),
            Self::Cloned => format!(
                "{KEPT} Two processes run as {peer}: stop the one that is not to go on, then run \
                 `longshore reconcile resolve {peer} --endpoint {local}` here."
            ),
            Self::RolledBack { .. }
            | Self::Superseded { .. }
            | Self::Replaced { .. }
            | Self::Forgetful { .. }
            | Self::Doubled => format!(
                "{KEPT} Another process runs, or ran, as {local}. If this one is to go on: stop the other one, then run \
                 `longshore reconcile resolve {peer} --endpoint {local}` here. If the other one is to go on: stop this one."
            ),
        }
    }

    /// What to do about streams that the peer has stopped.
    pub(super) fn advice_of_other_end(local: &EndpointId, peer: &EndpointId) -> String {
        format!(
            "{KEPT} It is decided where {peer} runs: `longshore reconcile show {local} --endpoint {peer}` says there why, and what \
             to do."
        )
    }
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
                "this journal had told the peer that it has message {}, and of its own it has everything only up to {}: it was restored \
                 from an old copy",
                Seq::count(*said),
                Seq::count(*found)
            ),
            Self::NotWhole { at } => {
                write!(
                    f,
                    "message {at} of the peer is not whole in this journal, and nothing behind it can be dealt with before it"
                )
            }
            Self::Doubled => f.write_str(
                "the peer has heard another process in this opening of the journal: a copy of it is running, or was",
            ),
            Self::Cloned => f.write_str("two processes speak for the same journal: the machine was cloned"),
        }
    }
}
