//! Carrying out an action: the session is fed as its driver feeds it, the changes are written, and only then the effects
//! follow. It judges nothing but what cannot be seen in the world afterwards.

use std::sync::Arc;

use journal::{Change, Direction, WriteAhead};
use link::session::{Applied, DeliveryTag, Disposition, Effects, Input, Millis, Now, Outbound, Publish, Transaction};
use messages::{Envelope, Frame, Kind, MessageId, Seq};

use super::action::{Action, Step};
use super::plant::Plant;
use super::violation::Violation;
use super::world::{Copy, End, Flight, Scope, Side, TIMERS, World, id};

/// A delivery has the same tag every time: one is under way at a time, and it is decided before the next.
const TAG: DeliveryTag = DeliveryTag { connection: 0, tag: 0 };

/// What a step makes of the world besides what the session asks for.
#[derive(Debug, Clone, Copy, Default)]
struct Aside {
    told: Option<Seq>,
    taken: Option<MessageId>,
    delivered: bool,
}

impl Flight {
    pub(super) fn is_status(&self) -> bool {
        matches!(self.carried(), Envelope::Status(_))
    }
}

impl World {
    /// The world after that action, in its normal form.
    ///
    /// # Errors
    /// [`Violation`]
    pub(super) fn after(&self, action: Action, scope: &Scope, plant: Option<Plant>) -> Result<Self, Violation> {
        let mut world = self.clone();
        let mut at = [Millis(0); 2];
        match action {
            Action::Do { side, step, copied, dies } => {
                if copied {
                    let end = world.end_mut(side);
                    let copy = Copy { disk: end.disk.clone(), told: end.told, taken: end.taken.clone() };
                    end.copy = Some(Arc::new(copy));
                }
                at[side.at()] = time(step);
                world.step(side, step, dies, scope, plant)?;
            }
            Action::Crash(side) => {
                world.left[side.at()].crashes -= 1;
                world.end_mut(side).restart(side, plant)?;
            }
            Action::Restore(side) => {
                world.left[side.at()].rollbacks -= 1;
                let end = world.end_mut(side);
                if let Some(copy) = end.copy.take() {
                    (end.disk, end.told, end.taken) = (copy.disk.clone(), copy.told, copy.taken.clone());
                    end.rolled_back = true;
                }
                end.restart(side, plant)?;
            }
            Action::Wipe => {
                world.left[0].wipes -= 1;
                world.queues.iter_mut().for_each(std::collections::VecDeque::clear);
                Side::BOTH.into_iter().for_each(|side| world.disconnect(side));
            }
            Action::Purge => {
                world.left[0].wipes -= 1;
                world.queues.iter_mut().for_each(std::collections::VecDeque::clear);
            }
            Action::Lose(side, place) => {
                world.left[side.at()].losses -= 1;
                world.queues[side.at()].remove(usize::from(place));
            }
            Action::Repeat(side) => {
                world.left[side.at()].duplicates -= 1;
                let first = world.queues[side.at()].front().cloned();
                world.queues[side.at()].extend(first);
            }
            Action::Swap(side, place) => {
                world.left[side.at()].reorders -= 1;
                world.queues[side.at()].swap(usize::from(place), usize::from(place) + 1);
            }
            Action::Disconnect(side) => {
                world.left[side.at()].disconnects -= 1;
                world.disconnect(side);
            }
        }
        world.normalize(at);
        Ok(world)
    }

    fn disconnect(&mut self, side: Side) {
        let end = self.end_mut(side);
        if std::mem::take(&mut end.connected) {
            let (changes, _) = end.session.handle(now(Millis(0)), Input::Disconnected).committed_elsewhere();
            debug_assert!(changes.is_empty());
        }
    }

    fn step(
        &mut self,
        side: Side,
        step: Step,
        dies: bool,
        scope: &Scope,
        plant: Option<Plant>,
    ) -> Result<(), Violation> {
        let (write, aside) = self.feed(side, step, scope, plant)?;
        let (changes, effects) = write.committed_elsewhere();
        if dies {
            self.left[side.at()].crashes -= 1;
            // With this defect it is the other way round: what was to follow is done, and the commit is lost.
            if plant == Some(Plant::EffectsBeforeCommit) {
                self.follow(side, effects, aside, plant)?;
            } else {
                self.write(side, &changes, aside, plant)?;
            }
            return self.end_mut(side).restart(side, plant);
        }
        self.write(side, &changes, aside, plant)?;
        self.follow(side, effects, aside, plant)
    }

    /// Tells the session what happens, or has it do what its application wants.
    fn feed(
        &mut self,
        side: Side,
        step: Step,
        scope: &Scope,
        plant: Option<Plant>,
    ) -> Result<(WriteAhead<Effects>, Aside), Violation> {
        let (peer, at) = (id(side.other()), now(time(step)));
        let input = match step {
            Step::Submit => return self.send(side, None, scope),
            Step::Answer => {
                let work = self.end(side).disk.streams(&peer).work;
                let open = work.iter().find(|(_, work)| work.answered.is_none()).map(|(seq, _)| *seq);
                return self.send(side, open, scope);
            }
            Step::Take => return self.take(side, plant),
            Step::Connect => {
                self.end_mut(side).connected = true;
                Input::Connected
            }
            Step::Status | Step::Probe | Step::Heartbeat => Input::TimedOut,
            Step::Read | Step::ReadShort => {
                let end = self.end_mut(side);
                let (from, to) = end.loads.pop_front().unwrap_or((Seq::FIRST, Seq::FIRST));
                let to = if step == Step::ReadShort { from } else { to };
                let places = (from.value()..=to.value()).filter_map(Seq::new);
                Input::Loaded(peer, places.filter_map(|seq| end.disk.message(Direction::Out, seq)).collect())
            }
            Step::Deliver => {
                let Some(flight) = self.queues[side.at()].front() else { return Err(Violation::Unreadable) };
                let input = Input::Delivered(TAG, Box::new(flight.envelope()));
                let aside = Aside { delivered: true, ..Aside::default() };
                return Ok((self.end_mut(side).session.handle(at, input), aside));
            }
        };
        Ok((self.end_mut(side).session.handle(at, input), Aside::default()))
    }

