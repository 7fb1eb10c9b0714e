//! One private broker: start, stop, kill, pause, wipe, and finding it again from another process.
//!
//! A node belongs to one [`Node`] at a time, by a lock on its directory. Dropping that ends the broker, unless it was
//! detached. If the owner crashed, the next [`Node::create`] on the directory ends what is left.

use std::fs::{self, File, TryLockError};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::command;
use super::error::NodeError;
use super::launch::{self, Paths};
use super::locate::Installation;
use super::options::NodeOptions;
use super::ports;
use super::process::{self, Instance};
use super::state::NodeState;

/// `rabbitmqctl` starts an Erlang of its own, which takes seconds on a busy machine.
const CTL_LIMIT: Duration = Duration::from_secs(90);
const POLL: Duration = Duration::from_millis(10);

/// How a broker came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stopped {
    /// In order, by its own doing.
    Cleanly,
    /// It did not end in time and was killed.
    Killed,
    /// It was not running.
    WasNotRunning,
}

/// What another process may want to know of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeInfo {
    /// The AMQP URL, with user, password and virtual host.
    pub url: String,
    /// The `amqps` URL, when the node has a TLS listener.
    pub tls_url: Option<String>,
    /// The management plugin's URL, when it is on.
    pub management_url: Option<String>,
    /// The pid of the Erlang machine, when it runs.
    pub pid: Option<u32>,
}

/// A private broker in a directory of its own.
#[derive(Debug)]
pub struct Node {
    installation: Installation,
    options: NodeOptions,
    paths: Paths,
    state: NodeState,
    /// Held as long as this value lives.
    _owner: File,
    /// Started by this value and not yet waited for.
    children: Vec<Child>,
    detached: bool,
}

impl Node {
    /// A stopped node in `dir`, which is created when missing. A directory that was used before keeps its ports, name,
    /// login and data; a broker that a crashed owner left running there is killed.
    ///
    /// # Errors
    /// When the directory cannot be used, belongs to a live process, or holds a damaged node file.
    pub fn create(dir: &Path, installation: Installation, options: NodeOptions) -> Result<Self, NodeError> {
        let node = Self::open(dir, installation, options)?;
        process::kill_all(&node.state.token)?;
        Ok(node)
    }

    /// Like [`Node::create`], but a broker that runs there (see [`Node::detach`]) keeps running and belongs to this
    /// value from now on. The options count from the next start.
    ///
    /// # Errors
    /// As [`Node::create`].
    pub fn adopt(dir: &Path, installation: Installation, options: NodeOptions) -> Result<Self, NodeError> {
        let mut node = Self::open(dir, installation, options)?;
        node.state.pid = process::beam(&node.state.token);
        Ok(node)
    }

    /// What is known of the node in `dir`, whoever owns it; `None` when there is none. Changes nothing.
    ///
    /// # Errors
    /// When the node file cannot be read or is damaged.
    pub fn find(dir: &Path) -> Result<Option<NodeInfo>, NodeError> {
        Ok(NodeState::read(dir)?.map(|state| info(&state)))
    }

