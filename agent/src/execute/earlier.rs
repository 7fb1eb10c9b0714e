//! A run that goes on from earlier ones: it waits until they are over here, takes over their working folder, and does nothing of
//! what they did. Of what nobody knows the step's declared effect decides, as after a loss of the journal.

use std::io;
use std::path::{Path, PathBuf};

use link::SubmitError;
use link::session::Transaction;
use messages::{Earlier, RunStart, StepSpec};

use super::{Execution, blocking};
use crate::worker::{Worker, make_folder};

impl Execution {
    pub(super) fn earlier(&self) -> Option<&Earlier> {
        self.record.start.earlier.as_ref()
    }

    /// What is known of a step that an earlier run may have done; nothing if that is known, or was settled in this run.
    pub(super) fn unknown_earlier(&self, spec: &StepSpec) -> Option<&str> {
        let first = self.record.attempt() <= 1;
        self.earlier().filter(|_| first)?.unknown.get(&spec.id).map(String::as_str)
    }

    /// Takes over the working folder of the earlier runs, if this one goes on in it. Without it no step can be begun. Not before it is on
    /// stable storage that this run is here: a process after a crash may have to refuse it, and another run would not find the folder.
    pub(super) async fn take_over(&mut self) -> Result<(), SubmitError> {
        let start = &self.record.start;
        let Some(earlier) = start.earlier.as_ref().filter(|earlier| earlier.folder) else { return Ok(()) };
        self.worker.endpoint().transact(Transaction::default()).await?;
        let (dir, own) = (self.worker.run_dir(start.run), self.worker.work_dir(start.run));
        let theirs: Vec<PathBuf> = earlier.runs.iter().map(|run| self.worker.work_dir(*run)).collect();
        self.homeless = match blocking(move || move_first(&theirs, &dir, &own)).await {
            Ok(true) => None,
            Ok(false) => Some(gone(start)),
            Err(error) => Some(format!("the working folder of the earlier run cannot be taken over: {error}")),
        };
        Ok(())
    }
}

fn gone(start: &RunStart) -> String {
    let first = start.steps.first().map(|step| step.id.to_string()).unwrap_or_default();
    format!(
        "the working folder of the earlier run is gone from this agent; begin at the first step, in a new one: longshore job retry {} \
         --from {first}",
        start.job
    )
}

/// Moves the first of those folders that there is. Whether the own one is there then: a process before this one may have moved it.
fn move_first(theirs: &[PathBuf], dir: &Path, own: &Path) -> io::Result<bool> {
    if own.try_exists()? {
        return Ok(true);
    }
    make_folder(dir)?;
    for folder in theirs {
        match std::fs::rename(folder, own) {
            Ok(()) => return Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(false)
}

impl Worker {
    /// Whether a run has to wait for one that it goes on from: what is left of that one is still being ended or reported here.
    pub(crate) fn is_after_open(&self, start: &RunStart) -> bool {
        let runs = self.runs();
        start.earlier.iter().flat_map(|earlier| &earlier.runs).any(|run| runs.open.contains_key(run))
    }

    /// Returns when every run that this one goes on from is over here.
    pub(crate) async fn earlier_over(&self, start: &RunStart) {
        let mut closed = self.closed();
        while self.is_after_open(start) {
            if closed.changed().await.is_err() {
                return;
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeMap;

    use link::session::Config;
    use link::{Service, ServiceConfig};
    use messages::{EndpointId, JobId, Keep, MessageId, Program, RunId, Seq};
    use tokio::sync::watch;

    use super::*;
    use crate::attempt::{ShimCommand, Shims, boot_id};
    use crate::control::{Control, Orders};
    use crate::execute::{Place, execute};
    use crate::records::RunRecord;
    use crate::service::DiskLimits;
    use crate::ship::Ship;
    use crate::worker::WorkerParts;

    /// A worker over a journal in that folder, whose broker never answers.
    async fn worker(dir: &Path) -> (Worker, Service, watch::Sender<bool>) {
        let (stop, shutdown) = watch::channel(false);
        let (agent, peers): (messages::AgentId, _) = ("a1".parse().unwrap(), vec![EndpointId::Server]);
        let (endpoint, session) = (EndpointId::Agent(agent.clone()), Config::default());
        let config = ServiceConfig { dir: dir.to_owned(), endpoint, peers, session, engine: None };
        let transport = |end, _| {
            tokio::spawn(async move {
                let _end = end;
                std::future::pending().await
            })
        };
        let service = Service::start(config, transport, shutdown).await.unwrap();
        let worker = Worker::new(WorkerParts {
            endpoint: service.endpoint.clone(),
            agent,
            dir: dir.to_owned(),
            shims: Shims::new(ShimCommand::new("/bin/false", Vec::<String>::new())),
            boot: boot_id().unwrap(),
            ship: Ship::new(),
            journal: service.journal.clone(),
            slots: 1,
            drain: watch::channel(false).1,
            once: false,
            pool: None,
            labels: watch::channel(BTreeMap::new()).1,
            disk: DiskLimits::default(),
        });
        (worker, service, stop)
    }

    /// Of work that blocks, one piece is done at a time, in the order in which it was begun.
    #[test]
    fn nothing_is_taken_from_an_earlier_run_before_the_run_that_goes_on_is_on_stable_storage() {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime.enable_all().max_blocking_threads(1).build().unwrap().block_on(taken());
    }

    async fn taken() {
        let place = tempfile::tempdir().unwrap();
        let (worker, _service, _stop) = worker(place.path()).await;
        let (first, next) = (RunId::from_u128(1), RunId::from_u128(2));
        make_folder(&worker.work_dir(first)).unwrap();
        let steps = vec![StepSpec::new("one".parse().unwrap(), Program::Shell("true".into()))];
        let earlier = Some(Earlier { runs: vec![first], folder: true, ..Earlier::default() });
        let (job, name, keep) = (JobId::from_u128(1), "n".to_owned(), Keep::default());
        let start = RunStart { run: next, job, name, steps, timeout_ms: None, keep, earlier };
        let record = RunRecord::new(start, Seq::FIRST, MessageId::from_u128(1), 0);
        let control = Control::new(Orders::default(), None, false);
        // It has no slot, so it comes no further than that.
        let mut run = Box::pin(execute(&worker, record, control, Place::Waits(None)));
        tokio::select! {
            biased;
            _ = &mut run => panic!("it ran"),
            () = std::future::ready(()) => {}
        }
        // What was begun by then is done when this is. The run itself goes no further meanwhile.
        tokio::task::spawn_blocking(|| ()).await.unwrap();
        assert!(worker.work_dir(first).exists() && !worker.work_dir(next).exists(), "it was taken too early");
        let taken = async {
            while !worker.work_dir(next).exists() {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            _ = &mut run => panic!("it ran"),
            () = taken => {}
        }
        assert!(!worker.work_dir(first).exists());
    }
}
