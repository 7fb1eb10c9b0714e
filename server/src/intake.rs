//! Taking in what agents report. A batch of messages, the runs they change and the answers to them are one transaction.

use std::collections::BTreeMap;
use std::time::Instant;

use journal::{Change, put_app};
use link::session::Transaction;
use link::{SubmitError, Work, WorkItem, wall_ms};
use messages::{AgentId, Body, EndpointId, MessageId, RefusalCode, RunId, StepEvent};
use uuid::Uuid;

use crate::books::Books;
use crate::core::Core;
use crate::records::{AgentRow, JobRow, Policy, ReportError, RunRow};
use crate::tally::Stage;
use crate::views::RunState;

/// Batches taken in at a time. Different agents' batches do not touch the same runs.
pub(crate) const AT_A_TIME: usize = 8;

/// Takes in batches until the endpoint stops.
pub(crate) async fn run(core: Core) {
    while let Ok(work) = core.endpoint().next_work().await {
        if let Err(error) = take(&core, work).await {
            // The driver reports why it stopped; a refusal would be a defect here.
            if !matches!(error, SubmitError::Stopped | SubmitError::Journal(_)) {
                tracing::error!(%error, "Reports were refused that the books show already, which is a defect. The server ends; started again, it shows what is kept.");
            }
            return;
        }
    }
}

async fn take(core: &Core, work: Work) -> Result<(), SubmitError> {
    let mut transaction = Transaction::default();
    let turn = core.turn().await;
    let ahead = core.kept_books().ahead();
    {
        // The next batch of the same agent, which comes as soon as this one is handed over, must find in the books what this one says. Clients
        // are told of it when it is kept.
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
                books.put_job(job);
            }
        }
        let now = Instant::now();
        for run in changed.into_values() {
            if let (Stage::Over { .. }, Some(job)) = (Stage::of(run.state), books.job(run.job)) {
                core.pace().ended(&run.agent, &job.name, now);
            }
            transaction.rows.extend(put_run(&mut books, run));
        }
        for item in &work.items {
            transaction.rows.extend(note_facts(&mut books, &work.peer, item));
        }
    }
    for item in &work.items {
        if let (Ok(Body::Refusal(refusal)), Some(agent)) = (&item.body, work.peer.agent())
            && refusal.code.is_passing()
        {
            core.dispatching().cool(agent, refusal.code);
        }
    }
    let begun = core.endpoint().begin(transaction).await?;
    drop(turn);
    begun.done().await?;
    ahead.kept();
    core.taken_in().await;
    Ok(())
}

/// Takes a run's new row into the books. A run that its agent put off, and that any agent may do, is to be made anew.
fn put_run(books: &mut Books, run: RunRow) -> Vec<Change> {
    let for_one = |job: &JobRow| job.policy.as_ref().is_some_and(Policy::is_for_one);
    if run.state == RunState::Waiting
        && let Some(job) = books.job(run.job).filter(|job| for_one(job)).cloned()
    {
        let job = JobRow { unassigned: job.cancelled.is_none(), ..job };
        let rows = vec![Change::DeleteApp(RunRow::key(run.id)), put_app(JobRow::key(job.id), job.encode())];
        books.remove_run(run.id);
        books.put_job(job);
        return rows;
    }
    let row = put_app(RunRow::key(run.id), run.encode());
    books.replace(run);
    vec![row]
}

