//! Carrying out an action: the session is fed as its driver feeds it, the changes are written, and only then the effects
//! follow. It judges nothing but what cannot be seen in the world afterwards.

use std::sync::Arc;

use journal::{Change, Direction, WriteAhead};
use link::session::{
    Applied, DeliveryTag, Disposition, Effects, Input, Millis, Now, Outbound, Publish, Rewound, Transaction,
};
use messages::{Envelope, Frame, Kind, MessageId, Seq};

use super::action::{Action, Step};
use super::ledger::{Known, message_id};
use super::plant::Plant;
use super::violation::Violation;
use super::world::{Copy, End, Flight, Scope, Side, TIMERS, World, id};

/// A delivery has the same tag every time: one is under way at a time, and it is decided before the next.
const TAG: DeliveryTag = DeliveryTag { connection: 0, tag: 0 };

/// What a step makes of the world besides what the session asks for.
#[derive(Debug, Clone, Copy, Default)]
struct Aside {
    submitted: Option<Seq>,
    answered: Option<Seq>,
    taken: Option<(Seq, MessageId, bool)>,
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
                    let copy = Copy { disk: end.disk.clone(), taken: end.taken.clone() };
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
                    (end.disk, end.taken) = (copy.disk.clone(), copy.taken.clone());
                    end.restored = Some(Known::of(&copy.disk.streams(&id(side.other()))));
                }
                end.restart(side, plant)?;
                world.queues[side.other().at()].iter_mut().for_each(|flight| flight.of_lost_life = true);
                world.forget_life(side);
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
                if let Some(seq) = aside.submitted {
                    self.ledgers[side.at()].submitted(seq);
                }
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
                let held = self.end(side).held.first().copied();
                return self.send(side, held, scope);
            }
            Step::Take => return self.take(side, plant),
            Step::Connect => {
                self.end_mut(side).connected = true;
                Input::Connected
            }
            Step::Status | Step::Ask | Step::Probe | Step::Heartbeat => Input::TimedOut,
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
        let number = self.ledgers[side.at()].next_number();
        let end = self.end_mut(side);
        let seq = end.disk.streams(&peer).outgoing.next;
        let hold = answers.is_none() && seq.value() <= scope.sends(Side::Agent);
        let outbound = Outbound {
            to: peer,
            id: message_id(side, number),
            kind: Kind::Unknown(9),
            body: vec![u8::from(hold)],
            cause: None,
            answers,
        };
        let transaction = Transaction { send: vec![outbound], ..Transaction::default() };
        transact(side, end, transaction)
            .map(|write| (write, Aside { submitted: Some(seq), answered: answers, ..Aside::default() }))
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
        let (held, message) = (message.body() == [1], message.header.id);
        // It is handed over before anything of it is committed: a process that dies in between was never seen to have it, since
        // applications begin nothing before their commit.
        let disposition = if held { Disposition::Hold } else { Disposition::Settle };
        let apply = vec![Applied { peer, seq, disposition }];
        let write = transact(side, end, Transaction { apply, ..Transaction::default() })?;
        Ok((write, Aside { taken: Some((seq, message, held)), ..Aside::default() }))
    }

    fn write(&mut self, side: Side, changes: &[Change], aside: Aside, plant: Option<Plant>) -> Result<(), Violation> {
        if let Some((seq, message, held)) = aside.taken {
            self.hand(side, seq, message)?;
            let number = self.number(side.other(), message);
            let end = self.end_mut(side);
            end.taken.extend(number);
            end.held.extend(Some(seq).filter(|_| held));
        }
        if let Some(seq) = aside.submitted {
            self.ledgers[side.at()].submitted(seq);
        }
        let end = self.end_mut(side);
        end.held.retain(|seq| Some(*seq) != aside.answered);
        end.disk.write(changes).map_err(Violation::Illegal)?;
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
            let flight = self.queues[side.at()].pop_front();
            if flight.is_some_and(|flight| flight.of_lost_life) {
                self.hear_of_lost_life(side.other());
            }
        }
        if aside.submitted.is_some() {
            self.ledgers[side.at()].told();
        }
        let end = self.end_mut(side);
        if effects.rewound.contains(&Rewound::Own(id(side.other()))) {
            let work = end.disk.streams(&id(side.other())).work;
            end.held.retain(|seq| work.contains_key(seq));
        }
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
        Step::Ask => TIMERS.ask,
        Step::Probe => TIMERS.probe,
        Step::Heartbeat => TIMERS.heartbeat,
        _ => Millis(0),
    }
}

const fn now(at: Millis) -> Now {
    Now { at, wall_ms: 0 }
}
