//! Carrying out an action in a world: what the endpoint makes of it is in its parts; here is what becomes of the queues, the budget and
//! the ledgers. It judges nothing but what an application is handed.

use super::action::Action;
use super::check::Ends;
use super::end::End;
use super::facts::all_is_well;
use super::flight::{Flight, Mark, Renaming};
use super::ledger::Journals;
use super::parts::{LedgersId, Local, Parts};
use super::scope::{Budget, Side};
use super::violation::Violation;
use super::world::World;

impl Parts<'_> {
    /// The world in which nothing has happened yet.
    pub(super) fn first(&mut self, left: [Budget; 2]) -> World {
        let ends = Side::BOTH.map(|side| self.add_end(side, End::new(side)));
        let ledgers = self.add_ledgers(Default::default());
        World { ends, copies: [None; 2], ledgers, left, queues: Default::default() }
    }

    /// Its endpoints, whole.
    pub(super) fn both(&self, world: &World) -> [End; 2] {
        world.ends.map(|end| self.whole(end))
    }

    fn journals(&self, world: &World) -> Journals<'_> {
        Journals(world.ends.map(|end| self.journal(end)))
    }

    /// Asks for every promise.
    ///
    /// # Errors
    /// [`Violation`]
    pub(super) fn check(&self, world: &World) -> Result<(), Violation> {
        let ledgers = self.ledgers(world.ledgers);
        let well = all_is_well(world.ends.map(|end| &self.end(end).facts), ledgers);
        if well && !self.scope.plain {
            return Ok(());
        }
        let [server, agent] = &self.both(world);
        let checked = Ends([server, agent]).check(ledgers);
        assert!(!well || checked.is_ok(), "the quick check overlooks something: {checked:?}");
        checked
    }

    /// Whether everything that can be wished for has come, and if so, whether a restored journal goes on under another name.
    pub(super) fn end_of(&self, world: &World) -> Option<bool> {
        if !world.ends.iter().all(|end| self.end(*end).facts.done) {
            return None;
        }
        let [server, agent] = &self.both(world);
        let ends = Ends([server, agent]);
        ends.is_at_its_end(self.ledgers(world.ledgers), self.scope).then(|| ends.is_healed())
    }

    /// Makes `after` the world after that action, in its normal form. Returns whether it is one: an action that copies a journal, or
    /// after which a process dies, is another one than without that only if it changes the journal.
    ///
    /// # Errors
    /// [`Violation`]
    pub(super) fn after(&mut self, world: &World, action: Action, after: &mut World) -> Result<bool, Violation> {
        after.become_like(world);
        match action {
            Action::Do { side, step, copied, dies } => {
                let flight = match step {
                    super::Step::Deliver => world.queue(side).first().map_or(Flight::NONE, |flight| flight.seen()),
                    _ => Flight::NONE,
                };
                let number = match step {
                    super::Step::Submit | super::Step::Answer => self.ledgers(world.ledgers).next_number(side),
                    _ => 0,
                };
                let local = Local::Do { step, dies, flight, number };
                if dies {
                    after.left[side.at()].crashes -= 1;
                }
                // To die after a step that changes nothing is to die while doing nothing.
                if (copied || dies) && !self.changes(side, world, Local::Do { step, dies: false, flight, number })? {
                    return Ok(false);
                }
                self.copy(world, after, side, copied);
                self.act(world, after, side, local)?;
            }
            Action::Crash { side, copied } => {
                after.left[side.at()].crashes -= 1;
                self.copy(world, after, side, copied);
                self.act(world, after, side, Local::Crash)?;
            }
            Action::Restore(side) => {
                after.left[side.at()].rollbacks -= 1;
                let copy = after.copies[side.at()].take().unwrap_or(self.end(world.ends[side.at()]).journal);
                self.act(world, after, side, Local::Restore(copy))?;
                after.queue_mut(side.other()).iter_mut().for_each(Flight::mark_lost_life);
                let mut ledgers = self.ledgers(after.ledgers).clone();
                ledgers.forget_life(self.journals(after), side);
                after.ledgers = self.add_ledgers(ledgers);
            }
            Action::Wipe { cuts } => {
                for (side, cut) in Side::BOTH.into_iter().zip(cuts) {
                    after.left[side.at()].wipes -= 1;
                    after.queue_mut(side).clear();
                    if cut {
                        self.act(world, after, side, Local::Disconnect)?;
                    }
                }
            }
            Action::Lose(side, place) => {
                after.left[side.at()].losses -= 1;
                after.queue_mut(side).remove(usize::from(place));
            }
            Action::Repeat(side) => {
                after.left[side.at()].duplicates -= 1;
                let first = world.queue(side).first().copied();
                after.queue_mut(side).extend(first);
            }
            Action::Swap(side, place) => {
                after.left[side.at()].reorders -= 1;
                after.queue_mut(side).swap(usize::from(place), usize::from(place) + 1);
            }
            Action::Disconnect(side) => {
                after.left[side.at()].disconnects -= 1;
                self.act(world, after, side, Local::Disconnect)?;
            }
        }
        self.normalize(after)?;
        Ok(true)
    }

    /// Whether that changes the journal.
    fn changes(&mut self, side: Side, world: &World, local: Local) -> Result<bool, Violation> {
        let before = world.ends[side.at()];
        let after = self.local(side, before, local)?.end;
        Ok(self.end(before).journal != self.end(after).journal)
    }

    fn copy(&self, world: &World, after: &mut World, side: Side, copied: bool) {
        if copied {
            after.copies[side.at()] = Some(self.end(world.ends[side.at()]).journal);
        }
    }

    fn act(&mut self, world: &World, after: &mut World, side: Side, local: Local) -> Result<(), Violation> {
        let (peer, before, probes) = (side.other(), world.ends[side.at()], self.end(world.ends[side.at()]).probes);
        let outcome = self.local(side, before, local)?;
        let (submitted, taken, consumed) = (self.submitted(&outcome), self.taken(&outcome), outcome.consumed);
        let renaming = outcome.renaming;
        after.ends[side.at()] = outcome.end;
        let come = if consumed && !after.queues[side.at()].is_empty() {
            Some(after.queues[side.at()].remove(0))
        } else {
            None
        };
        let fresh = after.queues[peer.at()].len();
        after.queues[peer.at()].extend(self.published(outcome.published));
        if !renaming.keeps(probes) {
            // What was just published has the new names already.
            self.rename(after, side, &renaming, fresh)?;
        }
        if taken.is_none() && submitted.is_none() && !come.is_some_and(Flight::of_lost_life) {
            return Ok(());
        }
        let mut ledgers = self.ledgers(after.ledgers).clone();
        if let Some((seq, message)) = taken {
            ledgers.hand(side, self.journal(before), seq, message)?;
        }
        if let Some((seq, told)) = submitted {
            ledgers.submitted(side, seq, told);
        }
        if let Some(flight) = come.filter(|flight| flight.of_lost_life()) {
            let message = self.parcel(flight).and_then(|parcel| parcel.message);
            ledgers.hear_of_lost_life(self.journals(after), side, message);
        }
        after.ledgers = self.add_ledgers(ledgers);
        Ok(())
    }

    /// A side has given its probes other places.
    fn rename(&mut self, after: &mut World, side: Side, renaming: &Renaming, fresh: usize) -> Result<(), Violation> {
        let peer = side.other();
        for flight in after.queues[peer.at()][..fresh].iter_mut() {
            flight.rename_probe(renaming);
        }
        for flight in after.queues[side.at()].iter_mut() {
            flight.rename_answer(renaming);
        }
        let owed = self.end(after.ends[peer.at()]).owed;
        let now = renaming.of(owed);
        if now != owed {
            after.ends[peer.at()] = self.local(peer, after.ends[peer.at()], Local::Owe(now))?.end;
        }
        Ok(())
    }

    /// Has both sides forget the probes that nobody can answer any more: that are neither on their way, nor owed, nor answered on the
    /// way.
    fn normalize(&mut self, world: &mut World) -> Result<(), Violation> {
        for side in Side::BOTH {
            let peer = side.other();
            let probes = self.end(world.ends[side.at()]).probes;
            if probes == 0 {
                continue;
            }
            let real = |queue: &[Flight], mark: fn(Flight) -> Mark| {
                queue.iter().fold(0, |bits, flight| bits | mark(*flight).bit())
            };
            let live = real(world.queue(peer), Flight::probe)
                | real(world.queue(side), Flight::answers)
                | self.end(world.ends[peer.at()]).owed.bit();
            if live == (1 << probes) - 1 {
                continue;
            }
            let outcome = self.local(side, world.ends[side.at()], Local::Keep(live))?;
            let (end, renaming) = (outcome.end, outcome.renaming);
            world.ends[side.at()] = end;
            let all = world.queue(peer).len();
            self.rename(world, side, &renaming, all)?;
        }
        Ok(())
    }

    /// Everything that a person needs to see what is wrong.
    pub(super) fn describe(&self, world: &World) -> String {
        use std::fmt::Write as _;
        let mut text = String::new();
        let ends = self.both(world);
        for side in Side::BOTH {
            let (end, peer) = (&ends[side.at()], super::scope::id(side.other()));
            let waiting: Vec<_> = world.queue(side).iter().map(|flight| self.envelope(*flight)).collect();
            // Writing to a string cannot fail.
            let _ = writeln!(
                text,
                "{side:?} {:?}, connected {}, heard {}, timers {:?}\n{:#?}\nwork in hand {:?}, taken {:?}\nwaiting {waiting:#?}",
                end.session.identity(),
                end.connected,
                end.session.heard(&peer),
                end.session.timers(&peer),
                end.disk.streams(&peer),
                end.held,
                end.taken,
            );
        }
        let LedgersId(_) = world.ledgers;
        let _ = writeln!(text, "submitted {:?}", self.ledgers(world.ledgers));
        text
    }
}
