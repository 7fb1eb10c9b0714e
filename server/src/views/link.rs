//! How the journals of two endpoints stand to each other, as the API shows it and as an endpoint says it of itself. The watermarks are never mixed: each
//! allows something else.

use messages::{EndpointId, Incarnation};
use serde::{Deserialize, Serialize};

/// Both streams between an endpoint and a peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkView {
    /// The other end.
    pub peer: EndpointId,
    /// The stream to it.
    pub outgoing: DirectionView,
    /// The stream from it.
    pub incoming: DirectionView,
    /// Messages sent again since this process started, in all outages.
    pub resent: u64,
    /// Messages that came more than once since this process started, and were dropped.
    pub duplicates: u64,
    /// The latest outages, the latest first.
    pub outages: Vec<OutageView>,
    /// Why the streams are frozen.
    pub frozen: Option<String>,
    /// What state they are in then, and what to do.
    #[serde(default)]
    pub advice: Option<String>,
    /// When the peer was last heard from, by this end's clock.
    #[serde(default)]
    pub seen_ms: Option<u64>,
    /// Whether the broker can be reached now.
    pub broker_connected: bool,
}

/// One stream. A number is the highest place that has that mark, without gaps up to it; 0 means none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirectionView {
    /// The sender's journal, when it is known.
    pub incarnation: Option<Incarnation>,
    /// The opening of that journal, when it is known.
    pub epoch: Option<u64>,
    /// The highest place that was given out.
    pub last_seq: u64,
    /// Given to the broker. Outgoing only.
    pub published: u64,
    /// The broker took it. Good for flow control and nothing else. Outgoing only.
    pub confirmed: u64,
    /// On the receiver's stable storage.
    pub received: u64,
    /// The final outcome is durable on both sides.
    pub settled: u64,
    /// The other side will never ask again.
    pub forgotten: u64,
    /// Places missing at the receiver between what it has: first and last.
    pub gaps: Vec<(u64, u64)>,
}

/// A time without the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutageView {
    /// When it began.
    pub from_ms: u64,
    /// When it ended, or nothing while it lasts.
    pub to_ms: Option<u64>,
    /// Messages sent again after it.
    pub resent: u64,
}
