//! The whole server on a disk that is filled to the last byte, and an agent's endpoint at the other end of a broker in memory that
//! reports what it is told to report. Needs root, to mount a small file system of its own; it says so when it cannot.
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use journal::{Engine, RoomLimits};
use link::session::{Config, DeliveryTag, Transaction};
use link::wire::{WireCommand, WireEnd, WireEvent};
use link::{Endpoint, Service, ServiceConfig, outbound};
use messages::{
    Body, EndpointId, JobId, MessageId, Presence, RunEnd, RunFinished, RunId, Seq, StepChanged, StepEnd, StepEvent,
};
use serde_json::{Value, json};
use server::api::Access;
use server::{ACCESS_FILE, ServerConfig};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

const MIB: u64 = 1024 * 1024;
/// After this a test fails that would otherwise wait for ever.
const PATIENCE: Duration = Duration::from_secs(600);
/// Between two looks at something that has no event to wait for.
const LOOK_EVERY: Duration = Duration::from_millis(50);
const RUNS: u128 = 20;

/// A small file system in memory, mounted until dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: PathBuf) -> Option<Self> {
        fs::create_dir(&at).unwrap();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=96m", "tmpfs"]).arg(&at).output();
        if !mounted.is_ok_and(|output| output.status.success()) {
            eprintln!("SKIPPED: mounting a small disk needs root");
            return None;
        }
        Some(Self(at))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

fn fill(path: &Path) {
    let mut file = File::create(path).unwrap();
    for piece in [64 * 1024, 512, 1] {
        while file.write_all(&vec![1; piece]).is_ok() {}
    }
}

/// Carries publishes from one end to the other, and keeps those for an end that is away.
#[derive(Clone, Default)]
struct Broker(Arc<Mutex<BTreeMap<EndpointId, Queue>>>);

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
                let mut queues = broker.0.lock().unwrap();
                let queue = queues.entry(local.clone()).or_default();
                queue.connection += 1;
                queue.connection
            };
            end.events.send(WireEvent::Up { connection }).await.unwrap();
            broker.0.lock().unwrap().get_mut(&local).unwrap().events = Some(end.events.clone());
            broker.deliver(&local).await;
            while let Some(command) = end.commands.recv().await {
                if let WireCommand::Publish(publish) = command {
                    let (to, bytes) = (publish.to.clone(), publish.frame.bytes().to_vec());
                    broker.0.lock().unwrap().entry(to.clone()).or_default().kept.push_back(bytes);
                    broker.deliver(&to).await;
                    let _gone = end.events.send(WireEvent::Confirmed(vec![(to, publish.what)])).await;
                }
            }
            broker.0.lock().unwrap().get_mut(&local).unwrap().events = None;
        })
    }

    async fn deliver(&self, to: &EndpointId) {
        loop {
            let next = {
                let mut queues = self.0.lock().unwrap();
                let queue = queues.entry(to.clone()).or_default();
                let Some(events) = queue.events.clone() else { return };
                let Some(bytes) = queue.kept.pop_front() else { return };
                queue.tag += 1;
                let tag = DeliveryTag { connection: queue.connection, tag: queue.tag };
                (events, WireEvent::Delivery { tag, bytes })
            };
            // One that is just leaving loses it; the protocol finds out.
            let _gone = next.0.send(next.1).await;
        }
    }
}

fn a1() -> EndpointId {
    "a1".parse().unwrap()
}

/// A run that the agent was given, and the message that it answers.
type Given = (RunId, Seq, MessageId);

/// An agent's endpoint: takes what it is given and reports when it is told to.
struct Agent {
    endpoint: Endpoint,
    given: mpsc::UnboundedReceiver<Given>,
    _stop: watch::Sender<bool>,
}

