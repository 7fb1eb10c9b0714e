//! `longshore journal`: what an endpoint remembers, from its running process or from its folder. Never changes a journal.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use messages::EndpointId;

use crate::args::Global;
use crate::exit::Exit;
use crate::failure::{Failure, NotWired};

/// Commands about journals.
#[derive(Debug, Subcommand)]
pub(crate) enum JournalCommand {
    /// The messages of a journal, one in each line
    List(JournalListArgs),
    /// One message with everything known of it
    Show(JournalShowArgs),
    /// How much a journal holds, and how far it is acknowledged
    Stats(JournalArgs),
    /// Check a whole journal: checksums, chains, sequences; exit code 65 when it is damaged
    Verify(JournalArgs),
}

/// Which journal.
#[derive(Debug, Args)]
pub(crate) struct JournalArgs {
    /// Whose journal: server, or an agent of this machine
    #[arg(long, env = "LONGSHORE_ENDPOINT", value_name = "NAME", default_value = "server")]
    pub(crate) endpoint: EndpointId,
    /// Read this journal folder, whose owner is not running
    #[arg(long, value_name = "DIR", conflicts_with = "endpoint")]
    pub(crate) offline: Option<PathBuf>,
}

/// Arguments of `longshore journal list`.
#[derive(Debug, Args)]
pub(crate) struct JournalListArgs {
    #[command(flatten)]
    pub(crate) journal: JournalArgs,
    /// Only messages from or to this peer
    #[arg(long, value_name = "NAME")]
    pub(crate) peer: Option<EndpointId>,
    /// Only this kind, for example run.start
    #[arg(long, value_name = "KIND")]
    pub(crate) kind: Option<String>,
    /// At most so many, the latest
    #[arg(short = 'n', long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) limit: u32,
}

/// Arguments of `longshore journal show`.
#[derive(Debug, Args)]
pub(crate) struct JournalShowArgs {
    #[command(flatten)]
    pub(crate) journal: JournalArgs,
    /// Which message: in:SEQ or out:SEQ, with @PEER behind it when the journal has more than one peer
    #[arg(value_name = "MESSAGE")]
    pub(crate) message: String,
}

/// TO WIRE: reads the journal and prints what was asked for.
pub(crate) fn run(command: &JournalCommand, _global: &Global) -> Result<Exit, Failure> {
    let (command, journal) = match command {
        JournalCommand::List(args) => ("journal list", &args.journal),
        JournalCommand::Show(args) => ("journal show", &args.journal),
        JournalCommand::Stats(args) => ("journal stats", args),
        JournalCommand::Verify(args) => ("journal verify", args),
    };
    tracing::debug!(endpoint = %journal.endpoint, offline = journal.offline.is_some(), "Would read.");
    Err(NotWired { command }.into())
}