/// Takes in what an agent says that it is.
fn note_facts(books: &mut Books, peer: &EndpointId, item: &WorkItem) -> Option<Change> {
    let (Ok(Body::AgentFacts(facts)), Some(agent)) = (&item.body, peer.agent()) else { return None };
    let row = books.agent(agent).cloned().unwrap_or_default();
    let row = AgentRow { facts: Some(facts.clone()), ..row };
    let change = put_app(AgentRow::key(agent), row.encode());
    books.put_agent(agent.clone(), row);
    Some(change)
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
            if matches!(report.event, StepEvent::Undecided(_)) {
                tracing::warn!(%agent, job = %run.job, run = %run.id, step = %report.step, "A step waits for a person: `longshore job resolve` says what became of it.");
            }
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
                    let run = changed.entry(run.id).or_insert_with(|| run.clone());
                    match run.cancelling.clone() {
                        Some(reason) if refusal.code.is_passing() && !run.given_up => {
                            run.end(RunState::Cancelled, Some(reason), wall_ms());
                        }
                        Some(_) | None if refusal.code.is_passing() => run.put_off(&refusal.reason),
                        Some(_) | None => run.refused(&refusal.reason, wall_ms()),
                    }
                    Ok(())
                }
                // An order that the agent did not understand, or one about a run that it has forgotten.
                None => Ok(()),
            }
        }
        Body::AgentFacts(_) => Ok(()),
        Body::RunStart(_) | Body::RunRetry(_) => Err("agents do not give work".to_owned()),
        Body::RunCancel(_) | Body::RunDecide(_) | Body::AgentDrain(_) => Err("agents do not give orders".to_owned()),
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
        ChainHash, Epoch, Header, Incarnation, JobId, Keep, Message, Program, RunEnd, RunFinished, RunStart, Seq,
        StepChanged, StepEvent, StepSpec,
    };

    use futures_util::FutureExt as _;

    use super::*;
    use crate::api::Desk as _;
    use crate::pace::EndedLately;
    use crate::records::StepRow;
    use crate::submit::tests::server;

    fn books() -> Books {
        let step = StepSpec::new("one".parse().unwrap(), Program::Shell("true".into()));
        let start = RunStart {
            run: RunId::from_u128(2),
            job: JobId::from_u128(1),
            name: "n".into(),
            steps: vec![step],
            timeout_ms: None,
            keep: Keep::default(),
            earlier: None,
        };
        let job = JobRow::recalled(&start, 1);
        let steps = start.steps.iter().map(StepRow::new).collect();
        let run = RunRow::waiting(start.run, job.id, "a1".parse().unwrap(), MessageId::from_u128(3), steps);
        let run = RunRow { state: RunState::Sent, ..run };
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
            unknown: false,
            silent: false,
        });
        let finished = Body::RunFinished(RunFinished { run: RunId::from_u128(2), end: RunEnd::Succeeded, at_ms: 6 });
        assert_eq!(outcome("a1", &started).unwrap().state, RunState::Running);
        assert_eq!(outcome("a1", &finished).unwrap().state, RunState::Succeeded);
        for body in [started, finished] {
            assert!(outcome("a2", &body).unwrap_err().contains("not known"), "another agent's report was taken");
        }
    }

    #[tokio::test]
    async fn a_report_is_shown_to_nobody_before_it_is_on_stable_storage_nor_ever_if_it_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let (core, _service, _stop) = server(dir.path()).await;
        *core.books() = books();
        let run = RunId::from_u128(2);
        let finished = Body::RunFinished(RunFinished { run, end: RunEnd::Succeeded, at_ms: 6 });
        let work = Work { peer: "a1".parse().unwrap(), items: vec![item("a1", &finished)] };
        let before = Instant::now();
        let mut taking = Box::pin(take(&core, work));
        assert!((&mut taking).now_or_never().is_none());
        let counted = core.pace().lately(before);
        assert_eq!(counted, [("a1".parse().unwrap(), EndedLately::from([("n".to_owned(), 1)]))]);
        assert_eq!(core.books().run(run).unwrap().state, RunState::Succeeded);
        assert!(core.kept().now_or_never().is_none(), "an answer said what was not kept");
        // No such message was received.
        assert!(matches!(taking.await, Err(SubmitError::Refused(_))));
        assert!(core.kept().await.is_err(), "an answer said what will never be kept");
        core.kept_books().lost().await;
    }

    #[test]
    fn only_the_agent_that_was_sent_a_run_can_refuse_it() {
        let refusal =
            |message| Body::Refusal(messages::Refusal { message, reason: "full".into(), code: RefusalCode::Message });
        let refused = outcome("a1", &refusal(MessageId::from_u128(3))).unwrap();
        assert_eq!((refused.state, refused.reason.as_deref()), (RunState::Refused, Some("full")));
        for (agent, message) in [("a2", 3), ("a1", 4)] {
            let body = refusal(MessageId::from_u128(message));
            let (item, mut changed) = (item(agent, &body), BTreeMap::new());
            understand(&books(), &agent.parse().unwrap(), &item, &mut changed).unwrap();
            assert_eq!(changed, BTreeMap::new(), "a refusal of {agent} was taken for a run's");
        }
    }
}
