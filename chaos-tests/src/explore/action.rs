//! What can happen next in a world, in words that a person can follow.

use std::fmt;

use super::parts::Parts;
use super::scope::Side;
use super::world::World;

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
        /// Its journal was copied just before it changed. Copying at any earlier moment since its last change gives the same copy.
        copied: bool,
        /// Its process dies after the commit and before anything that was to follow it.
        dies: bool,
    },
    /// A process dies while it does nothing. To die in the middle of a commit that is then lost is the same: nothing of it
    /// was seen.
    Crash {
        /// Whose.
        side: Side,
        /// Its journal was copied before: opening it changes it.
        copied: bool,
    },
    /// The process dies, and its journal is replaced by the copy. If none was made, it is one that was made since its last change.
    Restore(Side),
    /// The broker loses everything. Each side loses its connection with it or not.
    Wipe {
        /// Which sides lose it.
        cuts: [bool; 2],
    },
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
            Self::Crash { side, copied } => {
                let copy = if *copied { "the journal is copied; " } else { "" };
                write!(f, "{copy}{side:?} dies and starts again")
            }
            Self::Restore(side) => write!(f, "{side:?} is restored from the copy and starts again"),
            Self::Wipe { cuts: [server, agent] } => {
                let side = |cut: &bool| if *cut { "loses its connection" } else { "is not told" };
                write!(f, "the broker loses everything; Server {}, Agent {}", side(server), side(agent))
            }
            Self::Lose(side, at) => write!(f, "envelope {at} waiting for {side:?} is lost"),
            Self::Repeat(side) => write!(f, "the first envelope waiting for {side:?} is there once more, at the end"),
            Self::Swap(side, at) => write!(f, "envelopes {at} and {} waiting for {side:?} change places", at + 1),
            Self::Disconnect(side) => write!(f, "{side:?} loses its connection"),
        }
    }
}

impl Parts<'_> {
    /// What can happen next, as far as it must be looked at; see [`Self::alone`].
    pub(super) fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        actions.clear();
        let alone = self.alone(world);
        for side in Side::BOTH.into_iter().filter(|side| alone.is_none_or(|alone| alone == *side)) {
            self.actions_of(world, side, actions);
        }
        if world.left[0].wipes > 0 {
            let [server, agent] = world.ends.map(|end| self.end(end).offers.connected);
            for cuts in [[false, false], [true, false], [false, true], [true, true]] {
                if (server || !cuts[0]) && (agent || !cuts[1]) {
                    actions.push(Action::Wipe { cuts });
                }
            }
        }
    }

    /// The side that acts alone now.
    ///
    /// What one endpoint does and what happens to it commutes with what the other one does, but for the queues: one side adds
    /// to the end of a queue, the other takes from its front. So a side can be let act alone, and the other one later, while
    /// nothing that the other one does can make more possible for it: while something waits for it, and no timer of it is held
    /// up by a bound. Acting alone it comes to an end: it takes what waits. What concerns both at once, as a loss of everything does,
    /// and what looks at more of a queue than its front, rules this out for as long as it may still happen.
    pub(super) fn alone(&self, world: &World) -> Option<Side> {
        let all = self.scope.plain || world.wipes() > 0;
        Side::BOTH.into_iter().find(|side| !all && self.may_act_alone(world, *side))
    }

    fn may_act_alone(&self, world: &World, side: Side) -> bool {
        let (offers, left) = (self.end(world.ends[side.at()]).offers, world.left[side.at()]);
        let plain = left.losses == 0 && left.duplicates == 0 && left.reorders == 0;
        // A heartbeat and, in a patient world, a probe go off only when nothing waits, and something does.
        let held_up = offers.timers.any(self.scope) && self.has_said(world, side);
        plain && offers.connected && !world.queue(side).is_empty() && !held_up
    }

    /// Whether as many statuses of that side wait as a scope allows.
    pub(super) fn has_said(&self, world: &World, side: Side) -> bool {
        let under_way = world.queue(side.other());
        under_way.iter().filter(|flight| self.is_status(**flight)).count() >= usize::from(self.scope.statuses)
    }

    fn actions_of(&self, world: &World, side: Side, actions: &mut Vec<Action>) {
        let (offers, left) = (self.end(world.ends[side.at()]).offers, &world.left[side.at()]);
        let copying = left.rollbacks > 0 && world.copies[side.at()].is_none();
        let mut add = |step| {
            for (copied, dies) in [(false, false), (false, true), (true, false), (true, true)] {
                if (!copied || copying) && (!dies || left.crashes > 0) {
                    actions.push(Action::Do { side, step, copied, dies });
                }
            }
        };
        let (waiting, under_way) = (world.queue(side), world.queue(side.other()));
        if offers.connected && !waiting.is_empty() {
            add(Step::Deliver);
        }
        offers.alone().for_each(&mut add);
        if offers.connected && !self.has_said(world, side) {
            let quiet = waiting.is_empty() && under_way.is_empty();
            offers.timers.due(quiet, self.scope).for_each(&mut add);
        }
        if left.crashes > 0 {
            actions.push(Action::Crash { side, copied: false });
            actions.extend(copying.then_some(Action::Crash { side, copied: true }));
        }
        if left.rollbacks > 0 {
            actions.push(Action::Restore(side));
        }
        let waiting = u8::try_from(waiting.len()).unwrap_or(u8::MAX);
        if left.losses > 0 {
            actions.extend((0..waiting).map(|at| Action::Lose(side, at)));
        }
        if left.duplicates > 0 && waiting > 0 {
            actions.push(Action::Repeat(side));
        }
        if left.reorders > 0 {
            actions.extend((1..waiting).map(|at| Action::Swap(side, at - 1)));
        }
        if left.disconnects > 0 && offers.connected {
            actions.push(Action::Disconnect(side));
        }
    }
}
