//! What can happen next in a world, in words that a person can follow.

use std::fmt;

use super::world::{Scope, Side, TIMERS, World, id};

/// What an endpoint does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Step {
    /// It connects to the broker.
    Connect,
    /// Its application submits the next message.
    Submit,
    /// Its application takes the next message that it is offered.
    Take,
    /// Its application answers the first message that it holds.
    Answer,
    /// The broker delivers what waits first.
    Deliver,
    /// It reads from its journal what it asked for.
    Read,
    /// It reads only the first of several messages.
    ReadShort,
    /// A status is due.
    Status,
    /// A probe is due at once.
    Ask,
    /// A probe is due whose delay is over.
    Probe,
    /// Nothing was said for long.
    Heartbeat,
}

/// One thing that happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// An endpoint does something, and what it writes is committed.
    Do {
        /// Which one.
        side: Side,
        /// What it does.
        step: Step,
        /// Its journal was copied just before. Copying at any earlier moment since its last change gives the same copy.
        copied: bool,
        /// Its process dies after the commit and before anything that was to follow it.
        dies: bool,
    },
    /// A process dies while it does nothing. To die in the middle of a commit that is then lost is the same: nothing of it
    /// was seen.
    Crash(Side),
    /// The process dies, and its journal is replaced by the copy.
    Restore(Side),
    /// The broker loses everything, and both connections with it.
    Wipe,
    /// The broker loses everything, and nobody is told.
    Purge,
    /// The envelope at that place of an endpoint's queue is lost.
    Lose(Side, u8),
    /// The first envelope in an endpoint's queue will come once more, after all others.
    Repeat(Side),
    /// The envelopes at that place and the next change places.
    Swap(Side, u8),
    /// An endpoint loses its connection.
    Disconnect(Side),
}

impl Action {
    /// Whether it takes something from the budget, or prepares that.
    #[must_use]
    pub const fn is_fault(self) -> bool {
        !matches!(self, Self::Do { copied: false, dies: false, .. })
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connect => "connects",
            Self::Submit => "submits a message",
            Self::Take => "hands a message to its application",
            Self::Answer => "answers a held message",
            Self::Deliver => "takes what waits first in its queue",
            Self::Read => "reads what is to be published from its journal",
            Self::ReadShort => "reads only the first of what is to be published",
            Self::Status => "sends a status that is due",
            Self::Ask => "sends a probe that is due at once",
            Self::Probe => "sends a probe whose delay is over",
            Self::Heartbeat => "sends a heartbeat",
        })
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Do { side, step, copied, dies } => {
                if *copied {
                    write!(f, "the journal of {side:?} is copied; ")?;
                }
                write!(f, "{side:?} {step}")?;
                if *dies { write!(f, ", commits, and dies before anything else") } else { Ok(()) }
            }
            Self::Crash(side) => write!(f, "{side:?} dies and starts again"),
            Self::Restore(side) => write!(f, "{side:?} is restored from the copy and starts again"),
            Self::Wipe => f.write_str("the broker is wiped; both connections are lost"),
            Self::Purge => f.write_str("both queues are purged silently"),
            Self::Lose(side, at) => write!(f, "envelope {at} waiting for {side:?} is lost"),
            Self::Repeat(side) => write!(f, "the first envelope waiting for {side:?} is there once more, at the end"),
            Self::Swap(side, at) => write!(f, "envelopes {at} and {} waiting for {side:?} change places", at + 1),
            Self::Disconnect(side) => write!(f, "{side:?} loses its connection"),
        }
    }
}

impl World {
    /// What can happen next, as far as it must be looked at.
    ///
    /// What one endpoint does and what happens to it commutes with what the other one does, but for the queues: one side adds
    /// to the end of a queue, the other takes from its front. So a side can be let act alone, and the other one later, while
    /// nothing that the other one does can make more possible for it: while something waits for it, and no timer of it is held
    /// up by a bound. Acting alone it comes to an end: it takes what waits. What concerns both at once, and what looks at
    /// more of a queue than its front, rules this out for as long as it may still happen.
    pub(super) fn actions(&self, scope: &Scope) -> Vec<Action> {
        let alone = Side::BOTH.into_iter().find(|side| self.left[0].wipes == 0 && self.may_act_alone(*side, scope));
        let mut actions = Vec::new();
        for side in Side::BOTH.into_iter().filter(|side| alone.is_none_or(|alone| alone == *side)) {
            self.actions_of(side, scope, &mut actions);
        }
        if self.left[0].wipes > 0 {
            actions.extend([Action::Wipe, Action::Purge]);
        }
        actions
    }

