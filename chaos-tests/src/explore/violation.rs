//! What must not be: the promises that a search checks in every world that it reaches.

use journal::IllegalChange;
use messages::Seq;

use super::scope::Side;

/// A promise that was broken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// P1.
    #[error("message {seq} of {side:?} was acknowledged, was never handed over, and is in no journal")]
    Lost {
        /// Who sent it.
        side: Side,
        /// Its place.
        seq: Seq,
    },
    /// P1.
    #[error("message {seq} of {side:?} counts as settled, and the other side has not taken it")]
    SettledUntaken {
        /// Who sent it.
        side: Side,
        /// Its place.
        seq: Seq,
    },
    /// P2.
    #[error("the application of {side:?} is offered message {seq} again, and it is not marked as perhaps done")]
    OfferedAgain {
        /// Who is offered it.
        side: Side,
        /// Its place.
        seq: Seq,
    },
    /// Delivery in order.
    #[error(
        "the application of {side:?} is offered message {seq} after {taken} others, not in the order of submission"
    )]
    OutOfOrder {
        /// Who is offered it.
        side: Side,
        /// Its place.
        seq: Seq,
        /// Messages taken so far.
        taken: u64,
    },
    /// An offer before its commit, or of a message that is not whole.
    #[error("the application of {side:?} is offered message {seq}, which is not whole in its journal")]
    OfferedUnwritten {
        /// Who is offered it.
        side: Side,
        /// Its place.
        seq: Seq,
    },
    /// The fold.
    #[error("the journal's fold refuses a change: {0}")]
    Illegal(#[source] IllegalChange),
    /// The fold.
    #[error("a journal read anew is not what it was when it was written")]
    Replay,
    /// A status ahead of its journal.
    #[error("a status of {side:?} claims {what}, more than its journal holds")]
    Claim {
        /// Who speaks.
        side: Side,
        /// What it claims.
        what: &'static str,
    },
    /// A mark ahead of the other journal.
    #[error("{side:?} believes more of its messages {what} than the other journal knows of")]
    Belief {
        /// Who believes it.
        side: Side,
        /// Which mark.
        what: &'static str,
    },
    /// Streams stopped without anything that calls for it.
    #[error("{side:?} stopped its streams, and no two copies of a journal run: {reason}")]
    StoppedWithoutCause {
        /// Who stopped them.
        side: Side,
        /// Why, in its words.
        reason: String,
    },
    /// A delivery that is neither acknowledged nor rejected.
    #[error("{side:?} leaves a delivery undecided")]
    Undecided {
        /// Who got it.
        side: Side,
    },
    /// What an endpoint published cannot be decoded.
    #[error("what was published cannot be decoded")]
    Unreadable,
    /// The application could not do what it may do.
    #[error("the session of {side:?} refuses what its application may do: {why}")]
    Refused {
        /// Whose.
        side: Side,
        /// In its words.
        why: String,
    },
    /// No way back.
    #[error("from here nothing but a further fault leads to where everything is received and settled")]
    Stuck,
}
