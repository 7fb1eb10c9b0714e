//! What the tests share: an agent, a server's endpoint that writes down what it is told, and a broker between them that keeps
//! what is for somebody who is away. No expectations.

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use agent::attempt::ShimCommand;
use agent::{AgentConfig, AgentError, DiskLimits};
use link::session::{Config, DeliveryTag, Published, Transaction};
use link::wire::{WireCommand, WireEnd, WireEvent};
use link::{Endpoint, Service, ServiceConfig, outbound};
use messages::{
    Body, EndpointId, JobId, Keep, LogDatagram, LogKey, LogMark, MessageId, Program, RefusalCode, RunEnd, RunId,
    RunStart, StepChanged, StepEnd, StepEvent, StepSpec,
};
use tempfile::TempDir;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

/// After this a test fails that would otherwise wait for ever.
pub(crate) const PATIENCE: Duration = Duration::from_secs(600);

/// Carries publishes from one end to the other, and keeps those for an end that is away.
#[derive(Clone, Default)]
struct Broker {
    queues: Arc<Mutex<BTreeMap<EndpointId, Queue>>>,
    /// Messages that were published, by whom, and whether they might wait for company.
    published: Arc<Mutex<Vec<(EndpointId, bool)>>>,
}

#[derive(Default)]
struct Queue {
    connection: u64,
    tag: u64,
    kept: VecDeque<Vec<u8>>,
    events: Option<mpsc::Sender<WireEvent>>,
}

impl Broker {
    fn attach(&self, local: EndpointId, mut end: WireEnd) -> JoinHandle<()> {
        let broker = self.clone();
        tokio::spawn(async move {
            let connection = {
                let mut queues = broker.queues.lock().unwrap();
                let queue = queues.entry(local.clone()).or_default();
                queue.connection += 1;
                queue.connection
            };
            end.events.send(WireEvent::Up { connection }).await.unwrap();
            broker.queues.lock().unwrap().get_mut(&local).unwrap().events = Some(end.events.clone());
            broker.deliver(&local).await;
            while let Some(command) = end.commands.recv().await {
                let soon = matches!(command, WireCommand::PublishSoon(_));
                if let WireCommand::Publish(publish) | WireCommand::PublishSoon(publish) = command {
                    if let Published::Message(_) = publish.what {
                        broker.published.lock().unwrap().push((local.clone(), soon));
                    }
                    let (to, bytes) = (publish.to.clone(), publish.frame.bytes().to_vec());
                    broker.queues.lock().unwrap().entry(to.clone()).or_default().kept.push_back(bytes);
                    broker.deliver(&to).await;
                    let _gone = end.events.send(WireEvent::Confirmed(vec![(to, publish.what)])).await;
                }
            }
            broker.queues.lock().unwrap().get_mut(&local).unwrap().events = None;
        })
    }

    async fn deliver(&self, to: &EndpointId) {
        loop {
            let next = {
                let mut queues = self.queues.lock().unwrap();
                let queue = queues.entry(to.clone()).or_default();
                let Some(events) = queue.events.clone() else { return };
                let Some(bytes) = queue.kept.pop_front() else { return };
                queue.tag += 1;
                (
                    events,
                    WireEvent::Delivery { tag: DeliveryTag { connection: queue.connection, tag: queue.tag }, bytes },
                )
            };
            // One that is just leaving loses it; the protocol finds out.
            let _gone = next.0.send(next.1).await;
        }
    }
}

/// An agent that runs.
pub(crate) struct Running {
    stop: watch::Sender<bool>,
    pub(crate) drain: watch::Sender<bool>,
    pub(crate) labels: watch::Sender<BTreeMap<String, String>>,
    task: JoinHandle<Result<(), AgentError>>,
}

impl Running {
    /// Stops it as a signal would.
    pub(crate) async fn stop(self) {
        self.stop.send_replace(true);
        within(self.task).await.unwrap().unwrap();
    }

    /// Waits until it has ended, for whatever reason.
    pub(crate) async fn gone(&mut self) {
        let ended = (&mut self.task).await.unwrap();
        eprintln!("the agent ended: {ended:?}");
    }

    /// Waits until it has ended by itself.
    pub(crate) async fn ended(self) -> Result<(), AgentError> {
        within(self.task).await.unwrap()
    }
}

