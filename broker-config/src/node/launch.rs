//! How a node's processes are started and when it counts as ready.
//!
//! The environment is built from nothing: a RABBITMQ_ or ERL_ variable of the user, or a file under /etc/rabbitmq, must
//! not reach a private node. Every listener is on loopback: AMQP, TLS, management, epmd and Erlang's own distribution.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::error::NodeError;
use super::locate::Installation;
use super::options::NodeOptions;
use super::process::TOKEN_ENV;
use super::state::{NodeState, write_private};
use crate::render::{DefaultLogin, RabbitmqConf, TlsListener};

/// How often a starting node is asked whether it is ready.
const POLL: Duration = Duration::from_millis(25);
/// How long one such question may take.
const PROBE_LIMIT: Duration = Duration::from_secs(2);
/// epmd listens within milliseconds.
const EPMD_LIMIT: Duration = Duration::from_secs(20);
/// How much of a log is looked at, and how much of that an error carries.
const MAX_LOG_BYTES: u64 = 256 << 10;
const LOG_ERROR_LINES: usize = 8;
const LOG_TAIL_LINES: usize = 6;
const LOG_LINE_CHARS: usize = 240;

/// The files of one node.
#[derive(Debug, Clone)]
pub(crate) struct Paths {
    pub(crate) dir: PathBuf,
}

impl Paths {
    /// What the broker stores; wiping deletes it.
    pub(crate) fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    fn logs(&self) -> PathBuf {
        self.dir.join("log")
    }

    fn log(&self) -> PathBuf {
        self.logs().join("rabbitmq.log")
    }

    fn console(&self) -> PathBuf {
        self.logs().join("console.log")
    }

    fn create(&self) -> Result<(), NodeError> {
        for path in [self.data(), self.logs(), self.dir.join("home")] {
            fs::create_dir_all(&path).map_err(|source| NodeError::Io { action: "create", path, source })?;
        }
        Ok(())
    }

    /// What this start said in both logs, for an error: the first complaints, which name the cause, and the last lines.
    pub(crate) fn last_words(&self) -> String {
        let mut words = String::new();
        for path in [self.log(), self.console()] {
            let text = read_start(&path).unwrap_or_default();
            for line in excerpt(&text) {
                let line: String = line.chars().take(LOG_LINE_CHARS).collect();
                let _ = writeln!(words, "  {line}");
            }
        }
        let _ = write!(words, "  (all of it: {})", self.logs().display());
        words
    }

    /// Moves the logs of the run before aside, so that each file tells of one run.
    fn rotate_logs(&self) -> Result<(), NodeError> {
        for path in [self.log(), self.console()] {
            match fs::rename(&path, path.with_extension("log.1")) {
                Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                    return Err(NodeError::Io { action: "rename", path, source });
                }
                _ => {}
            }
        }
        Ok(())
    }
}

fn read_start(path: &Path) -> std::io::Result<String> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_LOG_BYTES).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The first lines marked as errors, and the last lines, each line once and in order.
fn excerpt(text: &str) -> Vec<&str> {
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    let tail = lines.len().saturating_sub(LOG_TAIL_LINES);
    let errors = lines[..tail].iter().filter(|line| line.contains("[error]")).take(LOG_ERROR_LINES);
    errors.chain(&lines[tail..]).copied().collect()
}

