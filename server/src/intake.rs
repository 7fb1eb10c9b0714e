//! Taking in what agents report. A batch of messages, the runs they change and the answers to them are one transaction.

use std::collections::BTreeMap;

use journal::put_app;
use link::session::Transaction;
use link::{SubmitError, Work, WorkItem, wall_ms};
use messages::{AgentId, Body, EndpointId, MessageId, RunId};
use uuid::Uuid;

use crate::books::Books;
use crate::core::Core;
use crate::records::{ReportError, RunRow};

/// Batches taken in at a time. Different agents' batches do not touch the same runs.
pub(crate) const AT_A_TIME: usize = 8;

/// Takes in batches until the endpoint stops.
pub(crate) async fn run(core: Core) {
    while let Ok(work) = core.endpoint().next_work().await {
        if let Err(error) = take(&core, work).await {
            // The driver reports why it stopped; a refusal would be a defect here.
            if !matches!(error, SubmitError::Stopped | SubmitError::Journal(_)) {
                tracing::error!(%error, "A batch of reports was not taken in.");
            }
            return;
        }
    }
}

async fn take(core: &Core, work: Work) -> Result<(), SubmitError> {
    let mut transaction = Transaction::default();
    {
        // What the messages say is on stable storage already, so the books may show it before this transaction is. And the
        // next batch of the same agent, which comes as soon as this one is handed over, must find it there.
        let mut books = core.books();
        let mut changed: BTreeMap<RunId, RunRow> = BTreeMap::new();
        for item in &work.items {
            match understand(&books, &work.peer, item, &mut changed) {
                Ok(()) => transaction.apply.push(item.settle()),
                Err(reason) => {
                    tracing::warn!(peer = %work.peer, seq = %item.message.header.seq, %reason, "A message was refused.");
                    let (applied, refusal) = item.refuse(MessageId::new(Uuid::now_v7()), &reason);
                    transaction.apply.push(applied);
                    transaction.send.extend(refusal);
                }
            }
        }
        for run in changed.into_values() {
            transaction.rows.push(put_app(RunRow::key(run.id), run.encode()));
            books.replace(run);
        }
    }
    core.endpoint().transact(transaction).await?;
    core.taken_in().await;
    Ok(())
}

/// Works out what a message means, on copies of the runs. The error is the reason to refuse it.
fn understand(
    books: &Books,
    peer: &EndpointId,
    item: &WorkItem,
    changed: &mut BTreeMap<RunId, RunRow>,
) -> Result<(), String> {
    let body = item.body.as_ref().map_err(|error| error.to_string())?;
    let agent = peer.agent().ok_or("only agents report")?;
    match body {
        Body::StepChanged(report) => {
            let run = editable(books, agent, report.run, changed).map_err(|error| error.to_string())?;
            run.step_changed(report).map_err(|error| error.to_string())
        }
        Body::RunFinished(report) => {
            let run = editable(books, agent, report.run, changed).map_err(|error| error.to_string())?;
            run.finished(&report.end, wall_ms()).map_err(|error| error.to_string())
        }
        Body::Refusal(refusal) => {
            let known = books.run_of_message(refusal.message).filter(|run| run.agent == *agent);
            match known {
                Some(run) => {
                    changed.entry(run.id).or_insert_with(|| run.clone()).refused(&refusal.reason, wall_ms());
                    Ok(())
                }
                None => Err("the refused message started no run of this agent".to_owned()),
            }
        }
        Body::RunStart(_) => Err("agents do not start runs".to_owned()),
    }
}

fn editable<'a>(
    books: &Books,
    agent: &AgentId,
    run: RunId,
    changed: &'a mut BTreeMap<RunId, RunRow>,
) -> Result<&'a mut RunRow, ReportError> {
    use std::collections::btree_map::Entry;
    match changed.entry(run) {
        Entry::Occupied(entry) => Ok(entry.into_mut()),
        Entry::Vacant(entry) => {
            let known = books.run(run).filter(|row| row.agent == *agent);
            known.map(|row| entry.insert(row.clone())).ok_or(ReportError::UnknownRun { run })
        }
    }
}
