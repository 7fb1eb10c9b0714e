//! Taking in what agents report. A batch of messages, the runs they change and the answers to them are one transaction; the
//! books change after it.

use std::collections::BTreeMap;

use journal::put_app;
use link::session::Transaction;
use link::{SubmitError, Work, WorkItem, wall_ms};
use messages::{AgentId, Body, EndpointId, MessageId, RunId};
use uuid::Uuid;

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
    let mut changed: BTreeMap<RunId, RunRow> = BTreeMap::new();
    let mut transaction = Transaction::default();
    for item in &work.items {
        match understand(core, &work.peer, item, &mut changed) {
            Ok(()) => transaction.apply.push(item.settle()),
            Err(reason) => {
                tracing::warn!(peer = %work.peer, seq = %item.message.header.seq, %reason, "A message was refused.");
                let (applied, refusal) = item.refuse(MessageId::new(Uuid::now_v7()), &reason);
                transaction.apply.push(applied);
                transaction.send.extend(refusal);
            }
        }
    }
    let rows = changed.values().map(|run| put_app(RunRow::key(run.id), run.encode()));
    transaction.rows.extend(rows);
    core.endpoint().transact(transaction).await?;
    core.changed(changed.into_values()).await;
    Ok(())
}

/// Works out what a message means, on copies of the runs. The error is the reason to refuse it.
fn understand(
    core: &Core,
    peer: &EndpointId,
    item: &WorkItem,
    changed: &mut BTreeMap<RunId, RunRow>,
) -> Result<(), String> {
    let body = item.body.as_ref().map_err(|error| error.to_string())?;
    let agent = peer.agent().ok_or("only agents report")?;
    match body {
        Body::StepChanged(report) => {
            let run = editable(core, agent, report.run, changed).map_err(|error| error.to_string())?;
            run.step_changed(report).map_err(|error| error.to_string())
        }
        Body::RunFinished(report) => {
            let run = editable(core, agent, report.run, changed).map_err(|error| error.to_string())?;
            run.finished(&report.end, wall_ms()).map_err(|error| error.to_string())
        }
        Body::Refusal(refusal) => {
            let known = core.run_of_message(refusal.message).filter(|run| run.agent == *agent);
            match known {
                Some(run) => {
                    changed.entry(run.id).or_insert(run).refused(&refusal.reason, wall_ms());
                    Ok(())
                }
                None => Err("the refused message started no run of this agent".to_owned()),
            }
        }
        Body::RunStart(_) => Err("agents do not start runs".to_owned()),
    }
}

fn editable<'a>(
    core: &Core,
    agent: &AgentId,
    run: RunId,
    changed: &'a mut BTreeMap<RunId, RunRow>,
) -> Result<&'a mut RunRow, ReportError> {
    use std::collections::btree_map::Entry;
    match changed.entry(run) {
        Entry::Occupied(entry) => Ok(entry.into_mut()),
        Entry::Vacant(entry) => {
            let known = core.run(run).filter(|row| row.agent == *agent);
            known.map(|row| entry.insert(row)).ok_or(ReportError::UnknownRun { run })
        }
    }
}