/// A server and a place for an agent.
pub(crate) struct World {
    pub(crate) root: TempDir,
    broker: Broker,
    pub(crate) server: Endpoint,
    told: watch::Receiver<Vec<Body>>,
    pub(crate) logs: Arc<Mutex<Logs>>,
    _stop: watch::Sender<bool>,
}

/// The logs that the server has taken.
#[derive(Default)]
pub(crate) struct Logs {
    /// It takes none for now, and says nothing.
    pub(crate) deaf: bool,
    pub(crate) taken: BTreeMap<LogKey, Vec<u8>>,
}

/// How an agent is to be.
#[derive(Clone)]
pub(crate) struct How {
    pub(crate) slots: u16,
    pub(crate) once: bool,
    pub(crate) disk: DiskLimits,
    pub(crate) dir: Option<PathBuf>,
    pub(crate) engine: Option<journal::Engine>,
}

impl Default for How {
    fn default() -> Self {
        // The machine that tests run on may have little room.
        let disk = DiskLimits { free_bytes_min: 0, free_percent_min: 0, reserve_bytes: 0, ..DiskLimits::default() };
        Self { slots: 2, once: false, disk, dir: None, engine: None }
    }
}

fn agent_id() -> EndpointId {
    "a1".parse().unwrap()
}

impl World {
    pub(crate) async fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let broker = Broker::default();
        let (stop, stopping) = watch::channel(false);
        let config = ServiceConfig {
            dir: root.path().join("server"),
            endpoint: EndpointId::Server,
            peers: vec![agent_id()],
            session: Config::default(),
            engine: None,
        };
        let carrier = broker.clone();
        let transport = move |end, _stop| carrier.attach(EndpointId::Server, end);
        let service = Service::start(config, transport, stopping).await.unwrap();
        let server = service.endpoint.clone();
        let (teller, told) = watch::channel(Vec::new());
        tokio::spawn(listen(server.clone(), teller));
        let logs = Arc::<Mutex<Logs>>::default();
        tokio::spawn(keep_logs(server.clone(), Arc::clone(&logs)));
        tokio::spawn(service.stopped());
        Self { root, broker, server, told, logs, _stop: stop }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    pub(crate) fn agent_dir(&self) -> PathBuf {
        self.path("agent")
    }

    pub(crate) fn agent(&self, how: How) -> Running {
        let ((stop, stopping), (drain, draining)) = (watch::channel(false), watch::channel(false));
        let (labels, labelled) = watch::channel(BTreeMap::new());
        let config = AgentConfig {
            dir: how.dir.unwrap_or_else(|| self.agent_dir()),
            name: "a1".parse().unwrap(),
            slots: how.slots,
            shim: ShimCommand::new("/proc/self/exe", [crate::SHIM]),
            session: Config::default(),
            engine: how.engine,
            drain: draining,
            once: how.once,
            pool: None,
            labels: labelled,
            disk: how.disk,
        };
        let broker = self.broker.clone();
        let transport = move |end, _stop| broker.attach(agent_id(), end);
        let task = tokio::spawn(agent::run(config, transport, stopping, || {}));
        Running { stop, drain, labels, task }
    }

    pub(crate) async fn send(&self, body: &Body) -> MessageId {
        self.send_all(std::slice::from_ref(body)).await[0]
    }

    pub(crate) async fn send_all(&self, bodies: &[Body]) -> Vec<MessageId> {
        let ids: Vec<_> = bodies.iter().map(|_| MessageId::new(uuid::Uuid::now_v7())).collect();
        let send = bodies.iter().zip(&ids).map(|(body, id)| outbound(agent_id(), *id, body, None).unwrap()).collect();
        self.server.transact(Transaction { send, ..Transaction::default() }).await.unwrap();
        ids
    }

    /// What the agent has said so far.
    pub(crate) fn told(&self) -> Vec<Body> {
        self.told.borrow().clone()
    }

    /// Of each message that the agent has published, whether it might wait for company.
    pub(crate) fn might_wait(&self) -> Vec<bool> {
        let published = self.broker.published.lock().unwrap();
        published.iter().filter(|(from, _)| *from == agent_id()).map(|(_, soon)| *soon).collect()
    }

    /// Waits until what the agent has said holds that.
    pub(crate) async fn until<T>(&self, mut find: impl FnMut(&[Body]) -> Option<T>) -> T {
        let mut told = self.told.clone();
        let mut found = None;
        let waited = tokio::time::timeout(
            PATIENCE,
            told.wait_for(|bodies| {
                found = find(bodies);
                found.is_some()
            }),
        )
        .await;
        if waited.is_err() {
            panic!("the agent did not say what was waited for, but: {:#?}", self.told());
        }
        found.unwrap()
    }

