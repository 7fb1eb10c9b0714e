//! A server and an agent as the processes that ship, on the benchmarks' broker. Never starts a broker.

use std::path::{Path, PathBuf};
use std::time::Duration;

use journal::Engine;

use super::clients::Clients;
use super::ends::{agent_id, tidy};
use super::messages::runtime;
use super::proc::{children, tree};
use super::{BenchError, BrokerAt};
use crate::live::{Api, FleetError, Process, longshore, wait_for};

/// How long anything may take. Only reached when something is broken, or the machine is.
const LIMIT: Duration = Duration::from_secs(120);

/// Processes of an agent with a monitor that has nothing to do.
const MONITORED: usize = 2;

/// Ended runs that the agent keeps: more than any benchmark has. What it costs to remove them depends on the file system more than on
/// anything of ours. On one without a journal the kernel goes past every file that was removed in the last minute or minutes
/// before it makes a new one.
const KEPT: &str = "100000";

/// What the processes are to be.
#[derive(Debug, Clone)]
pub(super) struct CrewOptions<'a> {
    pub(super) broker: &'a BrokerAt,
    /// A folder of their own.
    pub(super) dir: &'a Path,
    pub(super) engine: Engine,
    /// Runs that the agent does at once.
    pub(super) slots: u16,
    /// Whether the agent has its monitor above it.
    pub(super) monitor: bool,
}

/// A server, and its one agent. They are ended with this value.
pub(super) struct Crew {
    pub(super) server: Process,
    pub(super) agent: Process,
    /// Who asks the server for jobs.
    pub(super) clients: Clients,
    broker: BrokerAt,
}

/// A server for that many agents, which is not started yet, and a client of it.
pub(super) fn server(broker: &BrokerAt, dir: &Path, engine: Engine, agents: u64) -> Result<(Process, Api), BenchError> {
    let home = dir.display().to_string();
    let names = (1..=agents).map(|number| agent_id(number).to_string()).collect::<Vec<_>>().join(",");
    let process = process("server", &longshore()?, broker, dir).arguments(&[
        "server",
        "run",
        "--dir",
        &home,
        "--listen",
        "127.0.0.1:0",
        "--agents",
        &names,
        "--queue-type",
        broker.queue_type.as_str(),
        "--journal-engine",
        &engine.to_string(),
    ]);
    Ok((process, Api::new(&dir.join("server"))))
}

fn process(name: &str, program: &Path, broker: &BrokerAt, dir: &Path) -> Process {
    Process::new(name, program, &dir.join(format!("{name}.log")))
        .variable("LONGSHORE_BROKER_URL", &broker.url)
        .variable("LONGSHORE_LOG", "warn,lapin=off")
}

impl Crew {
    /// Starts both and waits until the server hears the agent. What earlier ones left in the queues is gone.
    pub(super) fn start(options: &CrewOptions<'_>) -> Result<Self, BenchError> {
        let CrewOptions { broker, dir, engine, slots, monitor } = *options;
        runtime()?.block_on(tidy(broker, 1))?;
        let (mut server, api) = server(broker, dir, engine, 1)?;
        let program = own_copy(dir)?;
        let (home, name) = (dir.display().to_string(), agent_id(1).to_string());
        let (slots, engine) = (slots.to_string(), engine.to_string());
        let mut arguments = vec!["agent", "run", "--dir", &home, "--name", &name, "--slots", &slots];
        arguments.extend(["--journal-engine", &engine, "--keep-runs", KEPT]);
        if !monitor {
            arguments.push("--no-monitor");
        }
        let mut agent = process("agent", &program, broker, dir).arguments(&arguments);
        server.start()?;
        agent.start()?;
        let crew = Self { server, agent, clients: Clients::of(api.clone()), broker: broker.clone() };
        crew.wait("the agent to be online", || {
            let answer = api.get("/v1/agents").ok()?;
            let state = answer.get("agents")?.get(0)?.get("state")?.as_str()?.to_owned();
            (state == "online").then_some(())
        })?;
        Ok(crew)
    }

    fn wait<T>(&self, what: &str, look: impl FnMut() -> Option<T>) -> Result<T, BenchError> {
        wait_for(what, LIMIT, look).map_err(|error| FleetError::from(error).into())
    }

    /// The processes that do the work, and this one, which asks for it. Shims stay from one job to the next.
    pub(super) fn pids(&self) -> Result<Vec<u32>, BenchError> {
        let agent = self.agent.pid();
        let shims = agent.map_or(Ok(Vec::new()), |agent| children(agent, "-"))?;
        Ok(self.server.pid().into_iter().chain(agent).chain(shims).chain([std::process::id()]).collect())
    }

    /// Returns when the agent has only its own processes: shims are ended when no step wanted them for a while.
    pub(super) fn rested(&self) -> Result<(), BenchError> {
        let own = |pid| tree(pid).is_ok_and(|all| all.len() == MONITORED);
        self.wait("the agent to rest", || self.agent.pid().filter(|pid| own(*pid)).map(drop))
    }

    /// Ends both, and leaves nothing in the broker.
    pub(super) fn end(self) -> Result<(), BenchError> {
        let Self { server, agent, broker, .. } = self;
        drop((agent, server));
        runtime()?.block_on(tidy(&broker, 1))
    }
}

/// The program once more, for the agent alone: on a machine of its own it would share none of its pages with a server.
fn own_copy(dir: &Path) -> Result<PathBuf, BenchError> {
    let copy = dir.join("longshore");
    std::fs::copy(longshore()?, &copy)?;
    Ok(copy)
}
