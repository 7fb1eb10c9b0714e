//! `longshore dev`: a broker, a server and agents in the foreground, everything in the home folder. For trying things out; nothing
//! here is meant to be reached from other machines. What dies is started again, so that anything may be killed.

use std::fs::{File, TryLockError};
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use broker_config::node::{Node, NodeError, NodeOptions, default_cache, ensure};
use clap::Args;
use server::api::{Access, BindError};
use server::views::counted;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::args::{Global, whole};
use crate::config::{BrokerUrl, ConfigFile, SettingsError};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::home::Home;
use crate::logging;
use crate::output::Printer;
use crate::serving::{self, stopped};

/// How long what died stays dead. Long enough to be seen.
const RESTART_AFTER: Duration = Duration::from_secs(1);
/// How long the last words of a process that died are waited for. More are passed on when they come.
const LAST_WORDS: Duration = Duration::from_millis(100);
/// How long a process may take to end when asked to.
const STOP_LIMIT: Duration = Duration::from_secs(10);
/// How often the broker is looked after, and the server asked whether it is ready.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Locked by the one that runs.
const LOCK_FILE: &str = "dev.lock";

/// Arguments of `longshore dev`.
#[derive(Debug, Args)]
pub(crate) struct DevArgs {
    /// How many agents; they are called a1, a2 and so on
    #[arg(long, env = "LONGSHORE_DEV_AGENTS", value_name = "N", default_value_t = 2, value_parser = whole::<u16>(1..=64))]
    agents: u16,
    /// Runs that each agent does at once [default: as in config.toml of the home folder, else 2]
    #[arg(long, env = "LONGSHORE_AGENT_SLOTS", value_name = "N", value_parser = whole::<u16>(1..=1024))]
    slots: Option<u16>,
    /// A broker to use instead of a private one
    #[arg(long, env = "LONGSHORE_BROKER_URL", hide_env_values = true, value_name = "URL")]
    broker_url: Option<String>,
    /// Where the API listens; port 0 takes a free one
    #[arg(long, env = "LONGSHORE_LISTEN", value_name = "ADDRESS:PORT", default_value = "127.0.0.1:7766")]
    listen: SocketAddr,
}

/// One of the processes.
#[derive(Debug, Clone)]
struct Part {
    name: String,
    arguments: Vec<String>,
}

