//! R8: a thousand agents that come back after the broker was killed, and what they cost the server, against bare connections.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use journal::Engine;
use link::wall_ms;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::apart::{Ask, ask};
use super::coming_back::{STATUSES, come_back};
use super::crew::server;
use super::ends::{End, Ground, agent_id, tidy};
use super::messages::runtime;
use super::proc::{memory, threads_and_files};
use super::raw::Client;
use super::{BenchError, Benchmark, Bound, BrokerAt, Case, Figures, Goal, Measure, Meter, Options, Side};
use crate::live::{Api, FleetError, wait_for};

/// See the file.
pub(super) const BENCHMARK: Benchmark = Benchmark {
    id: "R8",
    what: "1,000 agents that come back after the broker was killed",
    how: "A server runs as a process and knows 1,000 agents, whose endpoints are in one other process, each with a journal (segments) \
          and two connections. The broker is killed and started; the time runs from when it answers until the server has heard every \
          agent again. The reference is lapin opening bare connections, 64 at a time, to a broker that was killed and started with as \
          many queues: 1,000 of them, and 2,000, which is as many as the agents have. Waits of the agents between two tries are in their \
          time. The broker is killed and started once more for a third one, which does what no agent can do without, and nothing else: \
          1,000 connections with two channels and frames as small as the agents have, each of which consumes its queue, publishes a status, \
          persistent and confirmed, to the queue of one server, is answered by it the same way, and acknowledges the answer; its time \
          ends when the last has its answer. It has no journal at either end; where the broker refuses it, it tries again 50 ms later. What an \
          agent costs the server is the difference between 1,000 of them and 500, connected to the same one; beside it stands the difference \
          between 1,000 and 10 agents of two servers, in which is what a busy server has touched once.",
    unit: "agent",
    cases,
    part: Some(part),
    picture: None,
};

/// Agents.
const AGENTS: u64 = 1_000;

/// Agents of the server that it is compared with, to see what one costs.
const FEW: u64 = 10;

/// Agents started, queues declared and connections opened at a time.
pub(super) const AT_ONCE: usize = 64;

/// How long it may take until every agent was heard. Only reached when something is broken, or the machine is.
const LIMIT: Duration = Duration::from_secs(240);

/// How old queues are at least when their broker is killed, as those of the agents are. One that was declared a second before
/// may never elect itself again.
const REMEMBERED: Duration = Duration::from_secs(5);

/// Descriptors of an agent: two connections with two each, a socket for its owner and the files of its journal.
const FILES_EACH: u64 = 16;

/// As an agent's monitor has it for its worker: large pieces of memory are given back. Otherwise the buffers of a lost connection are
/// kept, and zeros are written over them for the next one. Both sides have it.
const ALLOCATOR: [(&str, &str); 1] = [("MALLOC_MMAP_THRESHOLD_", "65536")];

const ONCE: &str = "agents a second, beside one connection each";
const TWICE: &str = "agents a second, beside two connections each";
const ANSWERED: &str = "agents a second, beside one connection each that consumes, asks and is answered";
const ANSWERED_FLOOR: &str = "agents a second, those that consume, ask and are answered over those that only connect";
const KIB: &str = "memory of the server for one more, KiB";
const THREADS: &str = "threads of the server for one";
const FILES: &str = "open files of the server for one";

/// What a process is to do.
#[derive(Debug, Serialize, Deserialize)]
struct Storm {
    broker: BrokerAt,
    dir: PathBuf,
    side: Side,
    agents: u64,
}

