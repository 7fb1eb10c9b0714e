//! `longshore dev`: a broker, a server and agents in the foreground, everything in the home folder. For trying things out; nothing
//! here is meant to be reached from other machines.

use std::net::SocketAddr;

use clap::Args;

use crate::args::Global;
use crate::exit::Exit;
use crate::failure::{Failure, NotWired};
use crate::home::Home;
use crate::logging;

/// Arguments of `longshore dev`.
#[derive(Debug, Args)]
pub(crate) struct DevArgs {
    /// How many agents; they are called a1, a2 and so on
    #[arg(long, env = "LONGSHORE_DEV_AGENTS", value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=64))]
    agents: u16,
    /// Runs that each agent does at once
    #[arg(long, env = "LONGSHORE_AGENT_SLOTS", value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=1024))]
    slots: u16,
    /// A broker to use instead of a private one
    #[arg(long, env = "LONGSHORE_BROKER_URL", hide_env_values = true, value_name = "URL")]
    broker_url: Option<String>,
    /// Where the API listens; port 0 takes a free one
    #[arg(long, env = "LONGSHORE_LISTEN", value_name = "ADDRESS:PORT", default_value = "127.0.0.1:7766")]
    listen: SocketAddr,
}

/// Runs everything.
pub(crate) fn run(args: &DevArgs, global: &Global) -> Result<Exit, Failure> {
    let home = Home::find(global.dir.as_deref())?;
    logging::start(global);
    serve(&home, args)
}

/// TO WIRE: runs everything in that home folder, and returns when it has stopped.
fn serve(home: &Home, args: &DevArgs) -> Result<Exit, Failure> {
    tracing::debug!(home = %home.path().display(), agents = args.agents, slots = args.slots, listen = %args.listen,
        own_broker = args.broker_url.is_none(), "Would start.");
    Err(NotWired { command: "dev" }.into())
}
