//! What one endpoint makes of one step: the session is fed as its driver feeds it, the changes are written, and only then the
//! effects follow. All of it depends on that endpoint, on what it is handed and on nothing else in the world. It judges what can be
//! seen only here: what becomes of a delivery, what is said, and what a mark is believed for.

use journal::{Change, Direction, Outgoing, WriteAhead};
use link::session::{
    Applied, DeliveryTag, Disposition, Effects, Input, Millis, Outbound, Publish, Rewound, Transaction,
};
use messages::{Envelope, Frame, Kind, MessageId, ProbeId, Seq, Status};

use super::action::Step;
use super::check::check_claim;
use super::end::{End, now};
use super::flight::{DEAD, Letter, Mark, Renaming};
use super::ledger::{message_id, number_of};
use super::plant::Plant;
use super::scope::{Scope, Side, TIMERS, id};
use super::violation::Violation;

/// A delivery has the same tag every time: one is under way at a time, and it is decided before the next.
const TAG: DeliveryTag = DeliveryTag { connection: 0, tag: 0 };

/// What a step makes of an endpoint, and what the world has to see of it.
#[derive(Debug)]
pub(super) struct Acted {
    pub(super) end: End,
    /// Where its probes are now.
    pub(super) renaming: Renaming,
    pub(super) published: Vec<Letter>,
    /// The place of a message that is now in its journal, and whether whoever submitted it was told so.
    pub(super) submitted: Option<(Seq, bool)>,
    /// The message that its application was handed.
    pub(super) taken: Option<(Seq, MessageId)>,
    /// What was delivered is off its queue.
    pub(super) consumed: bool,
}

/// What a step makes of the world besides what the session asks for.
#[derive(Debug, Clone, Copy, Default)]
struct Aside {
    submitted: Option<Seq>,
    answered: Option<Seq>,
    taken: Option<(Seq, MessageId, bool)>,
    delivered: bool,
}

/// What an endpoint does, and all that this depends on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Acting<'a> {
    pub(super) side: Side,
    pub(super) step: Step,
    pub(super) dies: bool,
    /// What is delivered.
    pub(super) envelope: Option<&'a Envelope>,
    /// The number of the next message that it submits.
    pub(super) number: usize,
    pub(super) scope: &'a Scope,
    pub(super) plant: Option<Plant>,
}

