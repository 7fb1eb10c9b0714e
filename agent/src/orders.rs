//! What a message from the server means to this agent: a run to begin, an order to a run, an order to the agent, or the reason to
//! refuse it. Everything of a batch is one transaction. An order that means nothing any more is settled and said in the log, so
//! that any of them may come again without harm.

use std::sync::PoisonError;

use journal::{Journal, ReadError, put_app};
use link::session::Transaction;
use link::{SubmitError, Work, WorkItem, wall_ms};
use messages::{AgentDrain, Body, EndpointId, RefusalCode, RunId, RunStart, from_msgpack};
use tokio::sync::watch;

use crate::control::{Control, Orders, ignored};
use crate::execute::begin_at_once;
use crate::records::{RunRecord, encode};
use crate::slots::Slot;
use crate::worker::Worker;

/// Runs that wait for a slot or are under way. More are refused with a reason.
const RUNS_OPEN_MAX: usize = 1_000;
/// The name of the row that says whether the server wants no new runs here.
const DRAIN: &[u8] = b"drain";
/// The name of the row that names the one run of an agent that does one.
const ONLY: &[u8] = b"only";

/// What the whole agent was told, as far as the journal says.
#[derive(Debug, Clone, Default)]
pub(crate) struct Standing {
    /// The server wants no new runs here.
    pub(crate) drain: Option<AgentDrain>,
    /// The first run that this agent took while it does one only.
    pub(crate) only: Option<RunId>,
}

impl Standing {
    /// Reads it from the journal. A row of a later version that cannot be read is as good as none, and said.
    pub(crate) fn load(journal: &Journal) -> Result<Self, ReadError> {
        let mut standing = Self::default();
        journal.app_rows(DRAIN, &mut |_, bytes| match from_msgpack(bytes) {
            Ok(drain) => standing.drain = Some(drain),
            Err(error) => tracing::error!(%error, "The row that says whether this agent is drained cannot be read."),
        })?;
        journal.app_rows(ONLY, &mut |_, bytes| match from_msgpack(bytes) {
            Ok(run) => standing.only = Some(run),
            Err(error) => tracing::error!(%error, "The row that names this agent's one run cannot be read."),
        })?;
        Ok(standing)
    }

    pub(crate) fn drained(&self) -> bool {
        self.drain.as_ref().is_some_and(|drain| drain.draining)
    }
}

/// A run that was taken in a batch, or by an earlier process.
pub(crate) struct Taken {
    pub(crate) record: RunRecord,
    pub(crate) control: Control,
    /// Its slot, if its first step began with it, and when that is on stable storage.
    pub(crate) begun: Option<(Slot, watch::Receiver<bool>)>,
}

/// A batch as far as it is understood. Nothing of it is true before it is committed.
struct Batch {
    transaction: Transaction,
    taken: Vec<Taken>,
    ordered: Vec<(Control, Orders)>,
    standing: Standing,
    /// Becomes true when all of it is on stable storage.
    done: watch::Sender<bool>,
}

impl Worker {
    /// Takes a batch of messages in as one transaction, and returns when that has its place in the journal: whatever is journaled of
    /// the runs that it starts comes behind it. What is done in the world waits until it is on stable storage.
    pub(crate) async fn take(&self, work: Work) -> Result<Vec<Taken>, SubmitError> {
        let mut batch = Batch {
            transaction: Transaction::default(),
            taken: Vec::new(),
            ordered: Vec::new(),
            standing: self.standing().clone(),
            done: watch::Sender::new(false),
        };
        for item in &work.items {
            match self.understand(&work.peer, item, &mut batch) {
                Ok(true) => batch.transaction.apply.push(item.hold()),
                Ok(false) => batch.transaction.apply.push(item.settle()),
                Err((code, reason)) => {
                    tracing::warn!(peer = %work.peer, seq = %item.seq, ?code, %reason, "A message was refused.");
                    let (applied, refusal) = item.refuse(self.message_id(), code, &reason);
                    batch.transaction.apply.push(applied);
                    batch.transaction.send.extend(refusal);
                }
            }
        }
        // Beginnings may wait for the ends that follow them. A refusal is waited for.
        batch.transaction.may_wait = batch.transaction.send.is_empty();
        self.begin_what_can(&mut batch);
        let Batch { transaction, taken, ordered, standing, done } = batch;
        let begun = self.endpoint().begin_checked(transaction).await?;
        *self.standing() = standing;
        self.runs().open.extend(taken.iter().map(|taken| (taken.record.start.run, taken.control.clone())));
        tokio::spawn(async move {
            // A journal that fails ends the endpoint, and whoever waits for this finds its sender gone.
            if begun.done().await.is_ok() {
                ordered.into_iter().for_each(|(control, orders)| control.give(orders));
                done.send_replace(true);
            }
        });
        Ok(taken)
    }

