//! The command line: what can be asked for, and what holds for every command. Nothing is done here.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::builder::FalseyValueParser;
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::commands::{agent_run, agent_service, broker, completions, dev, fleet, job, journal, reconcile, server_run};

/// Runs work on remote machines and never loses track of it.
#[derive(Debug, Parser)]
#[command(name = "longshore", version, propagate_version = false, max_term_width = 100)]
#[command(after_help = "Exit codes: longshore help exit-codes")]
pub(crate) struct Cli {
    /// What holds for every command.
    #[command(flatten)]
    pub(crate) global: Global,
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What holds for every command.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Global {
    /// How to print data
    #[arg(
        short,
        long,
        global = true,
        value_enum,
        env = "LONGSHORE_FORMAT",
        default_value = "table",
        value_name = "FORMAT"
    )]
    pub(crate) output: Format,
    /// Print JSON, whatever -o or its variable says
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Print no notes, only data and errors
    #[arg(short, long, global = true, env = "LONGSHORE_QUIET", value_parser = FalseyValueParser::new())]
    pub(crate) quiet: bool,
    /// Log more, twice for everything
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
    /// Print no colours; NO_COLOR and TERM=dumb say the same
    #[arg(long, global = true, env = "LONGSHORE_NO_COLOR", value_parser = FalseyValueParser::new())]
    pub(crate) no_color: bool,
    /// Print no progress, only results and what steps write
    #[arg(long, global = true, env = "LONGSHORE_NO_PROGRESS", value_parser = FalseyValueParser::new())]
    pub(crate) no_progress: bool,
    /// Answer yes to every question
    #[arg(short, long, global = true, env = "LONGSHORE_YES", value_parser = FalseyValueParser::new())]
    pub(crate) yes: bool,
    /// How to show times in tables; JSON always has milliseconds since 1970
    #[arg(long, global = true, value_enum, env = "LONGSHORE_TIME", default_value = "relative", value_name = "HOW")]
    pub(crate) time: TimeStyle,
    /// The home folder [default: ./.longshore if it exists, else longshore in the user's data folder]
    #[arg(long, global = true, env = "LONGSHORE_DIR", value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
    /// The server's address [default: from server/api.json in the home folder]
    #[arg(long, global = true, env = "LONGSHORE_SERVER", value_name = "URL")]
    pub(crate) server: Option<String>,
    /// A file with the API token [default: from server/api.json in the home folder]
    #[arg(long, global = true, env = "LONGSHORE_TOKEN_FILE", value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
}

/// How data is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Columns for people
    Table,
    /// More columns for people
    Wide,
    /// One JSON value
    Json,
    /// One JSON value in each line
    Ndjson,
    /// Comma-separated values with a header
    Csv,
    /// Names or ids only, one in each line
    Name,
}

/// How times are shown in tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum TimeStyle {
    /// As UTC
    Utc,
    /// In this machine's time zone
    Local,
    /// As an age
    Relative,
}

impl Global {
    /// The format that was asked for in either way.
    pub(crate) const fn format(&self) -> Format {
        if self.json { Format::Json } else { self.output }
    }
}

/// How long to wait: a time such as `90s` or `10m`, or a bare number of seconds.
pub(crate) fn wait(text: &str) -> Result<Duration, String> {
    if let Ok(seconds) = text.parse() {
        return Ok(Duration::from_secs(seconds));
    }
    let span = text.parse::<jiff::SignedDuration>().ok().and_then(|span| Duration::try_from(span).ok());
    span.ok_or_else(|| "expected a time such as 90s or 10m".to_owned())
}

/// Reads a whole number of that range, with words for one that is none.
pub(crate) fn whole<T>(range: RangeInclusive<u64>) -> impl Fn(&str) -> Result<T, String> + Clone + Send + Sync + 'static
where
    T: TryFrom<u64>,
{
    move |text| {
        let number = text.parse().ok().filter(|number| range.contains(number));
        let number = number.and_then(|number| T::try_from(number).ok());
        number.ok_or_else(|| format!("expected a whole number from {} to {}", range.start(), range.end()))
    }
}

/// Reads a whole number whose range is looked at later, where the configuration may say it, too.
pub(crate) fn number<T: FromStr>(text: &str) -> Result<T, &'static str> {
    text.parse().map_err(|_| "expected a whole number, and not such a large one")
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// The server: decides which agent does what
    #[command(subcommand)]
    Server(ServerCommand),
    /// The agent: does it
    #[command(subcommand)]
    Agent(AgentCommand),
    /// A broker, a server and agents in the foreground, everything in one folder
    Dev(dev::DevArgs),
    /// Jobs: submitting, watching, cancelling, deciding; checking job files
    #[command(subcommand)]
    Job(job::JobCommand),
    /// The agents that the server knows
    #[command(subcommand, visible_alias = "agents")]
    Fleet(fleet::FleetCommand),
    /// What an endpoint remembers, while it runs and when it is dead
    #[command(subcommand)]
    Journal(journal::JournalCommand),
    /// How the journals of two endpoints stand to each other, and deciding when they cannot go on
    #[command(subcommand)]
    Reconcile(reconcile::ReconcileCommand),
    /// The RabbitMQ side
    #[command(subcommand)]
    Broker(broker::BrokerCommand),
    /// The versions of this program and of the server
    Version,
    /// A completion script for a shell
    Completions(completions::CompletionsArgs),
    /// What the exit codes mean
    // A topic of `help`, which is asked for as one and has no options worth a page.
    #[command(name = "exit-codes", hide = true, help_template = "{about}", about = exit_codes(), long_about = exit_codes())]
    ExitCodes,
}

/// Commands of the server.
#[derive(Debug, Subcommand)]
pub(crate) enum ServerCommand {
    /// Run the server in the foreground
    Run(server_run::ServerRunArgs),
    /// The server as a service of systemd
    #[command(subcommand)]
    Service(agent_service::ServiceCommand),
}

/// Commands of an agent.
#[derive(Debug, Subcommand)]
pub(crate) enum AgentCommand {
    /// Run an agent in the foreground
    Run(Box<agent_run::AgentRunArgs>),
    /// The agent as a service of systemd
    #[command(subcommand)]
    Service(agent_service::ServiceCommand),
}

fn exit_codes() -> String {
    format!("The exit codes are the same for every command and stay as they are:\n\n{}", crate::exit::table())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_does_not_contradict_itself() {
        use clap::CommandFactory as _;
        Cli::command().debug_assert();
    }
}