    fn send(
        &mut self,
        side: Side,
        answers: Option<Seq>,
        scope: &Scope,
    ) -> Result<(WriteAhead<Effects>, Aside), Violation> {
        let peer = id(side.other());
        let end = self.end_mut(side);
        let seq = end.disk.streams(&peer).outgoing.next;
        // What an application sends after a restart need not be what it would have sent before.
        let number = 1_000 * (1 + side.at() as u64) + 100 * u64::from(end.processes) + seq.value();
        let hold = answers.is_none() && seq.value() <= scope.sends(Side::Agent);
        let outbound = Outbound {
            to: peer,
            id: MessageId::from_u128(u128::from(number)),
            kind: Kind::Unknown(9),
            body: vec![u8::from(hold)],
            cause: None,
            answers,
        };
        let transaction = Transaction { send: vec![outbound], ..Transaction::default() };
        transact(side, end, transaction).map(|write| (write, Aside { told: Some(seq), ..Aside::default() }))
    }

    fn take(&mut self, side: Side, plant: Option<Plant>) -> Result<(WriteAhead<Effects>, Aside), Violation> {
        let peer = id(side.other());
        let end = self.end_mut(side);
        let offered = end.session.unapplied(&peer).map_or(Seq::FIRST, |(from, _)| from);
        let forgotten = plant == Some(Plant::OfferedAgain) && end.processes > 1;
        let seq = if forgotten { offered.previous().unwrap_or(offered) } else { offered };
        let Some(message) = end.disk.message(Direction::In, seq) else {
            return Err(Violation::OfferedUnwritten { side, seq });
        };
        if end.taken.contains(&message.header.id) {
            return Err(Violation::OfferedAgain { side, seq });
        }
        let taken = end.taken.len() as u64;
        if seq.value() != taken + 1 {
            return Err(Violation::OutOfOrder { side, seq, taken });
        }
        let disposition = if message.body() == [1] { Disposition::Hold } else { Disposition::Settle };
        let apply = vec![Applied { peer, seq, disposition }];
        let write = transact(side, end, Transaction { apply, ..Transaction::default() })?;
        Ok((write, Aside { taken: Some(message.header.id), ..Aside::default() }))
    }

    fn write(&mut self, side: Side, changes: &[Change], aside: Aside, plant: Option<Plant>) -> Result<(), Violation> {
        let end = self.end_mut(side);
        end.disk.write(changes).map_err(Violation::Illegal)?;
        end.taken.extend(aside.taken);
        if plant == Some(Plant::DroppedOnReceipt) {
            let peer = id(side.other());
            if let Some(received) = end.disk.streams(&peer).outgoing.received {
                let drop = Change::DropBodies(Direction::Out, peer, Seq::FIRST, received);
                end.disk.write(&[drop]).map_err(Violation::Illegal)?;
            }
        }
        Ok(())
    }

    /// What follows a commit.
    fn follow(&mut self, side: Side, effects: Effects, aside: Aside, plant: Option<Plant>) -> Result<(), Violation> {
        if aside.delivered {
            if !effects.acknowledge.contains(&TAG) && !effects.discard.contains(&TAG) {
                return Err(Violation::Undecided { side });
            }
            self.queues[side.at()].pop_front();
        }
        let end = self.end_mut(side);
        end.told = end.told.max(aside.told);
        end.loads.extend(effects.load.iter().map(|load| (load.from, load.to)));
        if !end.connected {
            return Ok(());
        }
        for Publish { frame, .. } in effects.publish {
            let frame = if let Some(plant) = plant { spoil(frame, plant)? } else { frame };
            let flight = Flight::new(&frame)?;
            self.check_claim(side, flight.carried())?;
            self.queues[side.other().at()].push_back(flight);
        }
        Ok(())
    }
}

fn transact(side: Side, end: &mut End, transaction: Transaction) -> Result<WriteAhead<Effects>, Violation> {
    let refused = |error: link::session::TransactError| Violation::Refused { side, why: error.to_string() };
    end.session.transact(now(Millis(0)), transaction).map_err(refused)
}

/// What a defect makes of what is published.
fn spoil(frame: Frame, plant: Plant) -> Result<Frame, Violation> {
    let Ok(Envelope::Status(mut status)) = messages::decode(frame.bytes().to_vec()) else { return Ok(frame) };
    match (plant, &mut status.receiving) {
        (Plant::SettledOnReceipt, Some(receiving)) => receiving.settled_through = receiving.through,
        (Plant::AnswersUnmarked, _) => status.answers = None,
        _ => {}
    }
    Frame::status(&status).map_err(|_| Violation::Unreadable)
}

const fn time(step: Step) -> Millis {
    match step {
        Step::Status => TIMERS.status,
        Step::Probe => TIMERS.probe,
        Step::Heartbeat => TIMERS.heartbeat,
        _ => Millis(0),
    }
}

const fn now(at: Millis) -> Now {
    Now { at, wall_ms: 0 }
}
