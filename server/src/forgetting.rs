//! Forgetting the oldest jobs that are over, beyond the limit: many in one commit, whose sync nobody waits for who wants the turn. Their
//! logs go after that, away from the threads that serve others. It never forgets a job that is not over.

use journal::Change;
use link::session::Transaction;
use messages::{JobId, RunId};

use crate::api::{SubmitError, Submitted};
use crate::books::Books;
use crate::core::Core;
use crate::records::{JobRow, RunRow};

/// Rows that one commit deletes at most, the last job's beyond it: so many more that a sync for them costs little, and few enough to
/// hold nobody up.
const ROWS_AT_ONCE: usize = 4_096;

/// Jobs that are forgotten together.
#[derive(Debug, Default)]
struct Oldest {
    jobs: Vec<JobId>,
    runs: Vec<RunId>,
    rows: Vec<Change>,
}

impl Oldest {
    /// The oldest jobs beyond the limit, as many as one commit takes.
    fn of(books: &Books) -> Self {
        let mut oldest = Self::default();
        for (job, runs) in books.to_forget() {
            if oldest.rows.len() >= ROWS_AT_ONCE {
                break;
            }
            oldest.rows.push(Change::DeleteApp(JobRow::key(job)));
            oldest.rows.extend(runs.iter().map(|run| Change::DeleteApp(RunRow::key(*run))));
            oldest.jobs.push(job);
            oldest.runs.extend(runs);
        }
        oldest
    }
}

impl Core {
    /// Forgets the oldest jobs beyond the limit, with their runs and logs.
    pub(crate) async fn forget_oldest(&self) {
        while !self.books().to_forget().is_empty() {
            let turn = self.turn().await;
            // Others may have forgotten some of them while this waited.
            let Oldest { jobs, runs, rows } = Oldest::of(&self.books());
            let Ok(begun) = self.endpoint().begin_checked(Transaction { rows, ..Transaction::default() }).await else {
                return;
            };
            // Its place in the journal is settled, so the books may show it before it is synced.
            let ahead = self.kept_books().ahead();
            jobs.into_iter().for_each(|job| self.books().forget(job));
            drop(turn);
            if begun.done().await.is_err() {
                return;
            }
            ahead.kept();
            self.forget_logs(runs).await;
        }
    }

    async fn forget_logs(&self, runs: Vec<RunId>) {
        let logs = self.logs().clone();
        let removing = move || {
            for run in runs {
                if let Err(error) = logs.forget(run) {
                    tracing::warn!(%run, %error, "The logs of a forgotten run could not be removed.");
                }
            }
        };
        if let Err(error) = tokio::task::spawn_blocking(removing).await {
            tracing::error!(%error, "Removing the logs of forgotten runs ended badly.");
        }
    }

    /// What whoever submitted a job is told of it: what it has come to, or that it has come and gone.
    pub(crate) async fn submitted(&self, id: JobId, created: bool) -> Result<Submitted, SubmitError> {
        let job = self.view(id).await?.ok_or(SubmitError::Forgotten { id })?;
        Ok(Submitted { created, job })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use journal::put_app;

    use super::*;
    use crate::books::ENDED_JOBS_MAX;
    use crate::submit::tests::server;

    /// Jobs beyond the limit.
    const EXCESS: u128 = 20;

    /// How many commits the journal in that folder has synced.
    fn commits(dir: &std::path::Path) -> u64 {
        let mark = std::fs::read(dir.join("server/journal/tail")).unwrap();
        u64::from_le_bytes(mark[5..13].try_into().unwrap())
    }

    fn over(id: u128) -> JobRow {
        JobRow {
            id: JobId::from_u128(id),
            name: "n".parse().unwrap(),
            definition: String::new(),
            params: std::collections::BTreeMap::new(),
            created_ms: 0,
            policy: None,
            since: None,
            unassigned: false,
            cancelled: Some("enough".to_owned()),
            retry: None,
        }
    }

    #[tokio::test]
    async fn many_jobs_are_forgotten_in_one_commit_with_their_rows_and_logs() {
        let dir = tempfile::tempdir().unwrap();
        let (core, service, _stop) = server(dir.path()).await;
        let mut rows = Vec::new();
        for id in 1..=EXCESS + ENDED_JOBS_MAX as u128 {
            let job = over(id);
            if id <= EXCESS + 1 {
                rows.push(put_app(JobRow::key(job.id), job.encode()));
            }
            core.books().put_job(job);
        }
        let (first, agent) = (JobId::from_u128(1), "a1".parse().unwrap());
        let run = RunRow::waiting(RunId::from_u128(1), first, agent, crate::submit::message_id(), Vec::new());
        let run = RunRow { state: crate::views::RunState::Succeeded, ..run };
        rows.push(put_app(RunRow::key(run.id), run.encode()));
        let logs = dir.path().join("logs").join(run.id.to_string());
        std::fs::create_dir_all(&logs).unwrap();
        core.books().replace(run);
        core.endpoint().transact(Transaction { rows, ..Transaction::default() }).await.unwrap();
        let before = commits(dir.path());
        core.taken_in().await;
        assert_eq!(commits(dir.path()) - before, 1);
        assert!(!logs.exists() && core.books().run(RunId::from_u128(1)).is_none());
        assert!(core.books().job(JobId::from_u128(EXCESS)).is_none());
        assert!(core.books().job(JobId::from_u128(EXCESS + 1)).is_some());
        let written = Books::load(&service.journal).unwrap();
        assert_eq!(written.ids().collect::<Vec<_>>(), [JobId::from_u128(EXCESS + 1)]);
        assert!(written.run(RunId::from_u128(1)).is_none());
        // Nothing more is to be forgotten, and nothing is committed for it.
        core.taken_in().await;
        assert_eq!(commits(dir.path()) - before, 1);
    }

    #[tokio::test]
    async fn whoever_asks_for_a_job_that_was_forgotten_meanwhile_is_told_so() {
        let dir = tempfile::tempdir().unwrap();
        let (core, _service, _stop) = server(dir.path()).await;
        let gone = JobId::from_u128(7);
        let told = core.submitted(gone, false).await;
        assert!(matches!(told, Err(SubmitError::Forgotten { id }) if id == gone), "{told:?}");
    }
}
