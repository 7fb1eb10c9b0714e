//! The one binary: server, agent and the operator's commands. Parses, dispatches, prints how it ended. The work is done elsewhere.

mod args;
mod client;
mod commands;
mod config;
mod exit;
mod failure;
mod home;
mod logging;
mod output;
mod serving;
mod supervised;
mod usage;

use std::path::Path;
use std::process::ExitCode;

use clap::{ColorChoice, CommandFactory as _, FromArgMatches as _};

use args::{AgentCommand, Cli, Command, ServerCommand};
use exit::Exit;
use failure::Failure;
use output::Printer;

fn main() -> ExitCode {
    // A shim is started for every step, and a monitor stays for as long as the machine runs: their few milliseconds and kilobytes
    // count, so they do not pay for the command line, logging or a runtime.
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    match arguments.as_slice() {
        [agent, shim, folder] if agent == "agent" && shim == "shim" => {
            return commands::agent_shim::run(Path::new(folder));
        }
        [agent, monitor, rest @ ..] if agent == "agent" && monitor == "monitor" => {
            return commands::agent_monitor::run(rest);
        }
        _ => {}
    }
    let cli = match parse() {
        Ok(cli) => cli,
        Err(error) => return usage::print(&error, &arguments).into(),
    };
    drop(arguments);
    let printer = Printer::new(&cli.global);
    match dispatch(&cli, &printer) {
        Ok(exit) => exit.into(),
        Err(failure) => {
            printer.failure(&failure);
            failure.exit.into()
        }
    }
}

/// Reads the command line. Whether help and usage errors may have colours has to be known before.
fn parse() -> Result<Cli, clap::Error> {
    let set = std::env::var("LONGSHORE_NO_COLOR")
        .is_ok_and(|value| !matches!(value.to_lowercase().as_str(), "" | "0" | "n" | "no" | "f" | "false" | "off"));
    let plain = set || std::env::args_os().any(|argument| argument == "--no-color");
    let mut command = Cli::command().color(if plain { ColorChoice::Never } else { ColorChoice::Auto });
    let matches = command.try_get_matches_from_mut(std::env::args_os())?;
    Cli::from_arg_matches(&matches).map_err(|error| error.format(&mut command))
}

fn dispatch(cli: &Cli, printer: &Printer) -> Result<Exit, Failure> {
    let global = &cli.global;
    match &cli.command {
        Command::Server(ServerCommand::Run(args)) => commands::server_run::run(args, global),
        Command::Server(ServerCommand::Service(command)) => commands::agent_service::server(command, global, printer),
        Command::Agent(AgentCommand::Run(args)) => commands::agent_run::run(args, global),
        Command::Agent(AgentCommand::Service(command)) => commands::agent_service::agent(command, global, printer),
        Command::Dev(args) => commands::dev::run(args, global, printer),
        Command::Job(command) => commands::job::run(command, global, printer),
        Command::Fleet(command) => commands::fleet::run(command, global, printer),
        Command::Journal(command) => commands::journal::run(command, global, printer),
        Command::Reconcile(command) => commands::reconcile::run(command, global, printer),
        Command::Broker(command) => commands::broker::run(command, global, printer),
        Command::Version => commands::version::run(global, printer),
        Command::Completions(args) => commands::completions::run(args, printer),
        Command::ExitCodes => {
            printer.text(&exit::table())?;
            Ok(Exit::Ok)
        }
    }
}