/// Why a part of the development set-up does not work.
#[derive(Debug, thiserror::Error)]
enum DevError {
    /// The private broker does not start.
    #[error("the private broker does not work")]
    Node(#[from] NodeError),
    /// There is no RabbitMQ and none could be fetched.
    #[error("there is no RabbitMQ")]
    Install(#[from] broker_config::node::InstallError),
    /// A process cannot be started.
    #[error("the {name} cannot be started")]
    Spawn {
        /// Which part.
        name: String,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The server ended before it was ready.
    #[error("the server ended before it was ready; its own words are above")]
    Server,
}

impl From<DevError> for Failure {
    fn from(error: DevError) -> Self {
        let next = match &error {
            DevError::Node(_) => {
                "look at the last lines above and at the broker's log in the home folder, under broker/"
            }
            DevError::Install(_) => "sudo apt-get install rabbitmq-server, or name a broker with --broker-url",
            DevError::Spawn { .. } => "look at the limits of this user's processes",
            DevError::Server => "mend what it says, then start again",
        };
        Self::new(Exit::Unreachable, &error, "everything was stopped again; what was journaled is kept", next)
    }
}

/// Runs everything.
pub(crate) fn run(args: &DevArgs, global: &Global, printer: &Printer) -> Result<Exit, Failure> {
    let home = match &global.dir {
        Some(dir) => Home::find(Some(dir))?,
        // A checkout's own folder, never the user's real data.
        None => Home::find(Some(std::path::Path::new(".longshore")))?,
    };
    logging::start(global);
    let given = args.broker_url.as_deref().map(str::parse::<BrokerUrl>).transpose();
    given.map_err(SettingsError::from)?;
    // Held until this process ends, however it does.
    let _only = only_one(&home)?;
    // Before a whole broker is started in vain, so that what is wrong is said once.
    let named = std::env::var_os("LONGSHORE_CONFIG").map(PathBuf::from);
    drop(ConfigFile::read(named.as_deref(), &home.config_file())?);
    if !args.listen.ip().is_loopback() {
        let error = BindError::NotLoopback { address: args.listen };
        return Err(Failure::new(Exit::Config, &error, "nothing was started", "give --listen 127.0.0.1:7766"));
    }
    if let Err(source) = std::net::TcpListener::bind(args.listen) {
        let next = "stop the other process, or give another address with --listen (port 0 takes a free one)";
        let error = format!("cannot listen on {}: {source}", args.listen);
        return Err(Failure::words(Exit::Config, error, "nothing was started", next));
    }
    serving::run(|stop| serve(&home, args, printer, stop))?
}

/// Takes the lock of the one `dev` that may run in a home folder.
fn only_one(home: &Home) -> Result<File, Failure> {
    let path = home.path().join(LOCK_FILE);
    let opened = std::fs::create_dir_all(home.path())
        .and_then(|()| File::options().create(true).truncate(false).write(true).open(&path));
    let io = |source: &std::io::Error| {
        let error = format!("{} cannot be locked: {source}", path.display());
        Failure::words(
            Exit::Config,
            error,
            "nothing was started",
            "look at permissions, or give another folder with --dir",
        )
    };
    let file = opened.map_err(|source| io(&source))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::Error(source)) => Err(io(&source)),
        Err(TryLockError::WouldBlock) => {
            let dir = home.path().display();
            let error = format!("`longshore dev` runs already in {dir}");
            let next = "use it from another terminal, or stop it with Ctrl-C there; a second one beside it needs --dir OTHER and \
                        --listen 127.0.0.1:0";
            Err(Failure::words(Exit::Config, error, "nothing was started; the other one goes on", next))
        }
    }
}

async fn serve(home: &Home, args: &DevArgs, printer: &Printer, stop: watch::Receiver<bool>) -> Result<Exit, Failure> {
    let (url, node) = match &args.broker_url {
        Some(url) => (url.clone(), None),
        None => {
            let node = start_broker(home.broker_dir(), printer).await?;
            (node.url(), Some(node))
        }
    };
    let parts = parts(home, args);
    let mut tasks = JoinSet::new();
    let (ended, mut server_ended) = watch::channel(false);
    for part in parts {
        let ended = (part.name == "server").then(|| ended.clone());
        tasks.spawn(look_after(part, url.clone(), stop.clone(), ended));
    }
    drop(ended);
    let outcome = tokio::select! {
        access = ready(home.access_file(), stop.clone()) => Ok(access),
        _ = server_ended.wait_for(|ended| *ended) => Err(DevError::Server),
    };
    if let Ok(Some(access)) = &outcome {
        announce(printer, home, args, access);
    }
    let broker = tokio::spawn(keep_broker(node, stop.clone()));
    let mut stopping = stop;
    if outcome.is_ok() {
        stopped(&mut stopping).await;
        while tasks.join_next().await.is_some() {}
    }
    tasks.shutdown().await;
    if outcome.is_err() {
        broker.abort();
    }
    // Dropping the node ends the broker.
    drop(broker.await);
    outcome?;
    printer.note(
        "Stopped. Steps that were running go on under their shims; everything is kept, and `dev` goes on from there.",
    );
    Ok(Exit::Ok)
}

async fn start_broker(dir: PathBuf, printer: &Printer) -> Result<Node, DevError> {
    printer.note("Starting a private RabbitMQ on loopback …");
    let (notes, mut progress) = tokio::sync::mpsc::unbounded_channel();
    let starting = tokio::task::spawn_blocking(move || -> Result<Node, DevError> {
        let installation = ensure(&default_cache(), &mut |step| drop(notes.send(step.to_string())))?;
        let mut node = Node::create(&dir, installation, NodeOptions::default())?;
        node.start()?;
        Ok(node)
    });
    while let Some(note) = progress.recv().await {
        printer.note(&format!("  {note}"));
    }
    starting.await.expect("starting a broker reports its failures instead of panicking")
}

/// Keeps the broker running until told to stop, then stops it.
async fn keep_broker(node: Option<Node>, mut stop: watch::Receiver<bool>) {
    let Some(mut node) = node else { return };
    loop {
        let stopping = tokio::time::timeout(LOOK_EVERY, stopped(&mut stop)).await.is_ok();
        let kept = tokio::task::spawn_blocking(move || {
            if stopping {
                report(node.stop().map(|_| ()));
            } else if !node.is_running() {
                tracing::warn!("The broker is gone; it is started again.");
                report(node.start());
            }
            node
        });
        match kept.await {
            Ok(kept) if !stopping => node = kept,
            Ok(_) | Err(_) => return,
        }
    }
}

fn report(outcome: Result<(), NodeError>) {
    if let Err(error) = outcome {
        tracing::error!(%error, "The private broker does not do as it should.");
    }
}

fn parts(home: &Home, args: &DevArgs) -> Vec<Part> {
    let dir = home.path().display().to_string();
    let names: Vec<String> = (1..=args.agents).map(|number| format!("a{number}")).collect();
    let words = |words: &[&str]| -> Vec<String> { words.iter().map(|word| (*word).to_owned()).collect() };
    let listen = args.listen.to_string();
    let mut parts = vec![Part {
        name: "server".to_owned(),
        arguments: words(&["server", "run", "--dir", &dir, "--listen", &listen, "--agents", &names.join(",")]),
    }];
    for name in names {
        let mut arguments = words(&["agent", "run", "--no-monitor", "--dir", &dir, "--name", &name]);
        // Only what was given: a flag wins over the configuration, which the agents read themselves.
        arguments.extend(args.slots.iter().flat_map(|slots| ["--slots".to_owned(), slots.to_string()]));
        parts.push(Part { name, arguments });
    }
    parts
}

/// Runs one part until told to stop, and again whenever it dies. `ended` is told when it ends by itself.
async fn look_after(part: Part, url: String, mut stop: watch::Receiver<bool>, ended: Option<watch::Sender<bool>>) {
    loop {
        match spawn(&part, &url) {
            Ok(mut child) => {
                let lines = child.stderr.take().map(|stderr| tokio::spawn(pass_on(part.name.clone(), stderr)));
                let status = tokio::select! {
                    status = child.wait() => status,
                    () = stopped(&mut stop) => return end(&mut child).await,
                };
                if let Some(lines) = lines {
                    // Its last words first. What it left running may have its standard error open for as long as that takes.
                    drop(tokio::time::timeout(LAST_WORDS, lines).await);
                }
                let status = status.map_or_else(|error| error.to_string(), |status| status.to_string());
                tracing::warn!(name = %part.name, %status, "A process ended; it is started again.");
            }
            Err(error) => tracing::error!(name = %part.name, %error, "A process cannot be started; tried again."),
        }
        if let Some(ended) = &ended {
            ended.send_replace(true);
        }
        if tokio::time::timeout(RESTART_AFTER, stopped(&mut stop)).await.is_ok() {
            return;
        }
    }
}

fn spawn(part: &Part, url: &str) -> Result<Child, DevError> {
    let spawned = |source| DevError::Spawn { name: part.name.clone(), source };
    let program = std::env::current_exe().map_err(spawned)?;
    let mut command = Command::new(program);
    // The password goes through the environment: others can see a process's arguments.
    command.args(&part.arguments).env("LONGSHORE_BROKER_URL", url).env_remove("LONGSHORE_CONFIG");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true).process_group(0);
    command.spawn().map_err(spawned)
}