    /// Writes down the runs of a batch, and begins those that find a free slot; not one that the same batch cancels.
    fn begin_what_can(&self, batch: &mut Batch) {
        // Whoever came first begins first.
        let mut first = true;
        for taken in &mut batch.taken {
            let begun = (first && !taken.control.is_asked_to_end())
                .then(|| begin_at_once(self, &mut taken.record, &taken.control))
                .flatten();
            first &= begun.is_some();
            taken.begun = begun.map(|(slot, report)| {
                batch.transaction.send.push(report);
                (slot, batch.done.subscribe())
            });
            batch.transaction.rows.extend(taken.record.rows());
        }
    }

    /// Whether more comes of the message, or why it is refused.
    fn understand(&self, peer: &EndpointId, item: &WorkItem, batch: &mut Batch) -> Result<bool, (RefusalCode, String)> {
        let body = item.body.as_ref().map_err(|error| (RefusalCode::Message, error.to_string()))?;
        if *peer != EndpointId::Server {
            return Err((RefusalCode::Message, "an agent takes orders only from the server".to_owned()));
        }
        match body {
            Body::RunStart(start) | Body::RunRetry(start) => {
                self.admit(start, batch)?;
                let mut record = RunRecord::new(start.clone(), item.seq, item.message.header.id, wall_ms());
                record.progress.doubtful = item.doubtful;
                record.progress.losses = item.losses;
                let control = Control::new(Orders::default(), None, false);
                batch.taken.push(Taken { record, control, begun: None });
                return Ok(true);
            }
            Body::RunCancel(cancel) => self.order(cancel.run, "cancel", batch, |run| run.ask_cancel(cancel)),
            Body::RunDecide(decided) => self.order(decided.run, "decide", batch, |run| run.ask_decision(decided)),
            Body::AgentDrain(drain) => {
                batch.transaction.rows.push(put_app(DRAIN.to_vec(), encode(drain)));
                batch.standing.drain = Some(drain.clone());
            }
            Body::Refusal(refusal) => {
                tracing::error!(message = %refusal.message, reason = %refusal.reason, "The server refused a report.");
            }
            Body::StepChanged(_) | Body::RunFinished(_) | Body::RunRecalled(_) | Body::AgentFacts(_) => {
                return Err((RefusalCode::Message, "an agent takes orders, and this is a report".to_owned()));
            }
        }
        Ok(false)
    }

    /// Whether a new run is taken, or why not. That it is the only one of this agent's life is a part of taking it.
    fn admit(&self, start: &RunStart, batch: &mut Batch) -> Result<(), (RefusalCode, String)> {
        let refuse = |code, reason: &str| Err((code, reason.to_owned()));
        let runs = self.runs();
        let known = runs.open.contains_key(&start.run) || runs.ended.contains(start.run);
        if known || batch.taken.iter().any(|taken| taken.record.start.run == start.run) {
            return refuse(RefusalCode::Message, "this agent has that run already");
        }
        if runs.open.len() + batch.taken.len() >= RUNS_OPEN_MAX {
            let reason = format!("this agent has {RUNS_OPEN_MAX} runs already; it takes no more until some end");
            return refuse(RefusalCode::Full, &reason);
        }
        drop(runs);
        match self.refusing(&batch.standing) {
            Some((code, reason)) => return Err((code, reason)),
            None if self.once() => {
                batch.transaction.rows.push(put_app(ONLY.to_vec(), encode(&start.run)));
                batch.standing.only = Some(start.run);
            }
            None => {}
        }
        Ok(())
    }

    /// Why this agent takes no new runs now, if it does not.
    pub(crate) fn refusing(&self, standing: &Standing) -> Option<(RefusalCode, String)> {
        if self.once()
            && let Some(only) = standing.only
        {
            return Some((RefusalCode::OneRunOnly, format!("this agent does one run in its life, which is {only}")));
        }
        if self.leaving() {
            return Some((RefusalCode::Draining, "this agent finishes what it has and ends".to_owned()));
        }
        if let Some(drain) = standing.drain.as_ref().filter(|drain| drain.draining) {
            let why = if drain.note.is_empty() { String::new() } else { format!(": {}", drain.note) };
            return Some((RefusalCode::Draining, format!("this agent is drained{why}")));
        }
        self.disk().short().map(|reason| (RefusalCode::Disk, reason))
    }

    fn order(&self, run: RunId, what: &'static str, batch: &mut Batch, ask: impl FnOnce(&Control) -> Option<Orders>) {
        let taken = batch.taken.iter().find(|taken| taken.record.start.run == run).map(|taken| taken.control.clone());
        let Some(control) = taken.or_else(|| self.runs().open.get(&run).cloned()) else {
            return ignored(run, what);
        };
        match ask(&control) {
            Some(orders) => {
                batch.transaction.rows.push(RunRecord::orders_row(run, &orders));
                batch.ordered.push((control, orders));
            }
            None => ignored(run, what),
        }
    }

    pub(crate) fn standing(&self) -> std::sync::MutexGuard<'_, Standing> {
        // It is only ever replaced as a whole.
        self.standing_cell().lock().unwrap_or_else(PoisonError::into_inner)
    }
}
