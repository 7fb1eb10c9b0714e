//! What is logged of what peers do wrong.

use crate::session::Fault;

/// Logs a fault, as loudly as somebody must act on it.
pub(super) fn fault(fault: &Fault) {
    match fault {
        Fault::Garbled { reason } => {
            tracing::warn!(%reason, "A delivery is not an envelope; it went to the dead-letter queue.");
        }
        Fault::Stranger { from, to } => {
            tracing::warn!(%from, %to, "An envelope of a stranger; it was not journaled.");
        }
        Fault::OutsideWindow { peer, seq } => {
            tracing::debug!(%peer, %seq, "A message too far ahead was dropped; it is sent again.");
        }
        Fault::Unreadable { peer, seq } => {
            tracing::error!(%peer, %seq, "A message that the peer needs is not whole in this journal; run `longshore journal verify`.");
        }
        Fault::Stale { peer } => tracing::debug!(%peer, "A status of an earlier process was ignored."),
        Fault::Frozen { peer, freeze } => {
            tracing::error!(%peer, %freeze, "The streams with a peer are stopped. Nothing is lost. Remove the cause (another process or machine under this name, or an old copy of a journal), then restart both ends.");
        }
    }
}
