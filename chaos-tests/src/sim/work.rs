//! What the applications do next: take what they are offered, begin, do, report; and the client asks. What belongs together is one
//! transaction.

use journal::HeaderRow;
use link::session::{Applied, Disposition, Outbound, TransactError, Transaction};
use messages::{EndpointId, Kind, Message, MessageId, Seq};

use super::application::{Job, JobState, Run, Say, Shim, Stage, job_row, recalled_row, run_row};
use super::checkers::{Observation, Promise, Stream};
use super::node::After;
use super::planted::Planted;
use super::seat_of;
use super::world::{AskedState, Step, World};

/// The kind of all messages here. The protocol does not look at it.
const KIND: Kind = Kind::Unknown(9);

impl World {
    /// Gives the application what it may have now.
    pub(crate) fn offer(&mut self, n: usize, peer: usize) -> Step {
        let peer = self.nodes[n].peers[peer].clone();
        let most = self.rng.below(8);
        let offered = self.process(n).offer(&peer, most);
        let seat = self.nodes[n].seat;
        for (place, message) in &offered {
            let stream = Stream { from: seat_of(&peer), to: seat, journal: message.header.incarnation };
            let (seq, bytes) = (message.header.seq, message.frame.bytes());
            self.see(&Observation::Offered { node: n, stream, place: *place, seq, bytes })?;
        }
        self.process(n).inbox.entry(peer).or_default().extend(offered);
        Ok(())
    }

    /// Lets the application deal with the first messages that it was given.
    pub(crate) fn take(&mut self, n: usize, peer: usize) -> Step {
        let peer = self.nodes[n].peers[peer].clone();
        let waiting = self.process(n).inbox.get(&peer).map_or(0, |inbox| inbox.len());
        let count = 1 + self.rng.index(waiting);
        let taken: Vec<(Seq, Message)> = self
            .process(n)
            .inbox
            .get(&peer)
            .map(|inbox| inbox.iter().take(count).cloned().collect())
            .unwrap_or_default();
        let mut transaction = Transaction::default();
        let mut held = Vec::new();
        for (seq, message) in &taken {
            let seq = *seq;
            let disposition = if self.nodes[n].seat == 0 {
                self.book(&mut transaction, (seat_of(&peer), seq), message);
                Disposition::Settle
            } else {
                self.accept(n, &mut transaction, &mut held, (seq, message))
            };
            if self.planted == Some(Planted::RefusedBlocks) && matches!(disposition, Disposition::Refuse(_)) {
                // The application waits for somebody to mend the message.
                return Ok(());
            }
            transaction.apply.push(Applied { peer: peer.clone(), seq, disposition });
        }
        if let Some(inbox) = self.process(n).inbox.get_mut(&peer) {
            inbox.drain(..count);
        }
        self.note(n, || format!("takes up to message {} of {peer}", taken.last().map_or(0, |(last, _)| last.value())));
        if self.planted == Some(Planted::AppliedApart) {
            let apply = std::mem::take(&mut transaction.apply);
            self.transact(n, Transaction { apply, ..Transaction::default() }, After::Nothing)?;
        }
        self.transact(n, transaction, After::Runs(held, Stage::Held)).map(drop)
    }

    /// What the server makes of a report.
    fn book(&mut self, transaction: &mut Transaction, (agent, seq): (usize, Seq), message: &Message) {
        let Some(say) = Say::decode(message.body()) else { return };
        let (Say::Began { job }
        | Say::Ended { job, .. }
        | Say::Done { job }
        | Say::Unknown { job }
        | Say::Refused { job }
        | Say::Do { job, .. }) = say;
        // A job that the server does not know was taken by a journal that was lost, and its agent still knows of it.
        let taken = Job { agent, state: JobState::Sent };
        let known = self.process(0).app.jobs.entry(job).or_insert(taken);
        if known.agent != agent {
            return;
        }
        self.reports.insert((agent, seq), say);
        let Some(known) = self.process(0).app.jobs.get_mut(&job) else { return };
        known.state = known.state.after(say);
        transaction.rows.push(job_row(job, known));
    }

