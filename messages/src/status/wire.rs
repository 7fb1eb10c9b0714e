//! A status as it travels: what is as usual is left out, and what is the same twice is said once. Decides nothing.
#![allow(clippy::trivially_copy_pass_by_ref)] // serde calls functions with references

use serde::{Deserialize, Serialize};

use super::{Presence, Receiving, Sending, Status};
use crate::{ChainHash, EndpointId, Nonce, ProbeId, ProtocolVersion};

/// What a status means that names no version, whatever later builds speak.
const UNSAID_VERSION: ProtocolVersion = ProtocolVersion::new(1);
/// What a status means that names no window.
const UNSAID_WINDOW: u32 = 4_096;

#[derive(Clone, Serialize, Deserialize)]
pub(super) struct OnTheWire {
    #[serde(rename = "f", alias = "from")]
    from: EndpointId,
    #[serde(rename = "t", alias = "to")]
    to: EndpointId,
    #[serde(rename = "n", alias = "nonce")]
    nonce: Nonce,
    #[serde(
        rename = "v",
        alias = "version_min",
        default = "unsaid_version",
        skip_serializing_if = "is_unsaid_version"
    )]
    version_min: ProtocolVersion,
    #[serde(
        rename = "V",
        alias = "version_max",
        default = "unsaid_version",
        skip_serializing_if = "is_unsaid_version"
    )]
    version_max: ProtocolVersion,
    #[serde(rename = "s", alias = "sending")]
    sending: Sending,
    /// It sends toward the very journal that it receives from, which is not said again. Without one, or beside another, it means nothing.
    #[serde(rename = "b", default, skip_serializing_if = "std::ops::Not::not")]
    both_ways: bool,
    #[serde(rename = "r", alias = "receiving", default, skip_serializing_if = "Option::is_none")]
    receiving: Option<Receiving>,
    #[serde(rename = "w", alias = "window", default = "unsaid_window", skip_serializing_if = "is_unsaid_window")]
    window: u32,
    #[serde(rename = "p", alias = "probe", default, skip_serializing_if = "Option::is_none")]
    probe: Option<ProbeId>,
    #[serde(rename = "a", alias = "answers", default, skip_serializing_if = "Option::is_none")]
    answers: Option<ProbeId>,
    #[serde(rename = "z", alias = "frozen", default, skip_serializing_if = "std::ops::Not::not")]
    frozen: bool,
    #[serde(rename = "y", alias = "presence", default, skip_serializing_if = "Option::is_none")]
    presence: Option<Presence>,
}

impl From<Status> for OnTheWire {
    fn from(status: Status) -> Self {
        let Status { from, to, nonce, version_min, version_max, mut sending, receiving, window, .. } = status;
        let Status { probe, answers, frozen, presence, .. } = status;
        let peer = receiving.as_ref().map(|receiving| receiving.incarnation);
        let both_ways = peer.is_some() && sending.toward == peer;
        if both_ways {
            sending.toward = None;
        }
        Self {
            from,
            to,
            nonce,
            version_min,
            version_max,
            sending,
            both_ways,
            receiving,
            window,
            probe,
            answers,
            frozen,
            presence,
        }
    }
}

impl From<OnTheWire> for Status {
    fn from(wire: OnTheWire) -> Self {
        let OnTheWire { from, to, nonce, version_min, version_max, mut sending, both_ways, receiving, window, .. } =
            wire;
        let OnTheWire { probe, answers, frozen, presence, .. } = wire;
        if both_ways && sending.toward.is_none() {
            sending.toward = receiving.as_ref().map(|receiving| receiving.incarnation);
        }
        Self { from, to, nonce, version_min, version_max, sending, receiving, window, probe, answers, frozen, presence }
    }
}

const fn unsaid_version() -> ProtocolVersion {
    UNSAID_VERSION
}

fn is_unsaid_version(version: &ProtocolVersion) -> bool {
    *version == UNSAID_VERSION
}

const fn unsaid_window() -> u32 {
    UNSAID_WINDOW
}

const fn is_unsaid_window(window: &u32) -> bool {
    *window == UNSAID_WINDOW
}

/// The hash of a stream that is empty, or of which nothing is known: 32 zeros, which are not said.
pub(super) const fn start() -> ChainHash {
    ChainHash::START
}

pub(super) fn is_start(head: &ChainHash) -> bool {
    *head == ChainHash::START
}

pub(super) const fn is_zero(count: &u32) -> bool {
    *count == 0
}
