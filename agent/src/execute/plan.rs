//! What a shim is told of an attempt: program, environment, folder, user and limits. What this host cannot enforce is said, never
//! passed over.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use messages::StepSpec;
use messages::limits::LOG_BYTES_DEFAULT;

use super::{CLEANUP_TIMEOUT, Execution};
use crate::attempt::layout::OUTPUT;
use crate::attempt::{Attempt, AttemptKey, Plan, environment};
use crate::host::Account;

impl Execution {
    /// The plan of that attempt, and the user that it runs as if that is another; or why it cannot be started.
    pub(super) fn plan(&self, spec: &StepSpec, attempt: &Attempt) -> Result<(Plan, Option<Account>), String> {
        let account = spec.user.as_deref().map(|user| self.worker.host().account(user)).transpose()?;
        let mut env = self.environment(spec);
        // The author's own environment does not say where this is.
        env.insert("LONGSHORE_OUTPUT".to_owned(), attempt.file(OUTPUT).to_string_lossy().into_owned());
        for (name, value) in account.iter().flat_map(Account::variables) {
            if !spec.env.contains_key(name) {
                env.insert(name.to_owned(), value);
            }
        }
        let unattended = self.cleaning_up().then_some(u64::try_from(CLEANUP_TIMEOUT.as_millis()).unwrap_or(u64::MAX));
        let name = format!("{}-{}-{}", self.record.start.run, spec.id, self.record.attempt());
        let (group, memory_bytes_max) = self.worker.host().limits(&name, &spec.limits);
        let plan = Plan {
            program: spec.program.clone(),
            env,
            dir: folder(&self.worker.work_dir(self.record.start.run), spec),
            timeout_ms: spec.timeout_ms.or(unattended),
            output_bytes_max: spec
                .limits
                .output_bytes
                .unwrap_or(LOG_BYTES_DEFAULT)
                .min(self.worker.limits().output_bytes_max),
            run_as: account.as_ref().map(Account::run_as),
            memory_bytes_max,
            group,
            hands_on: !spec.outputs.is_empty(),
        };
        Ok((plan, account))
    }

    pub(super) fn environment(&self, spec: &StepSpec) -> BTreeMap<String, String> {
        let key = AttemptKey {
            agent: self.worker.agent().clone(),
            job: self.record.start.job,
            run: self.record.start.run,
            step: spec.id.clone(),
            attempt: self.record.attempt(),
        };
        let mut given = self.handed_on();
        given.extend(spec.env.clone());
        environment(|name| std::env::var_os(name), &key, &given)
    }

    /// Which of the step's limits this host cannot enforce, or only in part, in words for its author.
    pub(super) fn unenforced(&self, spec: &StepSpec) -> Option<String> {
        self.worker.host().unenforced(&spec.limits, self.worker.limits().output_bytes_max)
    }
}

/// The folder a step runs in: its own if absolute, or within the run's.
pub(super) fn folder(work_dir: &Path, spec: &StepSpec) -> PathBuf {
    spec.dir.as_ref().map_or_else(|| work_dir.to_owned(), |dir| work_dir.join(dir))
}
