//! The agent as a service: monitor and worker as processes, before a service manager's socket. There is no broker, which changes
//! nothing here.

use std::os::unix::net::UnixDatagram;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::run::Home;

/// After this a test fails that would otherwise wait for ever. Nothing here takes a tenth of it.
const PATIENCE: Duration = Duration::from_secs(600);

/// What systemd is to an agent.
struct Manager {
    home: Home,
    socket: UnixDatagram,
}

impl Manager {
    fn new() -> Self {
        let home = Home::new();
        let socket = UnixDatagram::bind(home.path().join("notify")).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { home, socket }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.home.command(&[&["agent", "run", "--name", "a1"], arguments].concat());
        command.env("LONGSHORE_BROKER_URL", "amqp://u:p@127.0.0.1:1").env("WATCHDOG_USEC", "60000000");
        command.env("NOTIFY_SOCKET", self.home.path().join("notify"));
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    /// Listens until it is told something that begins so, and returns everything that came before, too.
    fn hear(&self, words: &str) -> Vec<String> {
        let mut heard = Vec::new();
        let mut bytes = [0; 512];
        loop {
            let length =
                self.socket.recv(&mut bytes).unwrap_or_else(|error| panic!("{words}: {error}, after {heard:?}"));
            heard.push(String::from_utf8_lossy(&bytes[..length]).into_owned());
            if heard.last().is_some_and(|last| last.starts_with(words)) {
                return heard;
            }
        }
    }
}

fn pid(child: &Child) -> i32 {
    i32::try_from(child.id()).unwrap()
}

fn send(pid: i32, signal: Signal) {
    kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
}

fn worker(monitor: &Child) -> i32 {
    let children = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", monitor.id())).unwrap();
    children.split_whitespace().next().unwrap().parse().unwrap()
}

#[test]
fn the_service_manager_hears_of_a_worker_that_was_killed_and_is_back() {
    let manager = Manager::new();
    let mut agent = manager.command(&[]).spawn().unwrap();
    let ready = manager.hear("READY=1");
    assert!(ready.last().is_some_and(|ready| ready.contains(&format!("MAINPID={}\n", agent.id()))), "{ready:?}");
    manager.hear("WATCHDOG=1");
    let first = worker(&agent);
    send(first, Signal::KILL);
    let back = manager.hear("READY=1");
    assert!(back.iter().any(|told| told.contains("the worker ended; it is started again")), "{back:?}");
    let second = worker(&agent);
    assert_ne!(first, second);
    // A new worker on demand: the service does not stop for it.
    send(pid(&agent), Signal::HUP);
    let renewed = manager.hear("READY=1");
    assert!(!renewed.iter().any(|told| told.starts_with("STOPPING")), "{renewed:?}");
    assert_ne!(second, worker(&agent));
    send(pid(&agent), Signal::TERM);
    manager.hear("STATUS=finishes");
    // With nothing to finish it may have ended by itself already; nobody has waited for it, so its id is still its own.
    send(pid(&agent), Signal::TERM);
    manager.hear("STOPPING=1");
    assert_eq!(agent.wait().unwrap().code(), Some(0));
}

#[test]
fn an_agent_without_a_monitor_speaks_to_the_service_manager_itself() {
    let manager = Manager::new();
    let mut agent = manager.command(&["--no-monitor"]).spawn().unwrap();
    let ready = manager.hear("READY=1");
    assert!(ready.last().is_some_and(|ready| ready.contains(&format!("MAINPID={}\n", agent.id()))), "{ready:?}");
    send(pid(&agent), Signal::HUP);
    manager.hear("STOPPING=1");
    assert_eq!(agent.wait().unwrap().code(), Some(0));
}

#[test]
fn a_journal_that_cannot_be_opened_ends_the_monitor_too_and_is_told_once() {
    let home = Home::new();
    home.write("agents/a1/journal/store/db", "damaged");
    home.write("agents/a1/journal/high-water", "a mark");
    let arguments = ["agent", "run", "--name", "a1"];
    let alone = home.run(&[&arguments[..], &["--no-monitor"]].concat());
    assert!([65, 78].contains(&alone.code), "{alone:?}");
    let ran = home.run(&arguments);
    assert_eq!(ran.code, alone.code, "{ran:?}");
    assert_eq!(ran.err.matches("error:").count(), 1, "{ran:?}");
    assert!(ran.err.contains("\nnext:") && ran.err.contains("the worker ended with exit code"), "{ran:?}");
}

#[test]
fn what_the_command_line_gets_wrong_is_said_before_there_is_a_monitor() {
    let home = Home::new();
    for (arguments, code) in [(["--label", "x"], 2), (["--pool", "a b"], 78), (["--drain-limit", "soon"], 2)] {
        let ran = home.run(&[&["agent", "run", "--name", "a1"], &arguments[..]].concat());
        assert!(ran.code == code && !ran.err.contains("monitor:"), "{ran:?}");
    }
    let ran = home.run(&["agent", "monitor"]);
    assert!(ran.code == 2 && ran.err.contains("longshore agent run"), "{ran:?}");
    let ran = home.run(&["agent", "run", "--name", "a1", "--as-worker"]);
    assert!(ran.code == 1 && ran.err.contains("without --as-worker"), "{ran:?}");
}

#[test]
fn the_units_name_what_they_were_asked_for_and_refuse_what_a_unit_would_read_otherwise() {
    let home = Home::new();
    for (what, keeps) in [("agent", "KillMode=process"), ("server", "ProtectSystem=strict")] {
        let ran = home.run(&["--dir", "/srv/ls", what, "service", "unit", "--user", "ops", "--program", "/opt/ls"]);
        assert_eq!(ran.code, 0, "{ran:?}");
        let lines: Vec<&str> = ran.out.lines().collect();
        assert!(lines.contains(&"User=ops") && lines.contains(&"Type=notify") && lines.contains(&keeps), "{ran:?}");
        assert!(
            lines.iter().any(|line| line.starts_with(&format!("ExecStart=/opt/ls {what} run --dir /srv/ls"))),
            "{ran:?}"
        );
    }
    let ran = home.run(&["agent", "service", "unit", "--user", "a\nExecStart=/bin/sh"]);
    assert!(ran.code == 2 && ran.out.is_empty(), "{ran:?}");
}

#[test]
fn systemd_takes_the_units_for_valid() {
    let home = Home::new();
    for what in ["agent", "server"] {
        let ran = home.run(&[what, "service", "unit", "--user", "root", "--program", env!("CARGO_BIN_EXE_longshore")]);
        assert_eq!(ran.code, 0, "{ran:?}");
        let name = format!("longshore-{what}.service");
        home.write(&name, &ran.out);
        let verified =
            Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(home.path().join(&name)).output();
        let verified = match verified {
            Ok(verified) => verified,
            Err(error) => {
                eprintln!("skipped: there is no systemd-analyze: {error}");
                return;
            }
        };
        let said = String::from_utf8_lossy(&verified.stderr);
        // Versions before 254 know no subgroups, and say so. What other units of the machine are like is not looked at.
        let wrong = said.lines().find(|line| line.contains(&name) && !line.contains("'DelegateSubgroup'"));
        assert!(verified.status.success() && wrong.is_none(), "{said}");
    }
}
