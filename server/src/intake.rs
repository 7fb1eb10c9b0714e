//! Taking in what agents report. A batch of messages, the runs they change and the answers to them are one transaction.

use std::collections::BTreeMap;

use journal::put_app;
use link::session::Transaction;
use link::{SubmitError, Work, WorkItem, wall_ms};
use messages::{AgentId, Body, EndpointId, MessageId, RefusalCode, RunId};
use uuid::Uuid;

use crate::books::Books;
use crate::core::Core;
use crate::records::{JobRow, ReportError, RunRow};

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
                    tracing::warn!(peer = %work.peer, seq = %item.seq, %reason, "A message was refused.");
                    let (applied, refusal) = item.refuse(MessageId::new(Uuid::now_v7()), RefusalCode::Message, &reason);
                    transaction.apply.push(applied);
                    transaction.send.extend(refusal);
                }
            }
        }
        for item in &work.items {
            // A job that this journal does not remember having taken: it was lost, and its agent still knows of it.
            if let Ok(Body::RunRecalled(recalled)) = &item.body
                && changed.contains_key(&recalled.start.run)
                && books.job(recalled.start.job).is_none()
            {
                let job = JobRow::recalled(&recalled.start, wall_ms());
                transaction.rows.push(put_app(JobRow::key(job.id), job.encode()));
                books.recall(job);
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
        Body::RunRecalled(recalled) => {
            match editable(books, agent, recalled.start.run, changed) {
                // What is known of it here may be from before its end.
                Ok(run) => match &recalled.end {
                    Some(end) if !run.state.is_settled() => {
                        run.finished(end, wall_ms()).map_err(|error| error.to_string())
                    }
                    Some(_) | None => Ok(()),
                },
                Err(_) if books.run(recalled.start.run).is_some() => Err("that run is another agent's".to_owned()),
                Err(_) => {
                    let run = RunRow::recalled(agent, recalled, wall_ms());
                    changed.insert(run.id, run);
                    Ok(())
                }
            }
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
        Body::AgentFacts(_) => Ok(()),
        Body::RunStart(_) | Body::RunCancel(_) | Body::RunDecide(_) | Body::AgentDrain(_) => {
            Err("agents do not give orders".to_owned())
        }
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use messages::{
        ChainHash, Epoch, Header, Incarnation, JobId, Message, RunEnd, RunFinished, Seq, StepChanged, StepEvent,
    };

    use super::*;
    use crate::records::StepRow;
    use crate::views::{RunState, StepState};

    fn books() -> Books {
        let job = JobRow {
            id: JobId::from_u128(1),
            name: "n".into(),
            definition: String::new(),
            params: BTreeMap::new(),
            created_ms: 1,
        };
        let step = StepRow {
            id: "one".parse().unwrap(),
            effect: "once".into(),
            state: StepState::Pending,
            attempt: 0,
            detail: None,
            started_ms: None,
            ended_ms: None,
        };
        let run = RunRow {
            id: RunId::from_u128(2),
            job: job.id,
            agent: "a1".parse().unwrap(),
            message: MessageId::from_u128(3),
            state: RunState::Sent,
            reason: None,
            steps: vec![step],
            ended_ms: None,
        };
        let mut books = Books::default();
        books.expect(job, vec![run]);
        books
    }

    fn item(from: &str, body: &Body) -> WorkItem {
        let (kind, bytes) = body.encode().unwrap();
        let header = Header::new(from.parse().unwrap(), EndpointId::Server, Incarnation::from_u128(1), Epoch::FIRST)
            .numbered(Seq::FIRST, ChainHash::START)
            .carrying(MessageId::from_u128(9), kind, None, &bytes);
        let message = Message::new(header, &bytes).unwrap();
        let body = Body::decode(kind, &bytes);
        WorkItem { seq: Seq::FIRST, message, at_ms: 0, body, doubtful: false, losses: 0 }
    }

    fn outcome(from: &str, body: &Body) -> Result<RunRow, String> {
        let (item, mut changed) = (item(from, body), BTreeMap::new());
        understand(&books(), &from.parse().unwrap(), &item, &mut changed)?;
        Ok(changed.remove(&RunId::from_u128(2)).unwrap())
    }

    #[test]
    fn an_agent_reports_only_on_its_own_runs() {
        let started = Body::StepChanged(StepChanged {
            run: RunId::from_u128(2),
            step: "one".parse().unwrap(),
            attempt: 1,
            event: StepEvent::Started,
            at_ms: 5,
            usage: None,
            outputs: BTreeMap::new(),
            note: None,
        });
        let finished = Body::RunFinished(RunFinished { run: RunId::from_u128(2), end: RunEnd::Succeeded, at_ms: 6 });
        assert_eq!(outcome("a1", &started).unwrap().state, RunState::Running);
        assert_eq!(outcome("a1", &finished).unwrap().state, RunState::Succeeded);
        for body in [started, finished] {
            assert!(outcome("a2", &body).unwrap_err().contains("not known"), "another agent's report was taken");
        }
    }

    #[test]
    fn only_the_agent_that_was_sent_a_run_can_refuse_it() {
        let refusal =
            |message| Body::Refusal(messages::Refusal { message, reason: "full".into(), code: RefusalCode::Message });
        let refused = outcome("a1", &refusal(MessageId::from_u128(3))).unwrap();
        assert_eq!((refused.state, refused.reason.as_deref()), (RunState::Refused, Some("full")));
        assert!(outcome("a2", &refusal(MessageId::from_u128(3))).is_err());
        assert!(outcome("a1", &refusal(MessageId::from_u128(4))).is_err());
    }
}