/// Writes the files that the broker reads at its start.
pub(crate) fn write_files(paths: &Paths, state: &NodeState, options: &NodeOptions) -> Result<(), NodeError> {
    paths.create()?;
    paths.rotate_logs()?;
    let loopback = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut conf = RabbitmqConf::development(loopback(state.ports.amqp));
    conf.tls = options.tls.clone().map(|(files, client_certificate)| TlsListener {
        address: loopback(state.ports.tls),
        files,
        client_certificate,
    });
    conf.management = options.management.then(|| loopback(state.ports.management));
    conf.login = Some(DefaultLogin {
        vhost: state.vhost.clone(),
        user: state.login.user.clone(),
        password: state.login.password.clone(),
    });
    if let Some(definitions) = &options.definitions {
        let path = paths.dir.join("definitions.json");
        write_private(&path, definitions)?;
        conf.definitions = Some(path);
    }
    if options.memory_limit.is_some() {
        conf.memory_limit = options.memory_limit;
    }
    if let Some(limit) = options.disk_free_limit {
        conf.disk_free_limit = limit;
    }
    conf.extra.clone_from(&options.extra);
    write_private(&paths.dir.join("rabbitmq.conf"), &conf.render()?)?;
    let plugins = if options.management { "[rabbitmq_management].\n" } else { "[].\n" };
    write_private(&paths.dir.join("enabled_plugins"), plugins)?;
    write_private(&paths.dir.join("rabbitmq-env.conf"), "")
}

/// A command with the node's environment and nothing of the caller's.
pub(crate) fn command(program: &Path, installation: &Installation, paths: &Paths, state: &NodeState) -> Command {
    let dir = &paths.dir;
    let mut path = installation.erlang.clone().into_os_string();
    path.push(":/usr/local/bin:/usr/bin:/bin");
    let mut command = Command::new(program);
    command
        .env_clear()
        .env("PATH", path)
        .env("LANG", "C.UTF-8")
        .env("HOME", dir.join("home"))
        .env(TOKEN_ENV, &state.token)
        .env("ERL_EPMD_PORT", state.ports.epmd.to_string())
        .env("ERL_EPMD_ADDRESS", "127.0.0.1")
        .env("ERL_CRASH_DUMP", paths.logs().join("erl_crash.dump"))
        .env("RABBITMQ_NODENAME", &state.name)
        .env("RABBITMQ_DIST_PORT", state.ports.distribution.to_string())
        .env("RABBITMQ_MNESIA_BASE", paths.data())
        .env("RABBITMQ_MNESIA_DIR", paths.data().join("node"))
        .env("RABBITMQ_GENERATED_CONFIG_DIR", paths.data().join("config"))
        .env("RABBITMQ_LOG_BASE", paths.logs())
        .env("RABBITMQ_LOGS", paths.log())
        .env("RABBITMQ_PID_FILE", paths.data().join("pid"))
        .env("RABBITMQ_ENABLED_PLUGINS_FILE", dir.join("enabled_plugins"))
        .env("RABBITMQ_CONFIG_FILE", dir.join("rabbitmq.conf"))
        .env("RABBITMQ_CONF_ENV_FILE", dir.join("rabbitmq-env.conf"))
        // Their defaults are under /etc/rabbitmq; these do not exist.
        .env("RABBITMQ_CONFIG_FILES", dir.join("no-conf.d"))
        .env("RABBITMQ_ADVANCED_CONFIG_FILE", dir.join("no-advanced.config"))
        // Without this Erlang listens for other nodes, and for the command line tool, on every address.
        .env("RABBITMQ_CTL_ERL_ARGS", "-kernel inet_dist_use_interface {127,0,0,1}")
        .env("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", "-noinput +S 2:2 -kernel inet_dist_use_interface {127,0,0,1}")
        // The script then becomes Erlang instead of watching over it: a signal reaches the broker itself.
        .env("RABBITMQ_ALLOW_INPUT", "1")
        .current_dir(dir)
        .stdin(Stdio::null());
    command
}

/// Starts epmd in the foreground, so that it is ours to end, and waits until it listens.
pub(crate) fn start_epmd(installation: &Installation, paths: &Paths, state: &NodeState) -> Result<Child, NodeError> {
    let program = installation.erlang.join("epmd");
    let mut command = command(&program, installation, paths, state);
    command.args(["-address", "127.0.0.1", "-port", &state.ports.epmd.to_string()]);
    let mut child = spawn(&mut command, &program, paths)?;
    let deadline = Instant::now() + EPMD_LIMIT;
    loop {
        if accepts(state.ports.epmd) {
            return Ok(child);
        }
        give_up_if_ended(&mut child, &program, paths)?;
        if Instant::now() >= deadline {
            // The caller ends everything that carries the token; this only avoids a zombie.
            let _ = child.kill();
            let _ = child.wait();
            return Err(NodeError::NotReady { limit: EPMD_LIMIT, log: paths.last_words() });
        }
        thread::sleep(POLL);
    }
}

