//! A broker, a server and agents as processes, under one folder.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use broker_config::node::{InstallError, Node, NodeError, NodeOptions, default_cache, ensure};
use link::control::{AskError, Question, Reply, ask};
use link::{EndpointView, LinkState};
use messages::EndpointId;

use super::api::{Api, ApiError};
use super::gate::Gate;
use super::process::{Process, longshore};
use super::wait::{TimedOut, wait_for};

/// How long anything may take to come up or to recover. Only reached when something is broken, or the machine is.
const LIMIT: Duration = Duration::from_secs(120);

/// What a fleet is made of.
#[derive(Debug, Clone)]
pub struct FleetOptions {
    /// Where everything is kept.
    pub dir: PathBuf,
    /// The agents' names.
    pub agents: Vec<String>,
    /// Runs that each does at once.
    pub slots: u16,
    /// `quorum` or `classic`.
    pub queue_type: String,
    /// Whether each agent has its monitor, which is then what is started here. Without it the agent is one process.
    pub monitor: bool,
    /// Agents whose way to the broker can be closed.
    pub gated: Vec<String>,
}

/// Why a fleet does not do as it should.
#[derive(Debug, thiserror::Error)]
pub enum FleetError {
    /// The broker does not.
    #[error("the broker does not work")]
    Node(#[from] NodeError),
    /// There is no broker to start.
    #[error("there is no RabbitMQ")]
    Install(#[from] InstallError),
    /// The operating system refused.
    #[error("a process or a file does not work")]
    Io(#[from] io::Error),
    /// Something did not happen.
    #[error(transparent)]
    TimedOut(#[from] TimedOut),
    /// The server's API does not answer.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// An endpoint does not answer on its socket.
    #[error(transparent)]
    Ask(#[from] AskError),
    /// The endpoint's name is not one.
    #[error(transparent)]
    Name(#[from] messages::IdError),
}

/// Messages sent again, by endpoint, since each process started.
pub type Resent = BTreeMap<String, u64>;

/// A running fleet. Everything is ended when it is dropped.
pub struct Fleet {
    /// The broker.
    pub node: Node,
    /// The server.
    pub server: Process,
    /// The agents, by name.
    pub agents: BTreeMap<String, Process>,
    /// What some of them reach the broker through, by name.
    pub gates: BTreeMap<String, Gate>,
    dir: PathBuf,
    runtime: tokio::runtime::Runtime,
}

impl Fleet {
    /// Starts everything and waits until every agent is online.
    ///
    /// # Errors
    /// [`FleetError`]
    pub fn start(options: &FleetOptions, note: &mut dyn FnMut(String)) -> Result<Self, FleetError> {
        let dir = std::path::absolute(&options.dir)?;
        std::fs::create_dir_all(dir.join("logs"))?;
        let installation = ensure(&default_cache(), &mut |step| note(step.to_string()))?;
        let mut node = Node::create(&dir.join("home/broker"), installation, NodeOptions::default())?;
        node.start()?;
        let (program, home) = (longshore()?, dir.join("home"));
        let home = home.display().to_string();
        let url = node.url();
        let broker = SocketAddr::from(([127, 0, 0, 1], node.port()));
        let gate = |name: &String| -> io::Result<(String, Gate)> { Ok((name.clone(), Gate::to(broker)?)) };
        let gates: BTreeMap<String, Gate> = options.gated.iter().map(gate).collect::<io::Result<_>>()?;
        let port = |name: &str| gates.get(name).map_or_else(|| node.port(), |gate| gate.address().port());
        let process = |name: &str| {
            let url = url.replace(&format!(":{}/", node.port()), &format!(":{}/", port(name)));
            Process::new(name, &program, &dir.join("logs").join(format!("{name}.log")))
                .variable("LONGSHORE_BROKER_URL", &url)
                .variable("LONGSHORE_LOG", "info,lapin=off")
        };
        let names = options.agents.join(",");
        let server = process("server").arguments(&[
            "server",
            "run",
            "--dir",
            &home,
            "--listen",
            "127.0.0.1:0",
            "--agents",
            &names,
            "--queue-type",
            &options.queue_type,
        ]);
        let slots = options.slots.to_string();
        let agent = |name: &String| {
            let mut arguments = vec!["agent", "run", "--dir", &home, "--name", name, "--slots", &slots];
            if !options.monitor {
                // What a test kills is then the agent itself.
                arguments.push("--no-monitor");
            }
            (name.clone(), process(name).arguments(&arguments))
        };
        let agents = options.agents.iter().map(agent).collect();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let mut fleet = Self { node, server, agents, gates, dir, runtime };
        fleet.server.start()?;
        for agent in fleet.agents.values_mut() {
            agent.start()?;
        }
        fleet.wait_online()?;
        Ok(fleet)
    }

    /// A client of the server's API.
    #[must_use]
    pub fn api(&self) -> Api {
        Api::new(&self.home().join("server"))
    }

    /// The home folder, for the command line.
    #[must_use]
    pub fn home(&self) -> PathBuf {
        self.dir.join("home")
    }

    /// The folder of an endpoint.
    #[must_use]
    pub fn endpoint_dir(&self, name: &str) -> PathBuf {
        if name == "server" { self.home().join("server") } else { self.home().join("agents").join(name) }
    }

    /// Waits until the server calls every agent online.
    ///
    /// # Errors
    /// [`TimedOut`]
    pub fn wait_online(&self) -> Result<(), TimedOut> {
        let api = self.api();
        wait_for("every agent to be online", LIMIT, || {
            let answer = api.get("/v1/agents").ok()?;
            let agents = answer.get("agents")?.as_array()?;
            let all = agents.iter().all(|agent| agent.get("state").is_some_and(|state| state == "online"));
            (all && agents.len() == self.agents.len()).then_some(())
        })
    }

    /// Every endpoint's name.
    #[must_use]
    pub fn endpoints(&self) -> Vec<String> {
        std::iter::once("server".to_owned()).chain(self.agents.keys().cloned()).collect()
    }

    /// Asks an endpoint, over its own socket, about its connection and its streams.
    ///
    /// # Errors
    /// [`FleetError::Ask`] while it does not run.
    pub fn link(&self, name: &str) -> Result<(LinkState, Vec<EndpointView>), FleetError> {
        let peers: Vec<EndpointId> = if name == "server" {
            self.agents.keys().map(|agent| agent.parse()).collect::<Result<_, _>>()?
        } else {
            vec![EndpointId::Server]
        };
        match self.runtime.block_on(ask(&self.endpoint_dir(name), &Question::Link(peers)))? {
            Reply::Link(state, views) => Ok((state, views)),
            Reply::Journal(_) | Reply::Resolve(_) => Err(AskError::Unreadable { path: self.endpoint_dir(name) }.into()),
        }
    }

    /// Messages sent again by each endpoint's present process. An endpoint that is down counts as 0.
    #[must_use]
    pub fn resent(&self) -> Resent {
        let count = |name: &String| self.link(name).map(|(state, _)| state.resent).unwrap_or(0);
        self.endpoints().into_iter().map(|name| (name.clone(), count(&name))).collect()
    }

    /// Waits until every endpoint is connected and has nothing that its peer has not received.
    ///
    /// # Errors
    /// [`TimedOut`]
    pub fn wait_reconciled(&self) -> Result<(), TimedOut> {
        let mut left = self.endpoints();
        wait_for("every endpoint to be connected and reconciled", LIMIT, || {
            left.retain(|name| !self.is_reconciled(name));
            left.is_empty().then_some(())
        })
    }

    fn is_reconciled(&self, name: &str) -> bool {
        self.link(name).is_ok_and(|(state, views)| {
            state.connected && views.iter().all(|view| view.streams.outgoing.received >= view.streams.outgoing.last)
        })
    }

    /// A process by name.
    pub fn process(&mut self, name: &str) -> Option<&mut Process> {
        if name == "server" { Some(&mut self.server) } else { self.agents.get_mut(name) }
    }

    /// The folder everything is in.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }
}
