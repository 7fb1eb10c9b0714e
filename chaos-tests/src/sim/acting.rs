//! What a process does next: takes a delivery, commits, carries out effects, publishes, reads. In the order and under the rules of
//! the driver, one thing at a time, so that a fault can come between any two.

use std::collections::BTreeSet;
use std::sync::Arc;

use journal::{CommitError, Direction, WriteAhead};
use link::session::{DeliveryTag, Effects, Fault, Input, Load, Publish, Published, Rewound};
use messages::{EndpointId, Envelope, Seq, decode};

use super::broker::Item;
use super::checkers::{Observation, Promise, Stream};
use super::disk::DiskFault;
use super::node::{After, Bound, Process};
use super::planted::Planted;
use super::scenario::FaultClass;
use super::seat_of;
use super::world::{AskedState, Step, World, describe};

/// Bytes of messages read from a journal at a time.
const LOAD_BYTES_MAX: usize = 4 << 20;

impl World {
    /// The process of a node that an action was chosen for. Such a one runs.
    pub(crate) fn process(&mut self, n: usize) -> &mut Process {
        self.nodes[n].process.as_mut().expect("actions are chosen for running processes only")
    }

    /// Tells a session something, and puts what it answers on the way to the disk.
    pub(crate) fn input(&mut self, n: usize, input: Input) -> Step {
        let (at, wall_ms) = (self.at, self.wall_ms(n));
        let process = self.process(n);
        let write = process.session.handle(process.now(at, wall_ms), input);
        self.queue(n, write, After::Nothing)
    }

    /// Puts a write on the way to the disk.
    pub(crate) fn queue(&mut self, n: usize, write: WriteAhead<Effects>, after: After) -> Step {
        let write = write.with(after);
        let Some(planted) = self.planted else {
            self.process(n).pending.push_back(write);
            return Ok(());
        };
        let (changes, (effects, after)) = write.committed_elsewhere();
        let (changes, early, later) = planted.distort(changes, (effects, after));
        self.process(n).pending.push_back(WriteAhead::new(changes, later));
        early.map_or(Ok(()), |bound| self.carry_out(n, bound))
    }

    pub(crate) fn deliver(&mut self, n: usize) -> Step {
        let seat = self.nodes[n].seat;
        let Some((tag, item)) = self.broker.deliver(seat) else { return Ok(()) };
        if self.planted == Some(Planted::ClockForOrder) && self.clock_says_old(n, &item) {
            return self.carry_out(n, (Effects { acknowledge: vec![tag], ..Effects::default() }, After::Nothing));
        }
        match decode(item.bytes.to_vec()) {
            Ok(envelope) => {
                let envelope = self.distort_delivery(n, envelope);
                self.note(n, || format!("receives {}", summary(&envelope)));
                self.input(n, Input::Delivered(tag, Box::new(envelope)))
            }
            Err(error) => {
                self.note(n, || "receives bytes that are no envelope".to_owned());
                self.input(n, Input::Garbled(tag, error.into()))
            }
        }
    }

