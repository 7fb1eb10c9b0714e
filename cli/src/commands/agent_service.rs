//! `longshore agent service unit` and `longshore server service unit`: the units for systemd, printed. Installs nothing.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

use crate::args::Global;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::Printer;

/// Where a service keeps everything when nothing is said.
const HOME_DEFAULT: &str = "/var/lib/longshore";

/// Seconds in which an agent that is asked to end may finish what it does.
const DRAIN_SECONDS: u32 = 60;

/// Commands about the service.
#[derive(Debug, Subcommand)]
pub(crate) enum ServiceCommand {
    /// Print a unit for systemd
    Unit(UnitArgs),
}

/// Arguments of `service unit`.
#[derive(Debug, Args)]
pub(crate) struct UnitArgs {
    /// The user that it runs as
    #[arg(long, value_name = "USER", default_value = "longshore")]
    user: String,
    /// The program [default: this one]
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
}

/// For the agent.
pub(crate) fn agent(command: &ServiceCommand, global: &Global, printer: &Printer) -> Result<Exit, Failure> {
    print(command, global, printer, "agent", agent_unit)
}

/// For the server.
pub(crate) fn server(command: &ServiceCommand, global: &Global, printer: &Printer) -> Result<Exit, Failure> {
    print(command, global, printer, "server", server_unit)
}

fn print(
    command: &ServiceCommand,
    global: &Global,
    printer: &Printer,
    what: &str,
    unit: fn(&Words) -> String,
) -> Result<Exit, Failure> {
    let ServiceCommand::Unit(args) = command;
    let (program, home) = (program(args)?, global.dir.clone().unwrap_or_else(|| HOME_DEFAULT.into()));
    let words = Words { program: word(&program)?, home: word(&home)?, user: word(Path::new(&args.user))? };
    printer.text(&unit(&words))?;
    printer.note(&format!(
        "Put it into /etc/systemd/system/longshore-{what}.service, then run `systemctl daemon-reload`."
    ));
    Ok(Exit::Ok)
}

/// What a unit says beside what is always so, each safe to stand in one.
struct Words {
    program: String,
    home: String,
    user: String,
}

fn program(args: &UnitArgs) -> Result<PathBuf, Failure> {
    args.program.clone().map_or_else(std::env::current_exe, Ok).map_err(|error| {
        Failure::new(Exit::Failed, &error, "nothing was printed", "give the program with --program FILE")
    })
}

// A unit has quotes, specifiers and variables of its own: what could be taken for one is refused rather than escaped.
fn word(path: &Path) -> Result<String, Failure> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+@:".contains(c);
    path.to_str().filter(|text| !text.is_empty() && text.chars().all(plain)).map(str::to_owned).ok_or_else(|| {
        let error = format!("{path:?} cannot stand in a unit");
        Failure::words(Exit::Usage, error, "nothing was printed", "use letters, digits and /._-+@: only")
    })
}