    /// What an agent makes of a message.
    fn accept(
        &mut self,
        n: usize,
        transaction: &mut Transaction,
        held: &mut Vec<u64>,
        (seq, message): (Seq, &Message),
    ) -> Disposition {
        let Some(Say::Do { job, once, refuse, steps }) = Say::decode(message.body()) else {
            return Disposition::Settle;
        };
        if refuse {
            let row = HeaderRow { refused: Some("no".to_owned()), ..HeaderRow::of(message, self.wall_ms(n)) };
            transaction.send.push(self.outbound(EndpointId::Server, Say::Refused { job }, Some(seq)));
            let said = Some(JobState::Refused);
            let run = Run { seq, once, stage: Stage::Over, said, doubtful: false, losses: 0, step: 0, steps };
            transaction.rows.push(run_row(job, &run));
            self.process(n).app.runs.insert(job, run);
            return Disposition::Refuse(Box::new(row));
        }
        if self.process(n).app.runs.contains_key(&job) {
            return Disposition::Settle;
        }
        let stream =
            self.process(n).session.state().peers.get(&EndpointId::Server).and_then(|peer| peer.incoming.as_ref());
        let (doubtful, losses) = stream.map_or((false, 0), |row| (Some(seq) <= row.doubtful, row.losses));
        let run = Run { seq, once, stage: Stage::Writing, said: None, doubtful, losses, step: 0, steps };
        transaction.rows.push(run_row(job, &run));
        self.process(n).app.runs.insert(job, run);
        held.push(job);
        Disposition::Hold
    }

    /// The next thing that is to be done for a run.
    pub(crate) fn work(&mut self, n: usize, job: u64) -> Step {
        let Some(run) = self.process(n).app.runs.get(&job).copied() else { return Ok(()) };
        match run.stage {
            Stage::Held if run.once && (run.doubtful || self.nodes[n].machine.attempts.contains(&job)) => {
                self.stage(n, job, Stage::Doubtful);
                Ok(())
            }
            Stage::Held => self.report(n, job, run, Say::Began { job }, Stage::Begun),
            Stage::Begun if self.takes_time(n, job, run) => Ok(()),
            Stage::Begun => {
                let (seat, Run { once, step, steps, .. }) = (self.nodes[n].seat, run);
                self.note(n, || match steps {
                    1 => format!("does job {job}"),
                    _ => format!("step {} of {steps} of job {job} ends", step + 1),
                });
                self.nodes[n].machine.attempts.insert(job);
                self.counts.executed += 1;
                self.stage(n, job, Stage::Finished);
                self.see(&Observation::Executed { seat, node: n, job, once, step, steps })
            }
            Stage::Finished if run.step + 1 < run.steps => {
                let (next, step) = (Run { step: run.step + 1, ..run }, run.step);
                self.report(n, job, next, Say::Ended { job, step }, Stage::Begun)
            }
            Stage::Finished => self.report(n, job, run, Say::Done { job }, Stage::Over),
            Stage::Doubtful if self.planted == Some(Planted::OnceAgain) => {
                self.stage(n, job, Stage::Begun);
                Ok(())
            }
            Stage::Doubtful => self.report(n, job, run, Say::Unknown { job }, Stage::Over),
            Stage::Unreported => {
                let send = vec![self.outbound(EndpointId::Server, Say::Done { job }, Some(run.seq))];
                self.stage(n, job, Stage::Writing);
                self.transact(n, Transaction { send, ..Transaction::default() }, After::Runs(vec![job], Stage::Over))
                    .map(drop)
            }
            Stage::Writing | Stage::Over => Ok(()),
        }
    }

    /// Whether the step has still to run for a while. It begins if it has not; the record of its end outlives the agent's process.
    fn takes_time(&mut self, n: usize, job: u64, run: Run) -> bool {
        let Some((shortest, longest)) = self.scenario.step_ms else { return false };
        let (at, key) = (self.at, (job, run.step));
        let shims = self.nodes[n].machine.shims.get_or_insert_default();
        if let Some(shim) = shims.get_mut(&key) {
            shim.over |= shim.due <= at;
            return !shim.over;
        }
        let due = at + self.rng.within(shortest, longest);
        shims.insert(key, Shim { due, over: false });
        self.note(n, || format!("step {} of {} of job {job} begins", run.step + 1, run.steps));
        true
    }

    /// What an agent makes of the news that its journal was lost or restored: what is over is over, the rest is in doubt.
    pub(crate) fn reconsider(&mut self, n: usize, peer: &EndpointId) {
        let process = self.process(n);
        let journal = process.journal.clone();
        process.app.reconsider(&journal, peer);
    }

    /// Tells a server that may have forgotten them how the runs ended that are known here.
    pub(crate) fn recall(&mut self, n: usize) -> Step {
        let process = self.process(n);
        let losses = process.journal.outgoing(&EndpointId::Server).ok().flatten().map_or(0, |row| row.losses);
        if losses == process.app.recalled {
            return Ok(());
        }
        process.app.recalled = losses;
        let ended: Vec<Say> = self
            .process(n)
            .app
            .runs
            .iter()
            .filter_map(|(job, run)| match run.said? {
                JobState::Done => Some(Say::Done { job: *job }),
                JobState::Unknown => Some(Say::Unknown { job: *job }),
                JobState::Refused => Some(Say::Refused { job: *job }),
                JobState::Sent | JobState::Began => None,
            })
            .collect();
        let send = ended.into_iter().map(|say| self.outbound(EndpointId::Server, say, None)).collect();
        let rows = vec![recalled_row(losses)];
        self.transact(n, Transaction { rows, send, ..Transaction::default() }, After::Nothing).map(drop)
    }