impl Acting<'_> {
    /// Does it.
    ///
    /// # Errors
    /// [`Violation`]
    pub(super) fn act(self, end: End) -> Result<Acted, Violation> {
        let Self { side, step, dies, plant, .. } = self;
        let peer = id(side.other());
        let before = end.disk.streams(&peer).map(|streams| streams.outgoing.clone()).unwrap_or_default();
        let renaming = Renaming::keeping(std::iter::empty());
        let mut acted = Acted { end, renaming, published: Vec::new(), submitted: None, taken: None, consumed: false };
        let (write, aside) = self.feed(&mut acted.end)?;
        let (changes, effects) = write.committed_elsewhere();
        // With this defect a process that dies has done what was to follow the commit, and the commit is lost.
        let early = dies && plant == Some(Plant::EffectsBeforeCommit);
        if early {
            acted.submitted = aside.submitted.map(|seq| (seq, false));
        } else {
            self.write(&mut acted, &changes, aside)?;
            self.check_belief(&acted.end, &before)?;
        }
        if early || !dies {
            self.follow(&mut acted, effects, aside)?;
        }
        if dies {
            acted.end.restart(side, plant)?;
            return Ok(acted);
        }
        let open: Vec<_> = acted.end.session.probes(&peer).collect();
        let rename = |probe| open.iter().position(|open| *open == probe);
        let place = |probe| rename(probe).map(|place| ProbeId::new(place as u64));
        for letter in &mut acted.published {
            // What was forgotten again at once is as good as dead.
            letter.probe = letter.probe.map(|probe| place(probe).unwrap_or(DEAD));
        }
        let places = open.iter().filter_map(|probe| Mark::of(Some(*probe)).place());
        acted.renaming = Renaming::keeping(places.map(usize::from));
        acted.end.session.normalize(&peer, (time(step), TIMERS), place, |theirs| theirs);
        Ok(acted)
    }

    /// Tells the session what happens, or has it do what its application wants.
    fn feed(self, end: &mut End) -> Result<(WriteAhead<Effects>, Aside), Violation> {
        let (peer, at) = (id(self.side.other()), now(time(self.step)));
        let mut aside = Aside::default();
        let input = match self.step {
            Step::Submit => return self.send(end, None),
            Step::Answer => {
                let held = end.held.first().copied();
                return self.send(end, held);
            }
            Step::Take => return self.take(end),
            Step::Connect => {
                end.connected = true;
                Input::Connected
            }
            Step::Status | Step::Ask | Step::Probe | Step::Heartbeat => Input::TimedOut,
            Step::Read | Step::ReadShort => {
                let (from, to) = end.loads.pop_front().unwrap_or((Seq::FIRST, Seq::FIRST));
                let to = if self.step == Step::ReadShort { from } else { to };
                let places = (from.value()..=to.value()).filter_map(Seq::new);
                Input::Loaded(peer, places.filter_map(|seq| end.disk.message(Direction::Out, seq)).collect())
            }
            Step::Deliver => {
                aside.delivered = true;
                let envelope = self.envelope.cloned().ok_or(Violation::Unreadable)?;
                Input::Delivered(TAG, Box::new(envelope))
            }
        };
        Ok((end.session.handle(at, input), aside))
    }

    fn send(self, end: &mut End, answers: Option<Seq>) -> Result<(WriteAhead<Effects>, Aside), Violation> {
        let peer = id(self.side.other());
        let seq = end.disk.streams(&peer).map_or(Seq::FIRST, |streams| streams.outgoing.next);
        let hold = answers.is_none() && seq.value() <= self.scope.sends(Side::Agent);
        let outbound = Outbound {
            to: peer,
            id: message_id(self.side, self.number),
            kind: Kind::Unknown(9),
            body: vec![u8::from(hold)],
            cause: None,
            answers,
        };
        let transaction = Transaction { send: vec![outbound], ..Transaction::default() };
        self.transact(end, transaction)
            .map(|write| (write, Aside { submitted: Some(seq), answered: answers, ..Aside::default() }))
    }

    fn take(self, end: &mut End) -> Result<(WriteAhead<Effects>, Aside), Violation> {
        let (side, peer) = (self.side, id(self.side.other()));
        let offered = end.session.unapplied(&peer).map_or(Seq::FIRST, |(from, _)| from);
        let forgotten = self.plant == Some(Plant::OfferedAgain) && end.processes > 1;
        let seq = if forgotten { offered.previous().unwrap_or(offered) } else { offered };
        let Some(message) = end.disk.message(Direction::In, seq) else {
            return Err(Violation::OfferedUnwritten { side, seq });
        };
        let (held, message) = (message.body() == [1], message.header.id);
        // It is handed over before anything of it is committed: a process that dies in between was never seen to have it, since
        // applications begin nothing before their commit.
        let disposition = if held { Disposition::Hold } else { Disposition::Settle };
        let apply = vec![Applied { peer, seq, disposition }];
        let write = self.transact(end, Transaction { apply, ..Transaction::default() })?;
        Ok((write, Aside { taken: Some((seq, message, held)), ..Aside::default() }))
    }

    fn transact(self, end: &mut End, transaction: Transaction) -> Result<WriteAhead<Effects>, Violation> {
        let side = self.side;
        let refused = |error: link::session::TransactError| Violation::Refused { side, why: error.to_string() };
        end.session.transact(now(Millis(0)), transaction).map_err(refused)
    }

    fn write(self, acted: &mut Acted, changes: &[Change], aside: Aside) -> Result<(), Violation> {
        let end = &mut acted.end;
        if let Some((seq, message, held)) = aside.taken {
            acted.taken = Some((seq, message));
            end.taken.extend(number_of(self.side.other(), message));
            end.held.extend(Some(seq).filter(|_| held));
        }
        acted.submitted = aside.submitted.map(|seq| (seq, false));
        end.held.retain(|seq| Some(*seq) != aside.answered);
        end.disk.write(changes).map_err(Violation::Illegal)?;
        if self.plant == Some(Plant::DroppedOnReceipt) {
            let peer = id(self.side.other());
            if let Some(received) = end.disk.streams(&peer).and_then(|streams| streams.outgoing.received) {
                let drop = Change::DropBodies(Direction::Out, peer, Seq::FIRST, received);
                end.disk.write(&[drop]).map_err(Violation::Illegal)?;
            }
        }
        Ok(())
    }

    /// What follows a commit.
    fn follow(self, acted: &mut Acted, effects: Effects, aside: Aside) -> Result<(), Violation> {
        let (side, peer) = (self.side, id(self.side.other()));
        if aside.delivered {
            if !effects.acknowledge.contains(&TAG) && !effects.discard.contains(&TAG) {
                return Err(Violation::Undecided { side });
            }
            acted.consumed = true;
        }
        if let Some((_, told)) = &mut acted.submitted {
            *told = true;
        }
        let end = &mut acted.end;
        if effects.rewound.contains(&Rewound::Own(peer.clone())) {
            let work = end.disk.streams(&peer).map(|streams| &streams.work);
            end.held.retain(|seq| work.is_some_and(|work| work.contains_key(seq)));
        }
        end.loads.extend(effects.load.iter().map(|load| (load.from, load.to)));
        if !end.connected {
            return Ok(());
        }
        for Publish { frame, .. } in effects.publish {
            let frame = if let Some(plant) = self.plant { spoil(frame, plant)? } else { frame };
            let letter = Letter::new(&frame)?;
            check_claim(side, &end.disk, &letter.parcel.envelope)?;
            acted.published.push(letter);
        }
        Ok(())
    }

    /// A mark of what the other side has grows by what the status says that was just delivered, and by nothing else. Since no status
    /// says more than its journal holds, and the marks of a journal only grow, a belief is then never more than what is there, however
    /// far the other side has come.
    fn check_belief(self, end: &End, before: &Outgoing) -> Result<(), Violation> {
        let Some(after) = end.disk.streams(&id(self.side.other())).map(|streams| &streams.outgoing) else {
            return Ok(());
        };
        if (after.received, after.settled, &after.ranges) == (before.received, before.settled, &before.ranges) {
            return Ok(());
        }
        let said = match self.envelope {
            Some(Envelope::Status(Status { receiving, .. })) => receiving.as_ref(),
            _ => None,
        };
        let (through, settled) = said.map_or((None, None), |said| (said.through, said.settled_through));
        let there = |seq: Seq| {
            Some(seq) <= before.received.max(through)
                || before.ranges.contains(seq)
                || said.is_some_and(|said| said.ranges.contains(seq))
        };
        let ranges = after.ranges.iter().map(|(from, to)| (from.value(), to.value()));
        let mut believed = ranges.chain([(1, Seq::count(after.received))]).flat_map(|(from, to)| from..=to);
        let side = self.side;
        if !believed.all(|seq| Seq::new(seq).is_none_or(there)) {
            return Err(Violation::Belief { side, what: "received" });
        }
        if after.settled > before.settled.max(settled) {
            return Err(Violation::Belief { side, what: "settled" });
        }
        Ok(())
    }
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
        Step::Connect | Step::Submit | Step::Take | Step::Answer | Step::Deliver | Step::Read | Step::ReadShort => {
            Millis(0)
        }
    }
}
