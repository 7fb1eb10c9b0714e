//! What a session shows of itself to people.

use messages::{EndpointId, Epoch, Incarnation, Presence, Seq};
use serde::{Deserialize, Serialize};

use super::{Freeze, Millis, Session};

/// Both streams shared with a peer, as this side sees them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerView {
    /// The peer.
    pub peer: EndpointId,
    /// Why the streams are stopped, if they are.
    pub frozen: Option<String>,
    /// What state they are in then, and what to do.
    pub advice: Option<String>,
    /// Whether they are stopped at this end and a person's decision here can let them go on.
    pub resolvable: bool,
    /// The stream sent to it.
    pub outgoing: StreamView,
    /// The stream received from it; nothing while it was never heard of.
    pub incoming: Option<StreamView>,
    /// Messages sent again by this process because the peer was found to miss them.
    pub resent: u64,
    /// Messages received again by this process.
    pub duplicates: u64,
    /// Messages received and applied here whose outcome is not settled.
    pub open_work: u64,
    /// Milliseconds since the peer was last heard from by this process.
    pub heard_ms_ago: Option<u64>,
    /// What the peer last said of itself.
    pub presence: Option<Presence>,
}

/// One stream, in the sender's numbers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamView {
    /// The sender's journal.
    pub incarnation: Incarnation,
    /// The sender's opening of it, as far as known.
    pub epoch: Epoch,
    /// The last place given.
    pub last: Option<Seq>,
    /// The last place that may have reached the broker. The receiver does not know it.
    pub published: Option<Seq>,
    /// Everything up to here is on stable storage at the receiver.
    pub received: Option<Seq>,
    /// What else is, first and last place.
    pub ranges: Vec<(Seq, Seq)>,
    /// Everything up to here is settled.
    pub settled: Option<Seq>,
    /// Everything up to here is forgotten.
    pub forgotten: Option<Seq>,
}

impl Session {
    /// What there is to show of a peer; nothing for one that is not known.
    #[must_use]
    pub fn view(&self, peer: &EndpointId, at: Millis) -> Option<PeerView> {
        let entry = self.peers.get(peer)?;
        let nothing = journal::PeerState::default();
        let streams = self.streams(peer).unwrap_or(&nothing);
        let outgoing = &streams.outgoing;
        let incoming = streams.incoming.as_ref().map(|incoming| StreamView {
            incarnation: incoming.incarnation,
            epoch: incoming.epoch,
            last: incoming.ranges_there().last().max(incoming.mark_there(incoming.through)),
            published: None,
            received: incoming.mark_there(incoming.through),
            ranges: incoming.ranges_there().iter().collect(),
            settled: incoming.mark_there(incoming.settled),
            forgotten: incoming.mark_there(incoming.forgotten),
        });
        let (local, there) = (&self.identity.local, entry.receiving.peer_frozen);
        let (frozen, advice) = match &entry.frozen {
            Some(freeze) => (Some(freeze.to_string()), Some(freeze.advice(local, peer))),
            None if there => {
                let said = "the peer has stopped its streams with this endpoint; its own log says why";
                (Some(said.to_owned()), Some(Freeze::advice_of_other_end(local, peer)))
            }
            None => (None, None),
        };
        Some(PeerView {
            peer: peer.clone(),
            frozen,
            advice,
            resolvable: entry.frozen.as_ref().is_some_and(Freeze::is_resolvable),
            outgoing: StreamView {
                incarnation: self.own(peer),
                epoch: self.identity.epoch,
                last: outgoing.next.previous(),
                published: entry.sending.published,
                received: outgoing.received,
                ranges: outgoing.ranges.iter().collect(),
                settled: outgoing.settled,
                forgotten: outgoing.forgotten,
            },
            incoming,
            resent: entry.sending.resent,
            duplicates: entry.receiving.duplicates,
            open_work: streams.work.len() as u64,
            heard_ms_ago: entry.receiving.heard.map(|heard| at.0.saturating_sub(heard.0)),
            presence: entry.receiving.presence.clone(),
        })
    }
}