    fn may_act_alone(&self, side: Side, scope: &Scope) -> bool {
        let (end, left) = (self.end(side), &self.left[side.at()]);
        let plain = left.losses == 0 && left.duplicates == 0 && left.reorders == 0;
        let (status, probe) = end.session.timers(&id(side.other()));
        // A heartbeat and, in a patient world, a probe go off only when nothing waits, and something does.
        let probe = probe.is_some_and(|due| due == TIMERS.ask || !scope.patient);
        let timers = status == Some(TIMERS.status) || probe;
        plain && end.connected && !self.queues[side.at()].is_empty() && !(timers && self.has_said(side, scope))
    }

    /// Whether as many statuses of that side wait as a scope allows.
    fn has_said(&self, side: Side, scope: &Scope) -> bool {
        let under_way = &self.queues[side.other().at()];
        under_way.iter().filter(|flight| flight.is_status()).count() >= usize::from(scope.statuses)
    }

    fn actions_of(&self, side: Side, scope: &Scope, actions: &mut Vec<Action>) {
        let (end, left) = (self.end(side), &self.left[side.at()]);
        let copying = left.rollbacks > 0 && end.copy.is_none();
        for step in self.steps(side, scope) {
            for (copied, dies) in [(false, false), (false, true), (true, false), (true, true)] {
                if (!copied || copying) && (!dies || left.crashes > 0) {
                    actions.push(Action::Do { side, step, copied, dies });
                }
            }
        }
        let waiting = u8::try_from(self.queues[side.at()].len()).unwrap_or(u8::MAX);
        if left.crashes > 0 {
            actions.push(Action::Crash(side));
        }
        if left.rollbacks > 0 && end.copy.is_some() {
            actions.push(Action::Restore(side));
        }
        if left.losses > 0 {
            actions.extend((0..waiting).map(|at| Action::Lose(side, at)));
        }
        if left.duplicates > 0 && waiting > 0 {
            actions.push(Action::Repeat(side));
        }
        if left.reorders > 0 {
            actions.extend((1..waiting).map(|at| Action::Swap(side, at - 1)));
        }
        if left.disconnects > 0 && end.connected {
            actions.push(Action::Disconnect(side));
        }
    }

    fn steps(&self, side: Side, scope: &Scope) -> Vec<Step> {
        let (end, peer) = (self.end(side), id(side.other()));
        let mut steps = Vec::new();
        let state = end.session.state().peers.get(&peer);
        let sent = state.map_or(0, |streams| streams.outgoing.next.value() - 1);
        if side == Side::Server && sent < scope.sends(side) {
            steps.push(Step::Submit);
        }
        if end.session.unapplied(&peer).is_some() {
            steps.push(Step::Take);
        }
        if !end.held.is_empty() {
            steps.push(Step::Answer);
        }
        if let Some((from, to)) = end.loads.front() {
            steps.push(Step::Read);
            if scope.short_reads && from < to {
                steps.push(Step::ReadShort);
            }
        }
        if !end.connected {
            steps.push(Step::Connect);
            return steps;
        }
        let (waiting, under_way) = (&self.queues[side.at()], &self.queues[side.other().at()]);
        let said = self.has_said(side, scope);
        if !waiting.is_empty() {
            steps.push(Step::Deliver);
        }
        if !said {
            steps.extend(self.due(side, scope, waiting.is_empty() && under_way.is_empty()));
        }
        steps
    }

    /// The timers that may go off. Their number is what would make the world endless, so there are two bounds: none goes off
    /// while enough statuses of the same speaker wait, and a heartbeat, which is slower than everything else, comes only
    /// when nothing is on its way.
    fn due(&self, side: Side, scope: &Scope, quiet: bool) -> Vec<Step> {
        let (status, probe) = self.end(side).session.timers(&id(side.other()));
        let mut due = Vec::new();
        match status {
            Some(at) if at == TIMERS.status => due.push(Step::Status),
            Some(_) if quiet && probe.is_none() => due.push(Step::Heartbeat),
            Some(_) | None => {}
        }
        match probe {
            Some(at) if at == TIMERS.ask => due.push(Step::Ask),
            Some(_) if quiet || !scope.patient => due.push(Step::Probe),
            Some(_) | None => {}
        }
        due
    }
}
