//! What clients of an API of jobs do in the benchmarks: they submit the smallest job there is, and see that it has ended. They know nothing of
//! who does it, and never start anybody.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use uuid::Uuid;

use super::BenchError;
use crate::live::{Api, FleetError, wait_for};

/// How long anything may take. Only reached when something is broken, or the machine is.
const LIMIT: Duration = Duration::from_secs(120);

/// How long the server is asked to wait for a job.
const WAIT_MS: u64 = 20_000;

/// The smallest job there is.
const JOB: &str = r#"name = "true"
target = { agents = ["bench-1"] }

[[step]]
id = "true"
exec = ["true"]
effect = "idempotent"
"#;

/// Clients of one API.
pub(super) struct Clients {
    api: Api,
}

impl Clients {
    /// Of that one.
    pub(super) const fn of(api: Api) -> Self {
        Self { api }
    }

    fn wait<T>(what: &str, look: impl FnMut() -> Option<T>) -> Result<T, BenchError> {
        wait_for(what, LIMIT, look).map_err(|error| FleetError::from(error).into())
    }

    /// How many jobs ended well, and how many otherwise.
    fn ended(&self) -> Option<(u64, u64)> {
        let answer = self.api.get("/v1/status").ok()?;
        let jobs = answer.get("jobs")?;
        let count = |state: &str| jobs.get(state).and_then(Value::as_u64);
        Some((count("succeeded")?, count("failed")? + count("cancelled")? + count("needs_decision")?))
    }

    /// Submits that many jobs over so many connections, and returns when the server has the outcome of each.
    pub(super) fn saturate(&self, jobs: u64, clients: usize) -> Result<(), BenchError> {
        let (before, _) = Self::wait("the server's API", || self.ended())?;
        let begun = AtomicU64::new(0);
        let submit = || {
            while begun.fetch_add(1, Ordering::Relaxed) < jobs {
                self.api.submit(&Uuid::now_v7().to_string(), JOB).map_err(FleetError::from)?;
            }
            Ok::<_, BenchError>(())
        };
        std::thread::scope(|scope| {
            let clients: Vec<_> = (0..clients).map(|_| scope.spawn(submit)).collect();
            clients.into_iter().try_for_each(|client| client.join().expect("it does not panic"))
        })?;
        let (well, badly) = Self::wait("the outcome of every job", || {
            let (well, badly) = self.ended()?;
            (well + badly >= before + jobs).then_some((well, badly))
        })?;
        let what = "jobs that ended well";
        if badly == 0 { Ok(()) } else { Err(BenchError::Wrong { what, expected: before + jobs, found: well }) }
    }

    /// Submits one job and returns when a client sees that the server has its outcome.
    pub(super) fn one(&self) -> Result<Duration, BenchError> {
        let began = Instant::now();
        let id = Uuid::now_v7().to_string();
        self.api.submit(&id, JOB).map_err(FleetError::from)?;
        loop {
            match self.api.job_state_within(&id, WAIT_MS).as_deref() {
                Some("succeeded") => return Ok(began.elapsed()),
                Some("failed" | "cancelled" | "needs-decision") => {
                    return Err(BenchError::Wrong { what: "jobs that ended well", expected: 1, found: 0 });
                }
                Some(_) | None if began.elapsed() > LIMIT => {
                    return Err(BenchError::TimedOut { what: "one job".to_owned(), seconds: LIMIT.as_secs() });
                }
                Some(_) | None => {}
            }
        }
    }
}