impl Agent {
    async fn start(broker: &Broker, dir: PathBuf) -> Self {
        let (stop, stopping) = watch::channel(false);
        let config = ServiceConfig {
            dir,
            endpoint: a1(),
            peers: vec![EndpointId::Server],
            session: Config::default(),
            engine: None,
        };
        let carrier = broker.clone();
        let service = Service::start(config, move |end, _stop| carrier.attach(a1(), end), stopping).await.unwrap();
        let endpoint = service.endpoint.clone();
        tokio::spawn(service.stopped());
        // The server gives it twice as many.
        let slots = u16::try_from(RUNS / 2).unwrap();
        endpoint.present(Presence { slots, slots_free: slots, ..Presence::default() }).await.unwrap();
        let (give, given) = mpsc::unbounded_channel();
        tokio::spawn(take(endpoint.clone(), give));
        Self { endpoint, given, _stop: stop }
    }

    async fn next(&mut self) -> Given {
        tokio::time::timeout(PATIENCE, self.given.recv()).await.expect("a run is given out").unwrap()
    }

    async fn report(&self, (run, seq, message): Given) {
        let changed = |event| {
            let (step, outputs) = ("one".parse().unwrap(), BTreeMap::new());
            let (usage, note, unknown) = (None, None, false);
            Body::StepChanged(StepChanged {
                run,
                step,
                attempt: 1,
                event,
                at_ms: 1,
                usage,
                outputs,
                note,
                unknown,
                silent: false,
            })
        };
        let end = RunEnd::Failed("one".parse().unwrap());
        let bodies = [
            changed(StepEvent::Started),
            changed(StepEvent::Ended(StepEnd::Exited(3))),
            Body::RunFinished(RunFinished { run, end, at_ms: 2 }),
        ];
        let id = || MessageId::new(uuid::Uuid::now_v7());
        let outbound = |body: &Body| outbound(EndpointId::Server, id(), body, Some(message)).unwrap();
        let mut send: Vec<_> = bodies.iter().map(outbound).collect();
        send.last_mut().unwrap().answers = Some(seq);
        self.endpoint.transact(Transaction { send, ..Transaction::default() }).await.unwrap();
    }
}

async fn take(endpoint: Endpoint, give: mpsc::UnboundedSender<Given>) {
    while let Ok(work) = endpoint.next_work().await {
        let apply = work.items.iter().map(link::WorkItem::hold).collect();
        if endpoint.transact(Transaction { apply, ..Transaction::default() }).await.is_err() {
            return;
        }
        for item in work.items {
            if let Ok(Body::RunStart(start)) = &item.body {
                let _gone = give.send((start.run, item.seq, item.message.header.id));
            }
        }
    }
}

/// Looks until there is something to return. The API of a server that may be away announces nothing.
async fn look<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let looking = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    tokio::time::timeout(PATIENCE, looking).await.unwrap_or_else(|_| panic!("waited in vain for {what}"))
}

/// Asks the API, and again while nobody answers there.
async fn ask(dir: &Path, method: &str, path: &str, body: &str) -> (u16, Value) {
    look("the API to answer", async || try_ask(dir, method, path, body).await).await
}

async fn try_ask(dir: &Path, method: &str, path: &str, body: &str) -> Option<(u16, Value)> {
    let access = Access::read(&dir.join(ACCESS_FILE)).ok()?;
    let address = access.url.strip_prefix("http://")?.to_owned();
    let mut stream = TcpStream::connect(&address).await.ok()?;
    let (token, length) = (access.token.reveal(), body.len());
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nAuthorization: Bearer {token}\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    stream.write_all(head.as_bytes()).await.ok()?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.ok()?;
    let text = String::from_utf8(bytes).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status: u16 = head.split(' ').nth(1)?.parse().ok()?;
    // Stopping, or its journal has just ended: it is back soon.
    if status == 503 {
        return None;
    }
    Some((status, serde_json::from_str(body).ok()?))
}

const JOB: &str = "name = \"n\"\ntarget = { all = true }\n[[step]]\nid = \"one\"\nrun = \"true\"\n";

async fn submit(dir: &Path, id: u128) -> (u16, Value) {
    ask(dir, "POST", "/v1/jobs", &json!({ "id": JobId::from_u128(id), "definition": JOB }).to_string()).await
}

async fn job(dir: &Path, id: u128) -> Value {
    ask(dir, "GET", &format!("/v1/jobs/{}", JobId::from_u128(id)), "").await.1
}