    fn open(dir: &Path, installation: Installation, options: NodeOptions) -> Result<Self, NodeError> {
        let io = |action| {
            let path = dir.to_owned();
            move |source| NodeError::Io { action, path, source }
        };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(io("create"))?;
        let dir = fs::canonicalize(dir).map_err(io("find"))?;
        // Passwords, the Erlang cookie and perhaps keys are below.
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o700)).map_err(io("protect"))?;
        let owner = lock(&dir)?;
        let mut state = match NodeState::read(&dir)? {
            Some(state) => state,
            None => NodeState::fresh(options.login.clone(), &options.vhost)?,
        };
        if let Some(login) = &options.login {
            state.login = login.clone();
        }
        state.vhost.clone_from(&options.vhost);
        state.tls = options.tls.is_some();
        state.management = options.management;
        state.write(&dir)?;
        let paths = Paths { dir };
        Ok(Self { installation, options, paths, state, _owner: owner, children: Vec::new(), detached: false })
    }

    /// Starts the broker and returns when it answers AMQP.
    ///
    /// # Errors
    /// When it runs already, a port is taken, or it ends or stays silent; then nothing of it is left running.
    pub fn start(&mut self) -> Result<(), NodeError> {
        if let Some(pid) = self.pid() {
            return Err(NodeError::AlreadyRunning { pid });
        }
        self.end_all()?;
        let ports = self.state.ports;
        let mut needed = vec![
            (ports.amqp, "AMQP"),
            (ports.epmd, "Erlang's port mapper"),
            (ports.distribution, "Erlang's distribution"),
        ];
        needed.extend(self.state.tls.then_some((ports.tls, "AMQP over TLS")));
        needed.extend(self.state.management.then_some((ports.management, "management")));
        if let Some((port, purpose)) = needed.into_iter().find(|(port, _)| !ports::is_free(*port)) {
            return Err(NodeError::PortTaken { port, purpose, path: self.paths.dir.clone() });
        }
        launch::write_files(&self.paths, &self.state, &self.options)?;
        let started = self.start_processes();
        if started.is_err() {
            // The first error explains more than one of cleaning up after it.
            let _ = self.end_all();
        }
        started
    }

    fn start_processes(&mut self) -> Result<(), NodeError> {
        self.children.push(launch::start_epmd(&self.installation, &self.paths, &self.state)?);
        let limit = self.options.start_limit;
        let broker = launch::start_broker(&self.installation, &self.paths, &self.state, limit)?;
        self.children.push(broker);
        self.state.pid = Some(process::beam(&self.state.token).ok_or(NodeError::NotRunning)?);
        self.state.write(&self.paths.dir)
    }

    /// Ends the broker in order: connections are closed, queues are written out. Kills it if that takes too long.
    ///
    /// # Errors
    /// When it cannot be signalled, or does not end even by SIGKILL.
    pub fn stop(&mut self) -> Result<Stopped, NodeError> {
        let Some(pid) = self.pid() else {
            self.end_all()?;
            return Ok(Stopped::WasNotRunning);
        };
        let token = &self.state.token;
        process::signal(pid, token, Signal::TERM)?;
        // A paused broker would not see the other signal.
        process::signal(pid, token, Signal::CONT)?;
        let Some(broker) = Instance::of(pid) else {
            self.end_all()?;
            return Ok(Stopped::Cleanly);
        };
        let deadline = Instant::now() + self.options.stop_limit;
        while !broker.has_ended() && Instant::now() < deadline {
            thread::sleep(POLL);
        }
        let stopped = if broker.has_ended() { Stopped::Cleanly } else { Stopped::Killed };
        self.end_all()?;
        Ok(stopped)
    }

    /// Kills the broker and everything it started with SIGKILL, as a crash would. The data stays.
    ///
    /// # Errors
    /// When a process cannot be signalled or does not end.
    pub fn kill(&mut self) -> Result<(), NodeError> {
        self.end_all()
    }

    /// Kills the broker and deletes its data: queues, messages, users. Ports, name and login stay, so that the next
    /// start gives a blank broker at the same URL.
    ///
    /// # Errors
    /// When a process does not end or the data cannot be deleted.
    pub fn wipe(&mut self) -> Result<(), NodeError> {
        self.end_all()?;
        let data = self.paths.data();
        match fs::remove_dir_all(&data) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(NodeError::Io { action: "delete", path: data, source: error })
            }
            _ => Ok(()),
        }
    }

    /// Freezes the broker (SIGSTOP): connections stay open, nothing answers.
    ///
    /// # Errors
    /// When it is not running or does not stop.
    pub fn pause(&self) -> Result<(), NodeError> {
        self.freeze(Signal::STOP, true)
    }

    /// Lets a paused broker go on (SIGCONT).
    ///
    /// # Errors
    /// When it is not running or does not continue.
    pub fn resume(&self) -> Result<(), NodeError> {
        self.freeze(Signal::CONT, false)
    }

    fn freeze(&self, signal: Signal, paused: bool) -> Result<(), NodeError> {
        let pid = self.pid().ok_or(NodeError::NotRunning)?;
        if !process::signal(pid, &self.state.token, signal)? {
            return Err(NodeError::NotRunning);
        }
        process::wait_paused(pid, paused)
    }

    /// Runs `rabbitmqctl` on this node and returns what it printed; bounded to 90 s.
    ///
    /// # Errors
    /// When the broker is not running or the command fails.
    pub fn ctl(&self, arguments: &[&str]) -> Result<String, NodeError> {
        if !self.is_running() {
            return Err(NodeError::NotRunning);
        }
        let program = self.installation.server.with_file_name("rabbitmqctl");
        let mut ctl = launch::command(&program, &self.installation, &self.paths, &self.state);
        ctl.env_remove("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS").arg("--quiet").args(arguments);
        Ok(command::run(&mut ctl, CTL_LIMIT)?)
    }

    /// Leaves the broker running when this value goes, for another process to [`Node::find`] or [`Node::adopt`].
    #[must_use]
    pub fn detach(mut self) -> NodeInfo {
        self.detached = true;
        info(&self.state)
    }

    /// URLs and pid.
    #[must_use]
    pub fn info(&self) -> NodeInfo {
        info(&self.state)
    }

    /// The AMQP URL, with user, password and virtual host. The same for the node's whole life.
    #[must_use]
    pub fn url(&self) -> String {
        info(&self.state).url
    }

    /// The pid of the Erlang machine, when it runs (paused or not).
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        running(&self.state)
    }

    /// Whether the broker's process is there; a paused one is.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.pid().is_some()
    }

    /// The node's directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.paths.dir
    }

    /// The AMQP port on 127.0.0.1. The same for the node's whole life.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.state.ports.amqp
    }

    fn end_all(&mut self) -> Result<(), NodeError> {
        process::kill_all(&self.state.token)?;
        for mut child in self.children.drain(..) {
            // Dead by now; this takes its entry out of the process table.
            let _ = child.wait();
        }
        Ok(())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if !self.detached {
            // Nobody is left to hear of an error; the next `create` on this directory tries again.
            let _ = self.end_all();
        }
    }
}

fn lock(dir: &Path) -> Result<File, NodeError> {
    let path: PathBuf = dir.join("owner.lock");
    let io = |source| NodeError::Io { action: "lock", path: path.clone(), source };
    let file = File::options().create(true).truncate(false).write(true).open(&path).map_err(io)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(NodeError::InUse { path: dir.to_owned() }),
        Err(TryLockError::Error(error)) => Err(io(error)),
    }
}

fn running(state: &NodeState) -> Option<u32> {
    state.pid.filter(|pid| process::is_alive(*pid, &state.token))
}

fn info(state: &NodeState) -> NodeInfo {
    let user = escape(&state.login.user);
    let password = escape(&state.login.password);
    let vhost = escape(&state.vhost);
    let url = |scheme, port| format!("{scheme}://{user}:{password}@127.0.0.1:{port}/{vhost}");
    NodeInfo {
        url: url("amqp", state.ports.amqp),
        tls_url: state.tls.then(|| url("amqps", state.ports.tls)),
        management_url: state.management.then(|| format!("http://127.0.0.1:{}", state.ports.management)),
        pid: running(state),
    }
}

/// Percent-encodes everything but unreserved characters (RFC 3986).
fn escape(text: &str) -> String {
    let unreserved = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes()
        .map(|byte| if unreserved(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}