fn cases(options: &Options) -> Vec<Case> {
    let agents = options.amount(AGENTS).max(2 * FEW);
    let other = |name, of| Measure { name, of };
    let goals = vec![
        Goal::ratio(other(ONCE, |figures| figures.other.get(ONCE).copied()), Bound::AtLeast(0.8)),
        Goal::ratio(other(TWICE, |figures| figures.other.get(TWICE).copied()), Bound::AtLeast(0.8)),
        Goal::shown(other(ANSWERED, |figures| figures.other.get(ANSWERED).copied())),
        Goal::floor(other(ANSWERED_FLOOR, |figures| figures.other.get(ANSWERED_FLOOR).copied())),
        // Nobody costs nothing: then pages were used again, and the figure says nothing.
        Goal::own(other(KIB, |figures| figures.other.get(KIB).copied().filter(|kib| *kib > 0.0)), Bound::AtMost(4.0)),
        Goal::own(other(THREADS, |figures| figures.other.get(THREADS).copied()), Bound::AtMost(0.0)),
        Goal::own(other(FILES, |figures| figures.other.get(FILES).copied()), Bound::AtMost(0.0)),
    ];
    let run: super::RunSide = Box::new(move |stage, side| {
        // The broker, too, has what this process has.
        raise_files(agents)?;
        let (broker, dir) = (stage.broker()?, stage.folder("storm")?);
        let figures = stage.apart_with(BENCHMARK.id, &Storm { broker, dir: dir.clone(), side, agents }, &ALLOCATOR)?;
        std::fs::remove_dir_all(dir)?;
        Ok(figures)
    });
    vec![Case { name: format!("{agents} agents"), at: None, goals, pairs_max: 1, has_reference: true, run }]
}

/// Lets this process and those that it starts have enough open files.
fn raise_files(agents: u64) -> Result<(), BenchError> {
    let limit = getrlimit(Resource::Nofile);
    let wanted = agents * FILES_EACH;
    if limit.maximum.is_some_and(|maximum| maximum < wanted) {
        let advice = "raise the hard limit of open files (ulimit -Hn)".to_owned();
        return Err(BenchError::Missing { program: format!("a limit of {wanted} open files"), advice });
    }
    if limit.current.is_some_and(|current| current < wanted) {
        setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).map_err(std::io::Error::from)?;
    }
    Ok(())
}

fn part(order: &str) -> Result<Figures, BenchError> {
    let order: Storm = serde_json::from_str(order)?;
    let runtime = runtime()?;
    match order.side {
        Side::Ours => ours(&order, &runtime),
        Side::Reference => runtime.block_on(reference(&order)),
    }
}

/// What a server is made of.
#[derive(Debug, Clone, Copy)]
struct Look {
    kib: u64,
    threads: u64,
    files: u64,
}

fn look(pid: Option<u32>) -> Result<Look, BenchError> {
    let pid = pid.ok_or_else(|| std::io::Error::other("a server that was started has no process"))?;
    let (threads, files) = threads_and_files(pid)?;
    Ok(Look { kib: memory(&[pid])?.rss_kib, threads, files })
}

/// Starts the agents of those numbers.
async fn herd(broker: &BrokerAt, dir: &Path, agents: RangeInclusive<u64>) -> Result<Vec<End>, BenchError> {
    let ground = Ground { broker, dir, engine: Engine::Segments };
    let start = |number| async move { ground.agent(number).await };
    stream::iter(agents.map(start)).buffer_unordered(AT_ONCE).try_collect().await
}

/// Ends them.
async fn disperse(agents: Vec<End>) -> Result<(), BenchError> {
    stream::iter(agents.into_iter().map(End::end)).buffer_unordered(AT_ONCE).try_collect::<Vec<()>>().await.map(drop)
}

/// Waits until the server has heard that many agents since then, by its own clock, which is this machine's.
fn wait_heard(api: &Api, agents: u64, since_ms: u64) -> Result<(), BenchError> {
    let all = || {
        let answer = api.get("/v1/agents").ok()?;
        let heard = |agent: &&Value| agent.get("seen_ms").and_then(Value::as_u64).is_some_and(|at| at > since_ms);
        let heard = answer.get("agents")?.as_array()?.iter().filter(heard).count() as u64;
        (heard >= agents).then_some(())
    };
    wait_for("every agent to be heard", LIMIT, all).map_err(|error| FleetError::from(error).into())
}