/// Asks a process to end, and ends it if it does not.
async fn end(child: &mut Child) {
    if let Some(pid) = child.id().and_then(|id| i32::try_from(id).ok()).and_then(rustix::process::Pid::from_raw) {
        // A hangup stops an agent at once, where a SIGTERM would have it finish its runs first: they go on under their shims. It may
        // have ended meanwhile, which is what is wanted.
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::HUP);
    }
    if tokio::time::timeout(STOP_LIMIT, child.wait()).await.is_err() {
        let _ = child.kill().await;
    }
}

/// Passes on what a process says, with its name before each line.
async fn pass_on(name: String, stderr: tokio::process::ChildStderr) {
    let mut lines = BufReader::new(stderr).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        // When standard error is gone there is nobody left to tell, and a child that nobody reads would wait for ever.
        let _ = writeln!(std::io::stderr(), "{name:>6} │ {line}");
    }
}

/// Waits until the server answers.
async fn ready(path: PathBuf, mut stop: watch::Receiver<bool>) -> Option<Access> {
    loop {
        if let Ok(access) = Access::read(&path)
            && answers(&access.url).await
        {
            return Some(access);
        }
        if tokio::time::timeout(LOOK_EVERY, stopped(&mut stop)).await.is_ok() {
            return None;
        }
    }
}

async fn answers(url: &str) -> bool {
    let health = format!("{url}/healthz");
    tokio::task::spawn_blocking(move || ureq::get(&health).call().is_ok()).await.unwrap_or(false)
}

fn announce(printer: &Printer, home: &Home, args: &DevArgs, access: &Access) {
    let dir = home.path().display();
    let own = std::env::args().next().unwrap_or_else(|| "longshore".to_owned());
    printer.note(&format!(
        "Ready: server at {}, {}, everything in {dir}. Ctrl-C stops it all.\n\
         In another terminal, from this folder:\n\
         \x20 {own} --dir {dir} fleet list\n\
         \x20 {own} --dir {dir} job run FILE.toml --follow\n\
         \x20 {own} --dir {dir} journal list --endpoint a1",
        access.url,
        counted(args.agents, "agent")
    ));
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        dev: DevArgs,
    }

    #[test]
    fn agents_are_told_their_slots_only_when_somebody_said_how_many() {
        let home = Home::find(Some(std::path::Path::new("x"))).unwrap();
        let agent = |line: &[&str]| {
            let line = Line::try_parse_from([&["dev"], line].concat()).unwrap();
            parts(&home, &line.dev).pop().unwrap().arguments
        };
        let alone = agent(&["--agents", "1"]);
        assert_eq!(alone, ["agent", "run", "--no-monitor", "--dir", "x", "--name", "a1"]);
        assert_eq!(agent(&["--agents", "1", "--slots", "3"]), [&alone[..], &["--slots".into(), "3".into()]].concat());
    }
}