/// Waits until a job stands so.
async fn until(dir: &Path, id: u128, state: &str) {
    let what = format!("job {id} to be {state}");
    look(&what, async || (job(dir, id).await["state"] == state).then_some(())).await;
}

async fn full(engine: Engine) {
    let root = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::mount(root.path().join("small")) else { return };
    let dir = disk.0.join("server");
    let broker = Broker::default();
    let config = ServerConfig {
        dir: dir.clone(),
        agents: ["a1".parse().unwrap()].into(),
        listen: "127.0.0.1:0".to_owned(),
        broker_url: String::new(),
        session: Config::default(),
        engine: Some(engine),
        room: RoomLimits { free_bytes_min: 8 * MIB, free_percent_min: 0, reserve_bytes: 16 * MIB },
    };
    let (stop, stopping) = watch::channel(false);
    let lives = Arc::new(Mutex::new(Vec::new()));
    let (carrier, counted) = (broker.clone(), Arc::clone(&lives));
    let transport = move |end, _stop| carrier.attach(EndpointId::Server, end);
    let ready = move |url: &str| counted.lock().unwrap().push(url.to_owned());
    let serving = tokio::spawn(server::run(config, transport, stopping, ready));
    let mut agent = Agent::start(&broker, root.path().join("agent")).await;
    let mut given = Vec::new();
    for id in 1..=RUNS {
        assert_eq!(submit(&dir, id).await.0, 201);
        given.push(agent.next().await);
    }
    // It waits at the server: the agent has as many as it is given.
    let last = RUNS + 1;
    assert_eq!(submit(&dir, last).await.0, 201);
    assert_eq!(job(&dir, last).await["state"], "waiting");
    assert!(dir.join("reserve").exists());

    // A job that is not over cannot be started again, so asking changes nothing.
    let (retry, other) =
        (format!("/v1/jobs/{}/retry", JobId::from_u128(1)), json!({ "id": JobId::from_u128(101) }).to_string());
    let again = || ask(&dir, "POST", &retry, &other);
    assert_eq!(again().await.0, 409);
    let filler = disk.0.join("filler");
    fill(&filler);
    // Whether there is room is looked at once in some milliseconds, and to fill so small a disk may take less.
    tokio::time::timeout(PATIENCE, async { while again().await.0 != 507 {} }).await.expect("a full disk is noticed");
    let (status, refused) = submit(&dir, 100).await;
    assert_eq!(status, 507, "{refused:#}");
    assert!(refused["error"].as_str().unwrap().contains("bytes free"), "{refused:#}");
    assert!(refused["next"].as_str().unwrap().contains("make room"), "{refused:#}");
    // One that was taken is answered as ever.
    assert_eq!(submit(&dir, 1).await.0, 200);

    for run in given {
        agent.report(run).await;
    }
    for id in 1..last {
        until(&dir, id, "failed").await;
    }
    // Nobody has it, and there is still no room for what would come of it.
    let held = job(&dir, last).await;
    assert_eq!(held["state"], "waiting");
    assert!(held["runs"][0]["reason"].as_str().unwrap().contains("disk is too full"), "{held:#}");
    assert!(!serving.is_finished());
    eprintln!("{} outcomes on a full disk, the journal was opened {} times", last - 1, lives.lock().unwrap().len());

    fs::remove_file(filler).unwrap();
    let run = agent.next().await;
    agent.report(run).await;
    until(&dir, last, "failed").await;
    assert_eq!(submit(&dir, 100).await.0, 201);
    let run = agent.next().await;
    agent.report(run).await;
    until(&dir, 100, "failed").await;
    let urls = lives.lock().unwrap().clone();
    assert!(urls.iter().all(|url| *url == urls[0]), "it is found where it was: {urls:?}");
    stop.send_replace(true);
    tokio::time::timeout(PATIENCE, serving).await.unwrap().unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_filled_to_the_last_byte_under_the_server_takes_no_job_and_loses_no_outcome_with_sled() {
    full(Engine::Sled).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_filled_to_the_last_byte_under_the_server_takes_no_job_and_loses_no_outcome_with_segments() {
    full(Engine::Segments).await;
}
