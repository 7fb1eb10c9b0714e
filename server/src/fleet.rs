//! What is shown of agents and of the streams shared with them, made from what the endpoint knows. Pure.

use link::session::{PeerView, StreamView};
use link::{EndpointView, LinkState};
use messages::{AgentId, Seq};

use crate::pace::EndedLately;
use crate::records::AgentRow;
use crate::schedule::{self, AgentNow};
use crate::views::{AgentState, AgentView, DirectionView, LinkView, OutageView};

/// Milliseconds without word from an agent after which it is called unreachable: three of its heartbeats.
const UNREACHABLE_AFTER_MS: u64 = 30_000;

/// What is shown of an agent.
#[must_use]
pub(crate) fn agent_view(
    name: &AgentId,
    view: Option<&EndpointView>,
    runs_active: u64,
    row: &AgentRow,
    now_ms: u64,
) -> AgentView {
    let streams = view.map(|view| &view.streams);
    let presence = streams.and_then(|streams| streams.presence.clone()).unwrap_or_default();
    let heard_ms_ago = streams.and_then(|streams| streams.heard_ms_ago);
    let frozen_reason = streams.and_then(|streams| streams.frozen.clone());
    let state = match (&frozen_reason, heard_ms_ago) {
        (Some(_), _) => AgentState::Frozen,
        (None, Some(ago)) if ago <= UNREACHABLE_AFTER_MS => AgentState::Online,
        (None, Some(_)) => AgentState::Unreachable,
        (None, None) if streams.is_some_and(|streams| streams.incoming.is_some()) => AgentState::Unreachable,
        (None, None) => AgentState::NeverSeen,
    };
    let lag = streams.map_or(0, |streams| {
        let beyond: u64 = streams.outgoing.ranges.iter().map(|(from, to)| to.value() - from.value() + 1).sum();
        Seq::count(streams.outgoing.last) - Seq::count(streams.outgoing.received) - beyond
    });
    AgentView {
        name: name.clone(),
        state,
        slots: presence.slots,
        slots_free: presence.slots_free,
        draining: presence.draining || row.draining.is_some(),
        paused: row.draining.clone().or_else(|| row.paused.clone()),
        refusing: presence.refusing.map(|code| schedule::word(code).to_owned()),
        pool: row.facts.as_ref().and_then(|facts| facts.pool.clone()),
        labels: row.facts.as_ref().map(|facts| facts.labels.clone()).unwrap_or_default(),
        version: presence.version,
        seen_ms: heard_ms_ago.map(|ago| now_ms.saturating_sub(ago)),
        runs_active,
        lag,
        frozen_reason,
        frozen_advice: streams.and_then(|streams| streams.advice.clone()),
    }
}

/// What the scheduler is to know of an agent.
#[must_use]
pub(crate) fn agent_now(streams: &PeerView) -> AgentNow {
    let presence = streams.presence.clone().unwrap_or_default();
    AgentNow {
        online: streams.heard_ms_ago.is_some_and(|ago| ago <= UNREACHABLE_AFTER_MS),
        frozen: streams.frozen.is_some(),
        slots: presence.slots,
        draining: presence.draining,
        refusing: presence.refusing,
        server_short: false,
        lately: EndedLately::new(),
    }
}

/// What is shown of the streams that any endpoint shares with a peer.
#[must_use]
pub fn link_view(view: &EndpointView, state: &LinkState, now_ms: u64) -> LinkView {
    let streams = &view.streams;
    let outgoing = DirectionView {
        published: Seq::count(streams.outgoing.published),
        confirmed: Seq::count(view.confirmed),
        ..direction(&streams.outgoing)
    };
    // What was resent after an outage is what was counted until the next one began.
    let ends = state.outages.iter().skip(1).map(|outage| outage.resent_before).chain([state.resent]);
    let mut outages: Vec<OutageView> = state
        .outages
        .iter()
        .zip(ends)
        .map(|(outage, end)| OutageView {
            from_ms: outage.from_ms,
            to_ms: outage.to_ms,
            resent: end.saturating_sub(outage.resent_before),
        })
        .collect();
    outages.reverse();
    LinkView {
        peer: streams.peer.clone(),
        outgoing,
        incoming: streams.incoming.as_ref().map(direction).unwrap_or_default(),
        resent: streams.resent,
        duplicates: streams.duplicates,
        outages,
        frozen: streams.frozen.clone(),
        advice: streams.advice.clone(),
        seen_ms: streams.heard_ms_ago.map(|ago| now_ms.saturating_sub(ago)),
        broker_connected: state.connected,
    }
}

fn direction(stream: &StreamView) -> DirectionView {
    let mut gaps = Vec::new();
    let mut next = Seq::count(stream.received) + 1;
    for (from, to) in &stream.ranges {
        if next < from.value() {
            gaps.push((next, from.value() - 1));
        }
        next = to.value() + 1;
    }
    DirectionView {
        incarnation: Some(stream.incarnation),
        epoch: Some(stream.epoch.value()),
        last_seq: Seq::count(stream.last),
        published: 0,
        confirmed: 0,
        received: Seq::count(stream.received),
        settled: Seq::count(stream.settled),
        forgotten: Seq::count(stream.forgotten),
        gaps,
    }
}