fn ours(order: &Storm, runtime: &tokio::runtime::Runtime) -> Result<Figures, BenchError> {
    let few = {
        let dir = order.dir.join("few");
        std::fs::create_dir(&dir)?;
        runtime.block_on(tidy(&order.broker, FEW))?;
        let (mut server, api) = server(&order.broker, &dir, Engine::Segments, FEW)?;
        server.start()?;
        let agents = runtime.block_on(herd(&order.broker, &dir, 1..=FEW))?;
        wait_heard(&api, FEW, 0)?;
        let look = look(server.pid())?;
        runtime.block_on(disperse(agents))?;
        look
    };
    let dir = order.dir.join("many");
    std::fs::create_dir(&dir)?;
    runtime.block_on(tidy(&order.broker, FEW))?;
    let (mut server, api) = server(&order.broker, &dir, Engine::Segments, order.agents)?;
    let began = Instant::now();
    server.start()?;
    let half = order.agents / 2;
    let mut agents = runtime.block_on(herd(&order.broker, &dir, 1..=half))?;
    wait_heard(&api, half, 0)?;
    let some = look(server.pid())?;
    agents.extend(runtime.block_on(herd(&order.broker, &dir, half + 1..=order.agents))?);
    wait_heard(&api, order.agents, 0)?;
    let first = began.elapsed();
    let many = look(server.pid())?;

    ask(Ask::KillBroker)?;
    let killed_ms = wall_ms();
    let broker = ask(Ask::StartBroker)?.ok_or_else(|| std::io::Error::other("there is no broker any more"))?;
    let pids: Vec<u32> = server.pid().into_iter().chain([std::process::id()]).collect();
    let meter = Meter::begin(&pids, Some(broker.pid))?;
    wait_heard(&api, order.agents, killed_ms)?;
    let spent = meter.end()?;
    let after = look(server.pid())?;
    drop(server);
    runtime.block_on(disperse(agents))?;
    runtime.block_on(tidy(&broker, order.agents))?;
    let each = |many: u64, few: u64| (many as f64 - few as f64) / (order.agents - FEW) as f64;
    let more = |many: u64, some: u64| (many as f64 - some as f64) / (order.agents - half) as f64;
    let rate = order.agents as f64 / spent.seconds;
    Ok(Figures::of(order.agents, spent)
        .with(ONCE, rate)
        .with(TWICE, rate)
        .with(ANSWERED, rate)
        .with(KIB, more(many.kib, some.kib))
        .with(THREADS, each(many.threads, few.threads))
        .with(FILES, each(many.files, few.files))
        .with("the same from 10 agents on, KiB", each(many.kib, few.kib))
        .with("the same from 10 on, after the storm, KiB", each(after.kib, few.kib))
        .with("from the start of all, half after half, to the last first word, s", first.as_secs_f64()))
}

/// Has the broker killed and started.
fn restart() -> Result<BrokerAt, BenchError> {
    ask(Ask::KillBroker)?;
    Ok(ask(Ask::StartBroker)?.ok_or_else(|| std::io::Error::other("there is no broker any more"))?)
}

async fn reference(order: &Storm) -> Result<Figures, BenchError> {
    let names: Vec<String> = (1..=order.agents).map(|number| format!("bench.raw.{}", agent_id(number))).collect();
    // As in an agent's life each connection declares nothing; one client does it for all.
    let client = Client::connect(&order.broker).await?;
    for name in [STATUSES].into_iter().chain(names.iter().map(String::as_str)) {
        client.queue(name, order.broker.queue_type).await?;
    }
    drop(client);
    tokio::time::sleep(REMEMBERED).await;
    let broker = restart()?;
    let open = |count: u64| {
        let connect = |_| Client::connect(&broker);
        stream::iter((0..count).map(connect)).buffer_unordered(AT_ONCE).try_collect::<Vec<_>>()
    };
    let began = Instant::now();
    let meter = Meter::own(Some(broker.pid))?;
    let first = open(order.agents).await?;
    let spent = meter.end()?;
    let second = open(order.agents).await?;
    let twice = began.elapsed();
    drop((first, second));
    let broker = restart()?;
    let answered = match come_back(&broker, &names).await {
        Ok(took) => Some(order.agents as f64 / took.as_secs_f64()),
        // The broker has lost a queue after all. The other figures are good.
        Err(BenchError::TimedOut { .. }) => None,
        Err(error) => return Err(error),
    };
    let client = Client::connect(&broker).await?;
    for name in [STATUSES].into_iter().chain(names.iter().map(String::as_str)) {
        client.delete(name).await?;
    }
    let agents = order.agents as f64;
    let once = agents / spent.seconds;
    let figures = Figures::of(order.agents, spent).with(ONCE, once).with(TWICE, agents / twice.as_secs_f64());
    Ok(match answered {
        Some(answered) => figures.with(ANSWERED, answered).with(ANSWERED_FLOOR, answered / once),
        None => figures,
    })
}