    /// Commits what waits, or the first part of it, as one batch.
    pub(crate) fn commit(&mut self, n: usize) -> Step {
        let waiting = self.process(n).pending.len();
        let count = 1 + self.rng.index(waiting);
        let process = self.process(n);
        let group = process.pending.drain(..count).collect();
        let mut failure = None;
        for result in process.writer.commit(group) {
            match result {
                Ok(bound) => process.done.push_back(bound),
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        process.commits += 1;
        match failure {
            Some(CommitError::Illegal(error)) => {
                return Err(self.violation(
                    Promise::P6,
                    "legal-changes",
                    format!("the journal of process {n} refuses: {error}"),
                ));
            }
            Some(error) => {
                self.note(n, || format!("stops: {}", describe(&error)));
                self.lose_power(n);
                return self.crash(n, "after a failed write");
            }
            None => {}
        }
        if self.rng.percent(6) {
            self.nodes[n].machine.mark = self.process(n).writer.mark();
        }
        self.numbered(n)?;
        let every = self.scenario.replay_every;
        let whole = self.process(n).commits.is_multiple_of(every);
        self.inspect(n, whole)
    }

    /// Shows the checkers what a journal and its session are in.
    pub(crate) fn inspect(&mut self, n: usize, whole: bool) -> Step {
        let Some(process) = &self.nodes[n].process else { return Ok(()) };
        let readable = self.nodes[n].machine.disk.fault() != Some(DiskFault::Dead);
        let replay = (whole && readable).then(|| process.replay());
        let session = process.pending.is_empty().then(|| process.session.state());
        let (config, written) = (&self.scenario.config, process.writer.state());
        let seen = Observation::Committed { node: n, config, session, written, replay: replay.as_ref() };
        self.checkers.see(self.at, &seen)
    }

    /// Shows the checkers what was numbered since they were last shown.
    pub(crate) fn numbered(&mut self, n: usize) -> Step {
        let from = self.nodes[n].seat;
        let Some(process) = &mut self.nodes[n].process else { return Ok(()) };
        let mut new = Vec::new();
        for (peer, streams) in &process.writer.state().peers {
            let known = process.numbered.entry(peer.clone()).or_insert_with(|| Seq::count(streams.outgoing.settled));
            let last = streams.outgoing.next.previous();
            if let (Some(first), Some(last)) = (Seq::new(*known + 1), last)
                && first <= last
            {
                let read = process.journal.messages(Direction::Out, peer, (first, last), usize::MAX);
                new.extend(read.unwrap_or_default());
                *known = last.value();
            }
        }
        for (seq, message) in new {
            self.counts.messages += 1;
            let stream = Stream { from, to: seat_of(&message.header.to), journal: message.header.incarnation };
            self.checkers.see(self.at, &Observation::Numbered { stream, seq, message: &message })?;
        }
        Ok(())
    }

    /// Carries out the oldest commit's effects.
    pub(crate) fn perform(&mut self, n: usize) -> Step {
        match self.process(n).done.pop_front() {
            Some(bound) => self.carry_out(n, bound),
            None => Ok(()),
        }
    }

    fn carry_out(&mut self, n: usize, (effects, after): Bound) -> Step {
        let Effects {
            publish,
            load,
            acknowledge,
            discard,
            offer,
            arrived: _,
            sealed: _,
            logs: _,
            faults,
            rewound,
            changed: _,
            may_wait: _,
        } = effects;
        let turned_away: BTreeSet<(EndpointId, Seq)> = faults.iter().filter_map(turned_away).collect();
        for publish in publish {
            self.claim(n, &publish)?;
            let process = self.process(n);
            if process.connection.is_some() {
                process.backlog.push_back(publish);
            }
        }
        for tag in acknowledge.into_iter().chain(discard) {
            self.settle(n, tag, &turned_away)?;
        }
        let process = self.process(n);
        process.loads.extend(load);
        process.durable.extend(offer);
        for fault in faults {
            self.complain(n, &fault)?;
        }
        for rewound in rewound {
            match rewound {
                Rewound::Own(peer) => self.reconsider(n, &peer),
                Rewound::Peers(EndpointId::Server) => self.recall(n)?,
                Rewound::Peers(EndpointId::Agent(_)) => {}
            }
        }
        self.after(n, after)
    }

    fn after(&mut self, n: usize, after: After) -> Step {
        match after {
            After::Nothing => Ok(()),
            After::Accepted(job) => self.accepted(job),
            After::Runs(jobs, stage) => {
                for job in jobs {
                    self.note(n, || format!("job {job} is {stage:?} on disk"));
                    if let Some(run) = self.process(n).app.runs.get_mut(&job) {
                        run.stage = stage;
                    }
                }
                Ok(())
            }
        }
    }

    /// The client is told that its job is taken.
    pub(crate) fn accepted(&mut self, job: u64) -> Step {
        self.note(0, || format!("answers that job {job} is taken"));
        if let Some(asked) = self.client.get_mut(&job)
            && asked.state != AskedState::Void
        {
            asked.state = AskedState::Acknowledged;
        }
        self.see(&Observation::Acknowledged { job })
    }

    /// Shows the checkers what a status says of the stream that its sender receives.
    fn claim(&mut self, n: usize, publish: &Publish) -> Step {
        if publish.what != Published::Status {
            return Ok(());
        }
        let seat = self.nodes[n].seat;
        let Ok(Envelope::Status(status)) = decode(publish.frame.bytes().to_vec()) else { return Ok(()) };
        let Some(claim) = &status.receiving else { return Ok(()) };
        let Some(process) = &self.nodes[n].process else { return Ok(()) };
        let durable = process.writer.state().peers.get(&status.to).and_then(|streams| streams.incoming.as_ref());
        let seen = Observation::Claimed { seat, peer: seat_of(&status.to), claim, durable };
        self.checkers.see(self.at, &seen)
    }

    fn settle(&mut self, n: usize, tag: DeliveryTag, turned_away: &BTreeSet<(EndpointId, Seq)>) -> Step {
        let seat = self.nodes[n].seat;
        let Some(item) = self.broker.settle(seat, tag) else { return Ok(()) };
        let Some((stream, seq)) = item.copy.and_then(|copy| self.copies.get(&copy).copied()) else { return Ok(()) };
        let (from, durable) = (self.nodes[stream.from].id.clone(), self.has(stream, seq));
        let turned_away = turned_away.contains(&(from, seq));
        self.see(&Observation::Settled { stream, seq, copy: item.copy, durable, turned_away })
    }

    fn complain(&mut self, n: usize, fault: &Fault) -> Step {
        self.note(n, || format!("says: {fault:?}"));
        if let Some((peer, seq)) = turned_away(fault) {
            let (from, to) = (seat_of(&peer), self.nodes[n].seat);
            self.see(&Observation::TurnedAway { from, to, seq })?;
        }
        let (peer, why) = match fault {
            Fault::Frozen { peer, freeze } => (peer, format!("stopped its streams: {freeze}")),
            Fault::Unreadable { peer, seq } => (peer, format!("cannot read its own message {seq}")),
            Fault::Superseding { peer, behind, .. } => (peer, format!("goes on under another name: {behind}")),
            Fault::PeerSuperseded { peer, .. } => (peer, "takes its peer's journal for lost or restored".to_owned()),
            Fault::PeerBehind { peer, .. } => (peer, "finds that its peer has less than it said".to_owned()),
            Fault::Truncated { peer, .. } => (peer, "misses messages that are settled".to_owned()),
            Fault::Garbled { .. }
            | Fault::Stranger { .. }
            | Fault::OutsideWindow { .. }
            | Fault::Unproven { .. }
            | Fault::Stale { .. } => return Ok(()),
        };
        self.counts.stopped += u64::from(matches!(fault, Fault::Frozen { .. }));
        let (seat, peer) = (self.nodes[n].seat, seat_of(peer));
        self.see(&Observation::Complained { seat, peer, why: &why })
    }

    /// Hands the oldest publish to the broker.
    pub(crate) fn send(&mut self, n: usize) -> Step {
        let Some(publish) = self.process(n).backlog.pop_front() else { return Ok(()) };
        let seat = self.nodes[n].seat;
        let alive = self.process(n).connection.is_some_and(|connection| self.broker.is_connected(seat, connection));
        if !alive {
            // Into a connection that is gone: it was never handed over.
            return Ok(());
        }
        let publish = self.distort_publish(n, publish);
        let to = seat_of(&publish.to);
        let bytes = publish.frame.bytes().to_vec();
        let who = self.nodes[n].id.as_str().to_owned();
        self.trace.said(&who, &bytes);
        self.note(n, || match decode(bytes.clone()) {
            Ok(envelope) => format!(
                "publishes {}{}",
                summary(&envelope),
                if matches!(publish.what, Published::Resent(_)) { ", again" } else { "" }
            ),
            Err(error) => format!("publishes something unreadable: {error}"),
        });
        let copy = match publish.what {
            Published::Message(seq) | Published::Resent(seq) => Some(self.hand_over(n, to, seq, &bytes)?),
            Published::Status | Published::Log => None,
        };
        let item = Item { bytes: Arc::new(bytes), copy, wall_ms: self.wall_ms(n) };
        let chance = |world: &mut Self, class| !world.calm && world.scenario.has(class) && world.rng.percent(4);
        let refused = if !self.broker.queues[to].declared || chance(self, FaultClass::Return) {
            Some((FaultClass::Return, "is returned"))
        } else if chance(self, FaultClass::Nack) {
            Some((FaultClass::Nack, "is refused"))
        } else {
            None
        };
        if let Some((class, what)) = refused {
            self.note(n, || format!("… which {what}"));
            *self.counts.faults.entry(class).or_default() += 1;
            return self.input(n, Input::Trouble(publish.to));
        }
        if chance(self, FaultClass::LossAfterConfirm) {
            self.note(usize::MAX, || "… which the broker confirms and loses".to_owned());
            *self.counts.faults.entry(FaultClass::LossAfterConfirm).or_default() += 1;
        } else {
            self.broker.enqueue(to, item);
        }
        self.confirmed(n, &publish);
        self.flush_fates()
    }

    fn hand_over(
        &mut self,
        n: usize,
        to: usize,
        seq: Seq,
        bytes: &[u8],
    ) -> Result<super::broker::CopyId, super::checkers::Violation> {
        let copy = self.broker.copy();
        let from = self.nodes[n].seat;
        let Ok(Envelope::Message(message)) = decode(bytes.to_vec()) else {
            return Err(self.violation(
                Promise::P1,
                "envelopes",
                format!("what was published as message {seq} is none"),
            ));
        };
        let stream = Stream { from, to, journal: message.header.incarnation };
        let received = self.incoming(to, &self.nodes[n].id.clone()).and_then(|row| row.mark_there(row.through));
        let window = self.nodes[n].config.window;
        if !self.handed.insert((stream, seq)) {
            self.counts.resent += 1;
        }
        self.copies.insert(copy, (stream, seq));
        self.see(&Observation::Handed { stream, seq, bytes, copy, received, window })?;
        Ok(copy)
    }

    /// Answers the oldest read of the journal, sometimes with only a part of it.
    pub(crate) fn load(&mut self, n: usize) -> Step {
        let Some(Load { peer, from, to }) = self.process(n).loads.pop_front() else { return Ok(()) };
        let most = if self.rng.percent(20) { self.rng.within(100, 2_000) } else { LOAD_BYTES_MAX as u64 };
        let most = usize::try_from(most).unwrap_or(LOAD_BYTES_MAX);
        match self.process(n).journal.messages(Direction::Out, &peer, (from, to), most) {
            Ok(messages) => {
                let messages = messages.into_iter().map(|(_, message)| message).collect();
                self.input(n, Input::Loaded(peer, messages))
            }
            Err(error) => {
                self.note(n, || format!("stops: {}", describe(&error)));
                self.crash(n, "it cannot read its journal")
            }
        }
    }

    pub(crate) fn timeout(&mut self, n: usize) -> Step {
        self.input(n, Input::TimedOut)
    }

    pub(crate) fn connect(&mut self, n: usize) -> Step {
        let seat = self.nodes[n].seat;
        if seat == 0 {
            for queue in &mut self.broker.queues {
                queue.declared = true;
            }
        }
        let connection = self.broker.connect(n, seat);
        self.process(n).connection = Some(connection);
        self.note(n, || "is connected".to_owned());
        self.input(n, Input::Connected)?;
        self.resend_blindly(n)
    }

    /// Notices that its connection is gone.
    pub(crate) fn notice(&mut self, n: usize) -> Step {
        self.note(n, || "notices that its connection is gone".to_owned());
        let process = self.process(n);
        process.connection = None;
        process.backlog.clear();
        self.input(n, Input::Disconnected)
    }

    /// What was not synced may be there afterwards, or only the first part of it.
    pub(crate) fn lose_power(&mut self, n: usize) {
        let unsynced = self.nodes[n].machine.disk.unsynced();
        let kept = self.rng.index(unsynced + 1);
        self.nodes[n].machine.disk.lose_power(kept);
    }

    /// A process ends at once. What was synced is on the disk; a client that waits is hung up on.
    pub(crate) fn crash(&mut self, n: usize, why: &str) -> Step {
        let Some(process) = self.nodes[n].process.take() else { return Ok(()) };
        self.note(n, || {
            format!("dies {why}, {} writes and {} effects under way", process.pending.len(), process.done.len())
        });
        self.nodes[n].last = Some(process.writer.state().clone());
        let seat = self.nodes[n].seat;
        if let Some(connection) = process.connection {
            self.broker.disconnect(seat, connection);
        }
        if seat == 0 {
            for asked in self.client.values_mut().filter(|asked| asked.state == AskedState::Waiting) {
                asked.state = AskedState::Unsent;
            }
        }
        self.flush_fates()
    }
}

fn turned_away(fault: &Fault) -> Option<(EndpointId, Seq)> {
    match fault {
        Fault::OutsideWindow { peer, seq } => Some((peer.clone(), *seq)),
        _ => None,
    }
}

/// An envelope in a few words.
fn summary(envelope: &Envelope) -> String {
    match envelope {
        Envelope::Message(message) => {
            let header = &message.header;
            let say = super::application::Say::decode(message.body());
            format!(
                "{} → {} message {} {}",
                header.from,
                header.to,
                header.seq,
                say.map_or_else(String::new, |say| format!("{say:?}"))
            )
        }
        Envelope::Status(status) => {
            let got = status.receiving.as_ref().map(|row| (Seq::count(row.through), Seq::count(row.settled_through)));
            let ranges = status.receiving.as_ref().map_or(0, |row| row.ranges.iter().count());
            let (has, settled) = got.unwrap_or_default();
            let mut words = format!(
                "{} → {} status: next {}, has {has}{}, settled {settled}",
                status.from,
                status.to,
                status.sending.next,
                if ranges > 0 { format!(" and {ranges} ranges") } else { String::new() }
            );
            if status.probe.is_some() {
                words.push_str(", asks");
            }
            if status.answers.is_some() {
                words.push_str(", answers");
            }
            if status.frozen {
                words.push_str(", stopped");
            }
            words
        }
        Envelope::Log(_) => "a log".to_owned(),
    }
}