    fn stage(&mut self, n: usize, job: u64, stage: Stage) {
        if let Some(run) = self.process(n).app.runs.get_mut(&job) {
            run.stage = stage;
        }
    }

    /// Records a stage and reports it, as one.
    fn report(&mut self, n: usize, job: u64, run: Run, say: Say, stage: Stage) -> Step {
        let answers = (stage == Stage::Over).then_some(run.seq);
        let said = match say {
            Say::Done { .. } => Some(JobState::Done),
            Say::Unknown { .. } => Some(JobState::Unknown),
            Say::Do { .. } | Say::Began { .. } | Say::Ended { .. } | Say::Refused { .. } => run.said,
        };
        let step = run.step;
        let rows = vec![run_row(job, &Run { stage, said, ..run })];
        if let Some(run) = self.process(n).app.runs.get_mut(&job) {
            (run.said, run.step) = (said, step);
        }
        self.stage(n, job, Stage::Writing);
        if self.planted == Some(Planted::OutcomeApart) && matches!(say, Say::Done { .. }) {
            let rows = Transaction { rows, ..Transaction::default() };
            return self.transact(n, rows, After::Runs(vec![job], Stage::Unreported)).map(drop);
        }
        let send = vec![self.outbound(EndpointId::Server, say, answers)];
        if !self.transact(n, Transaction { rows, send, ..Transaction::default() }, After::Runs(vec![job], stage))? {
            // It is over by now: the news of that is on its way.
            self.stage(n, job, Stage::Over);
        }
        Ok(())
    }

    fn outbound(&mut self, to: EndpointId, say: Say, answers: Option<Seq>) -> Outbound {
        self.ids += 1;
        let filling = if matches!(say, Say::Do { .. }) { self.scenario.filling } else { 0 };
        let id = MessageId::from_u128(self.ids);
        Outbound { to, id, kind: KIND, body: say.encode(filling), cause: None, answers }
    }

    /// The client submits its next job, or submits again what was not answered.
    pub(crate) fn ask(&mut self) -> Step {
        let burst = if self.rng.percent(15) { self.rng.within(2, 12) } else { 1 };
        for _ in 0..burst {
            let unsent = self.client.iter().filter(|(_, asked)| asked.state == AskedState::Unsent);
            let unsent: Vec<u64> = unsent.map(|(job, _)| *job).collect();
            let Some(job) = unsent.get(self.rng.index(unsent.len())).copied() else { return Ok(()) };
            self.submit(job)?;
        }
        Ok(())
    }

    fn submit(&mut self, job: u64) -> Step {
        let Some(asked) = self.client.get(&job).copied() else { return Ok(()) };
        if self.process(0).app.jobs.contains_key(&job) {
            // A hang-up after the commit: it is the same job.
            return self.accepted(job);
        }
        let to = self.nodes[0].peers[asked.agent - 1].clone();
        let say = Say::Do { job, once: asked.once, refuse: asked.refuse, steps: asked.steps };
        let send = vec![self.outbound(to, say, None)];
        let known = Job { agent: asked.agent, state: JobState::Sent };
        let rows = vec![job_row(job, &known)];
        let transaction = Transaction { rows, send, admission: true, ..Transaction::default() };
        if self.transact(0, transaction, After::Accepted(job))? {
            self.note(0, || format!("takes job {job} for a{}", asked.agent));
            self.process(0).app.jobs.insert(job, known);
            if let Some(asked) = self.client.get_mut(&job)
                && asked.state == AskedState::Unsent
            {
                asked.state = AskedState::Waiting;
            }
        }
        Ok(())
    }

    /// Hands a transaction to the session. False when it was refused for a reason that may pass.
    fn transact(
        &mut self,
        n: usize,
        transaction: Transaction,
        after: After,
    ) -> Result<bool, super::checkers::Violation> {
        let (at, wall_ms) = (self.at, self.wall_ms(n));
        let process = self.process(n);
        match process.session.transact(process.now(at, wall_ms), transaction) {
            Ok(write) => self.queue(n, write, after).map(|()| true),
            Err(TransactError::OutboxFull { peer, waiting }) => {
                self.note(n, || format!("refuses work: {waiting} messages wait for {peer}"));
                self.ask_again_at = self.at + self.scenario.ask_again_ms;
                Ok(false)
            }
            // A journal that was restored hears that the work is settled before its application does.
            Err(TransactError::NotHeld { .. }) if self.changed.contains(&self.nodes[n].seat) => Ok(false),
            Err(error) => Err(self.violation(
                Promise::P1,
                "transactions",
                format!("process {n} is refused a transaction: {error}"),
            )),
        }
    }
}
