//! What is logged of what peers do wrong.

use messages::{EndpointId, Seq};

use crate::seldom::Seldom;
use crate::session::Fault;

// Whoever can publish can make these happen as often as he likes.
static GARBLED: Seldom = Seldom::new();
static STRANGERS: Seldom = Seldom::new();

/// Logs a fault, as loudly as somebody must act on it.
pub(super) fn fault(local: &EndpointId, fault: &Fault) {
    match fault {
        Fault::Garbled { reason } => {
            if let Some(left_out) = GARBLED.now() {
                tracing::warn!(%reason, left_out, "A delivery is not an envelope; it went to the dead-letter queue.");
            }
        }
        Fault::Stranger { from, to } => {
            if let Some(left_out) = STRANGERS.now() {
                tracing::warn!(%from, %to, left_out, "An envelope of a stranger; it was not journaled.");
            }
        }
        Fault::OutsideWindow { peer, seq } => {
            tracing::debug!(%peer, %seq, "A message too far ahead was dropped; it is sent again.");
        }
        Fault::Unreadable { peer, seq } => {
            tracing::error!(%peer, %seq, "A message that the peer needs is not whole in this journal; run `longshore journal verify`.");
        }
        Fault::Stale { peer } => tracing::debug!(%peer, "Word of an earlier process or journal was ignored."),
        Fault::Unproven { peer, found } => {
            tracing::debug!(%peer, journal = %found, "A journal that is not known speaks under that name; it is asked.");
        }
        Fault::PeerBehind { peer, received, found } => {
            tracing::warn!(%peer, received = Seq::count(*received), found = Seq::count(*found), "The peer has less than it had said: it was restored from an old copy. It is told, and what it lost is sent again.");
        }
        Fault::Superseding { peer, behind, from, to } => {
            tracing::warn!(%peer, %behind, %from, %to, "This endpoint goes on under another journal name. Nothing that was not settled is lost; what may have been done before is marked so.");
        }
        Fault::PeerSuperseded { peer, known, found, doubtful } => {
            tracing::warn!(%peer, %known, %found, doubtful = Seq::count(*doubtful), "The peer's journal was lost or restored. What is not settled is sent again, marked as perhaps done.");
        }
        Fault::Truncated { peer, from, over } => {
            tracing::warn!(%peer, %from, %over, "Messages of the peer are gone from this journal. They were settled: their outcome is with the peer.");
        }
        Fault::Frozen { peer, freeze } => {
            let advice = freeze.advice(local, peer);
            tracing::error!(%peer, %freeze, %advice, "The streams with a peer are stopped until a person decides.");
        }
    }
}
