//! What an endpoint could do next, as far as that depends on it alone. It is worked out once for each endpoint.

use super::action::Step;
use super::end::End;
use super::scope::{Scope, Side, TIMERS, id};

/// What an endpoint could do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Offers {
    pub(super) connected: bool,
    pub(super) submit: bool,
    pub(super) take: bool,
    pub(super) answer: bool,
    pub(super) read: bool,
    pub(super) read_short: bool,
    /// Timers that may go off as long as not too much was said.
    pub(super) timers: Timed,
}

/// The timers that are set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Timed {
    pub(super) status: bool,
    pub(super) heartbeat: bool,
    pub(super) ask: bool,
    pub(super) probe: bool,
}

impl Offers {
    pub(super) fn of(side: Side, end: &End, scope: &Scope) -> Self {
        let peer = id(side.other());
        let state = end.session.state().peers.get(&peer);
        let sent = state.map_or(0, |streams| streams.outgoing.next.value() - 1);
        let (status, probe) = end.session.timers(&peer);
        let load = end.loads.front();
        Self {
            connected: end.connected,
            submit: side == Side::Server && sent < scope.sends(side),
            take: end.session.unapplied(&peer).is_some(),
            answer: !end.held.is_empty(),
            read: load.is_some(),
            read_short: scope.short_reads && load.is_some_and(|(from, to)| from < to),
            timers: Timed {
                status: status == Some(TIMERS.status),
                heartbeat: status.is_some_and(|at| at != TIMERS.status) && probe.is_none(),
                ask: probe == Some(TIMERS.ask),
                probe: probe.is_some_and(|at| at != TIMERS.ask),
            },
        }
    }

    /// What it does by itself, whatever is under way.
    pub(super) fn alone(self) -> impl Iterator<Item = Step> {
        let steps = [
            (self.submit, Step::Submit),
            (self.take, Step::Take),
            (self.answer, Step::Answer),
            (self.read, Step::Read),
            (self.read_short, Step::ReadShort),
            (!self.connected, Step::Connect),
        ];
        steps.into_iter().filter_map(|(may, step)| may.then_some(step))
    }
}

impl Timed {
    /// The timers that may go off. Their number is what would make the world endless, so there are two bounds: none goes off
    /// while enough statuses of the same speaker wait, and a heartbeat, which is slower than everything else, comes only
    /// when nothing is on its way.
    pub(super) fn due(self, quiet: bool, scope: &Scope) -> impl Iterator<Item = Step> {
        let steps = [
            (self.status, Step::Status),
            (self.heartbeat && quiet, Step::Heartbeat),
            (self.ask, Step::Ask),
            (self.probe && (quiet || !scope.patient), Step::Probe),
        ];
        steps.into_iter().filter_map(|(may, step)| may.then_some(step))
    }

    /// Whether one may go off now or later while something is on its way.
    pub(super) const fn any(self, scope: &Scope) -> bool {
        self.status || self.ask || (self.probe && !scope.patient)
    }
}