    pub(crate) async fn run_end(&self, run: RunId) -> RunEnd {
        self.until(|bodies| {
            bodies.iter().find_map(|body| match body {
                Body::RunFinished(finished) if finished.run == run => Some(finished.end.clone()),
                _ => None,
            })
        })
        .await
    }

    /// Waits until that was reported of the run.
    pub(crate) async fn event(&self, run: RunId, wanted: impl Fn(&StepChanged) -> bool) -> StepChanged {
        self.until(|bodies| changes_in(bodies, run).into_iter().find(|change| wanted(change))).await
    }

    pub(crate) fn changes(&self, run: RunId) -> Vec<StepChanged> {
        changes_in(&self.told(), run)
    }

    /// How the run's steps ended, in the order in which they did.
    pub(crate) fn step_ends(&self, run: RunId) -> Vec<(String, StepEnd)> {
        let end = |change: StepChanged| match change.event {
            StepEvent::Ended(end) => Some((change.step.to_string(), end)),
            StepEvent::Started | StepEvent::Retrying(..) | StepEvent::Undecided(_) => None,
        };
        self.changes(run).into_iter().filter_map(end).collect()
    }

    pub(crate) async fn refusal(&self, message: MessageId) -> (RefusalCode, String) {
        self.until(|bodies| {
            bodies.iter().find_map(|body| match body {
                Body::Refusal(refusal) if refusal.message == message => Some((refusal.code, refusal.reason.clone())),
                _ => None,
            })
        })
        .await
    }

    pub(crate) fn run(&self, number: u128, steps: Vec<StepSpec>) -> RunStart {
        RunStart {
            run: RunId::from_u128(number),
            job: JobId::from_u128(1),
            name: "test".to_owned(),
            steps,
            timeout_ms: None,
            keep: Keep::OnFailure,
            earlier: None,
        }
    }

    /// A step that knows the place of this test as `$PLACE`.
    pub(crate) fn step(&self, id: &str, script: &str) -> StepSpec {
        let mut step = StepSpec::new(id.parse().unwrap(), Program::Shell(script.to_owned()));
        step.env.insert("PLACE".to_owned(), self.root.path().to_str().unwrap().to_owned());
        step
    }
}

fn changes_in(bodies: &[Body], run: RunId) -> Vec<StepChanged> {
    let change = |body: &Body| match body {
        Body::StepChanged(change) if change.run == run => Some(change.clone()),
        _ => None,
    };
    bodies.iter().filter_map(change).collect()
}

async fn listen(server: Endpoint, teller: watch::Sender<Vec<Body>>) {
    while let Ok(work) = server.next_work().await {
        let apply = work.items.iter().map(link::WorkItem::settle).collect();
        if server.transact(Transaction { apply, ..Transaction::default() }).await.is_err() {
            return;
        }
        teller.send_modify(|told| told.extend(work.items.into_iter().map(|item| item.body.unwrap())));
    }
}

async fn keep_logs(server: Endpoint, logs: Arc<Mutex<Logs>>) {
    while let Ok(mut said) = server.next_logs(1).await {
        let Some(LogDatagram::Chunk(chunk)) = said.pop() else { continue };
        let have = {
            let mut logs = logs.lock().unwrap();
            if logs.deaf {
                continue;
            }
            let log = logs.taken.entry(chunk.key.clone()).or_default();
            if log.len() as u64 == chunk.offset {
                log.extend(&chunk.bytes);
            }
            log.len() as u64
        };
        let mark = LogMark { key: chunk.key, have, complete: chunk.end.is_some_and(|end| end.size == have) };
        if server.send_log(agent_id(), LogDatagram::Mark(mark)).await.is_err() {
            return;
        }
    }
}

/// Runs a test that waits.
pub(crate) fn on<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(test)
}

pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("what must come has come")
}

/// A named pipe, as a place to meet.
pub(crate) fn pipe(path: &Path) {
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    mknodat(CWD, path, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
}

/// Waits until nobody holds the pipe open for writing any more, and says what was written.
pub(crate) async fn drained(path: PathBuf) -> String {
    within(tokio::task::spawn_blocking(move || std::fs::read_to_string(path).unwrap())).await.unwrap()
}