fn agent_unit(Words { program, home, user }: &Words) -> String {
    let stop = DRAIN_SECONDS + 30;
    format!(
        "\
[Unit]
Description=Longshore agent
Wants=network-online.target
After=network-online.target
# A broker that is away for a day is no reason to give up.
StartLimitIntervalSec=0

[Service]
Type=notify
NotifyAccess=main
User={user}
# LONGSHORE_AGENT_NAME, LONGSHORE_BROKER_URL and what else should not be seen in a list of processes.
EnvironmentFile=-/etc/longshore/agent.env
ExecStart={program} agent run --dir {home} --drain-limit {DRAIN_SECONDS}
# A new worker, with the configuration and the program that are on disk now. Steps go on.
ExecReload=/bin/kill -s HUP $MAINPID
# Only the agent is told to end. Steps belong to their shims, and outlive a stop, an upgrade and a crash.
KillMode=process
# Steps may be put into groups of their own, to end and to limit them whole.
Delegate=yes
# The agent itself is in one of them from its start on (systemd 254 and later). Older versions start it beside them, and then memory
# and processor time of a step are not limited as a whole.
DelegateSubgroup=longshore
Restart=on-failure
RestartSec=1
# The same again would end the same: command line, damage, permission, configuration.
RestartPreventExitStatus=2 65 77 78
# For a journal of many million messages.
TimeoutStartSec=300
# Finishing takes up to --drain-limit; then it stops, and steps go on.
TimeoutStopSec={stop}
WatchdogSec=90
# A step that uses too much memory is ended, not the agent.
OOMPolicy=continue
TasksMax=infinity
LimitNOFILE=65536
StateDirectory=longshore
StateDirectoryMode=0700
KeyringMode=private
# No more than that: whatever confines this service confines the steps, too, which may need sudo, devices or other users'
# files. And folders of its own (PrivateTmp, ProtectSystem) would be other ones after each start, for steps that go on.

[Install]
WantedBy=multi-user.target
"
    )
}

fn server_unit(Words { program, home, user }: &Words) -> String {
    format!(
        "\
[Unit]
Description=Longshore server
Wants=network-online.target
After=network-online.target
StartLimitIntervalSec=0

[Service]
Type=notify
NotifyAccess=main
User={user}
# LONGSHORE_BROKER_URL, LONGSHORE_AGENTS and what else should not be seen in a list of processes.
EnvironmentFile=-/etc/longshore/server.env
ExecStart={program} server run --dir {home}
Restart=on-failure
RestartSec=1
# The same again would end the same: command line, damage, permission, configuration.
RestartPreventExitStatus=2 65 77 78
TimeoutStartSec=300
TimeoutStopSec=30
WatchdogSec=90
LimitNOFILE=65536
StateDirectory=longshore
StateDirectoryMode=0700
# It starts no programs and needs nothing but its folder and the network.
UMask=0077
NoNewPrivileges=yes
ProtectSystem=strict
ReadWritePaths={home}
ProtectHome=read-only
PrivateTmp=yes
PrivateDevices=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
CapabilityBoundingSet=
KeyringMode=private

[Install]
WantedBy=multi-user.target
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words() -> Words {
        Words { program: "/opt/longshore".into(), home: "/srv/l".into(), user: "ops".into() }
    }

    #[test]
    fn nothing_in_the_agents_unit_ends_or_confines_a_step() {
        let unit = agent_unit(&words());
        for line in
            ["KillMode=process", "Delegate=yes", "Type=notify", "Restart=on-failure", "OOMPolicy=continue", "User=ops"]
        {
            assert!(unit.lines().any(|found| found == line), "{line}");
        }
        assert!(unit.contains("\nExecStart=/opt/longshore agent run --dir /srv/l --drain-limit 60\n"));
        for confines in ["NoNewPrivileges", "Protect", "Private", "SystemCallFilter", "UMask", "OOMScoreAdjust"] {
            assert!(!unit.lines().any(|line| line.starts_with(confines)), "{confines}");
        }
    }

    #[test]
    fn a_stop_by_the_service_manager_leaves_time_to_finish_and_then_to_stop() {
        let unit = agent_unit(&words());
        let number =
            |name: &str| unit.lines().find_map(|line| line.strip_prefix(name)).and_then(|text| text.parse().ok());
        let stop: Option<u32> = number("TimeoutStopSec=");
        assert!(stop.is_some_and(|stop| stop >= DRAIN_SECONDS + 20), "{stop:?}");
    }

    #[test]
    fn what_a_unit_would_take_for_something_else_is_refused() {
        for text in ["", "a b", "/x%h", "$HOME", "a\"b", "a\nUser=root"] {
            assert!(word(Path::new(text)).is_err(), "{text}");
        }
        assert!(word(Path::new("/opt/longshore-1.2+b/bin")).is_ok());
    }
}