/// Starts the broker and waits until it answers an AMQP handshake.
pub(crate) fn start_broker(
    installation: &Installation,
    paths: &Paths,
    state: &NodeState,
    limit: Duration,
) -> Result<Child, NodeError> {
    let mut command = command(&installation.server, installation, paths, state);
    let mut child = spawn(&mut command, &installation.server, paths)?;
    let deadline = Instant::now() + limit;
    loop {
        give_up_if_ended(&mut child, &installation.server, paths)?;
        // The TLS listener opens just after the plain one.
        if answers_amqp(state.ports.amqp) && (!state.tls || accepts(state.ports.tls)) {
            return Ok(child);
        }
        if Instant::now() >= deadline {
            let _ = child.kill();
            let _ = child.wait();
            return Err(NodeError::NotReady { limit, log: paths.last_words() });
        }
        thread::sleep(POLL);
    }
}

fn spawn(command: &mut Command, program: &Path, paths: &Paths) -> Result<Child, NodeError> {
    let console = paths.console();
    let open = || {
        let file = File::options().create(true).append(true).open(&console)?;
        Ok((file.try_clone()?, file))
    };
    let (out, err) = open().map_err(|source| NodeError::Io { action: "open", path: console.clone(), source })?;
    // A group of its own: Ctrl-C at the terminal ends the caller, who then ends the node in order.
    command.stdout(out).stderr(err).process_group(0);
    command.spawn().map_err(|source| NodeError::Io { action: "run", path: program.to_owned(), source })
}

fn give_up_if_ended(child: &mut Child, program: &Path, paths: &Paths) -> Result<(), NodeError> {
    match child.try_wait() {
        Ok(None) => Ok(()),
        Ok(Some(status)) => Err(NodeError::Exited { status: status.to_string(), log: paths.last_words() }),
        Err(source) => Err(NodeError::Io { action: "wait for", path: program.to_owned(), source }),
    }
}

fn accepts(port: u16) -> bool {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    TcpStream::connect_timeout(&address, PROBE_LIMIT).is_ok()
}

/// Whether the port answers `AMQP 0-9-1` with `connection.start`: a listener that merely accepts is not ready.
pub(crate) fn answers_amqp(port: u16) -> bool {
    let ask = || -> std::io::Result<bool> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut stream = TcpStream::connect_timeout(&address, PROBE_LIMIT)?;
        stream.set_read_timeout(Some(PROBE_LIMIT))?;
        stream.set_write_timeout(Some(PROBE_LIMIT))?;
        stream.write_all(b"AMQP\x00\x00\x09\x01")?;
        let mut reply = [0_u8; 11];
        stream.read_exact(&mut reply)?;
        // A method frame (1) on channel 0, of any length, with class 10 and method 10.
        Ok(reply[..3] == [1, 0, 0] && reply[7..] == [0, 10, 0, 10])
    };
    ask().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::excerpt;

    #[test]
    fn an_excerpt_shows_the_first_errors_and_the_last_lines_once() {
        let mut text = String::from("a\n[error] cause\n\n");
        for n in 0..50 {
            text.push_str(&format!("[info] {n}\n"));
        }
        text.push_str("[error] last\n");
        let shown = excerpt(&text);
        assert_eq!(shown.first(), Some(&"[error] cause"));
        assert_eq!(shown.last(), Some(&"[error] last"));
        assert_eq!(shown.len(), 7);
        assert_eq!(excerpt("[error] only"), ["[error] only"]);
        assert!(excerpt("").is_empty());
    }
}
