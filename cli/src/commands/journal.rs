//! `longshore journal`: what an endpoint remembers, from its running process or from its folder. It changes no
//! journal; `journal_quarantine.rs` alone puts one aside.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::{Args, Subcommand, ValueEnum};
use journal::inspect::{Answer, InspectError, ListQuery, Query, Stopped};
use link::control::{AskError, Question, Reply, ask as ask_running};
use messages::{EndpointId, Seq};

use super::journal_print::{self, ReadFrom};
use super::journal_quarantine::{self, QuarantineArgs};
use crate::args::{Global, number, whole};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::home::Home;
use crate::output::Printer;
use crate::serving;

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
    /// Put a damaged journal aside, so that its endpoint can begin a new one; nothing is deleted
    Quarantine(QuarantineArgs),
}

/// Which journal.
#[derive(Debug, Args)]
pub(crate) struct JournalArgs {
    /// Whose journal: server, or an agent of this machine
    #[arg(long, env = "LONGSHORE_ENDPOINT", value_name = "NAME", default_value = "server")]
    pub(crate) endpoint: EndpointId,
    /// Read the journal in this folder, whose owner is not running
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
    /// Only messages received or only messages sent
    #[arg(long, value_enum, value_name = "DIRECTION")]
    pub(crate) direction: Option<Direction>,
    /// Only this kind, for example run.start
    #[arg(long, value_name = "KIND")]
    pub(crate) kind: Option<String>,
    /// Begin at this place of each stream, instead of showing the latest
    #[arg(long, value_name = "SEQ", value_parser = number::<u64>)]
    pub(crate) from: Option<u64>,
    /// At most so many of each stream
    #[arg(short = 'n', long, value_name = "N", default_value_t = 50, value_parser = whole::<u32>(1..=10_000))]
    pub(crate) limit: u32,
}

/// Arguments of `longshore journal show`.
#[derive(Debug, Args)]
pub(crate) struct JournalShowArgs {
    #[command(flatten)]
    pub(crate) journal: JournalArgs,
    /// Which message: in:SEQ or out:SEQ
    #[arg(value_name = "MESSAGE")]
    pub(crate) message: Place,
    /// With whom, when the journal has more than one peer
    #[arg(long, value_name = "NAME")]
    pub(crate) peer: Option<EndpointId>,
}

/// Received or sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Direction {
    /// Received
    In,
    /// Sent
    Out,
}

impl From<Direction> for journal::Direction {
    fn from(direction: Direction) -> Self {
        match direction {
            Direction::In => Self::In,
            Direction::Out => Self::Out,
        }
    }
}

/// A message's place in a journal, as people write it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    direction: journal::Direction,
    seq: Seq,
}

/// Why a text is not a place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected in:SEQ or out:SEQ, such as out:58")]
pub(crate) struct PlaceError;

impl FromStr for Place {
    type Err = PlaceError;

    fn from_str(text: &str) -> Result<Self, PlaceError> {
        let (direction, seq) = match text.split_once(':') {
            Some(("in", seq)) => (journal::Direction::In, seq),
            Some(("out", seq)) => (journal::Direction::Out, seq),
            Some(_) | None => return Err(PlaceError),
        };
        let seq = seq.parse().ok().and_then(Seq::new).ok_or(PlaceError)?;
        Ok(Self { direction, seq })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.direction, self.seq)
    }
}

/// Reads the journal and prints what was asked for.
pub(crate) fn run(command: &JournalCommand, global: &Global, printer: &Printer) -> Result<Exit, Failure> {
    let home = Home::find(global.dir.as_deref())?;
    match command {
        JournalCommand::List(args) => {
            let from = args.from.and_then(Seq::new);
            let (peer, direction) = (args.peer.clone(), args.direction.map(Into::into));
            let query = Query::List(ListQuery { peer, direction, from, limit: args.limit });
            let (read, answer) = ask(&home, &args.journal, query)?;
            let Answer::List(entries) = answer else { return Err(misfit(&read)) };
            journal_print::list(printer, &read, entries, args)
        }
        JournalCommand::Show(args) => show(&home, args, printer),
        JournalCommand::Stats(args) => {
            let (read, answer) = ask(&home, args, Query::Stats)?;
            let Answer::Stats(stats) = answer else { return Err(misfit(&read)) };
            journal_print::stats(printer, &read, stats)
        }
        JournalCommand::Verify(args) => {
            let (read, answer) = ask(&home, args, Query::Verify)?;
            let Answer::Verify(report) = answer else { return Err(misfit(&read)) };
            journal_print::verification(printer, &read, report)
        }
        JournalCommand::Quarantine(args) => journal_quarantine::run(&home, args, printer),
    }
}

fn show(home: &Home, args: &JournalShowArgs, printer: &Printer) -> Result<Exit, Failure> {
    let peer = match &args.peer {
        Some(peer) => peer.clone(),
        None => only_peer(home, &args.journal)?,
    };
    let query = Query::Show(peer.clone(), args.message.direction, args.message.seq);
    let (read, answer) = ask(home, &args.journal, query)?;
    let Answer::Show(detail) = answer else { return Err(misfit(&read)) };
    match detail {
        Some(detail) => journal_print::detail(printer, &read, *detail),
        None => Err(Failure::words(
            Exit::Usage,
            format!("there is no message {} with {peer}", args.message),
            "nothing was changed; old settled messages are dropped",
            "`longshore journal list` shows what is kept",
        )),
    }
}

fn only_peer(home: &Home, journal: &JournalArgs) -> Result<EndpointId, Failure> {
    let (read, answer) = ask(home, journal, Query::Stats)?;
    let Answer::Stats(stats) = answer else { return Err(misfit(&read)) };
    let mut peers: Vec<EndpointId> = stats.streams.into_iter().map(|stream| stream.peer).collect();
    peers.dedup();
    match peers.as_slice() {
        [only] => Ok(only.clone()),
        _ => {
            let names: Vec<&str> = peers.iter().map(EndpointId::as_str).collect();
            let error = format!("the journal has {} peers: {}", peers.len(), names.join(", "));
            Err(Failure::words(Exit::Usage, error, "nothing was changed", "say which with --peer NAME"))
        }
    }
}

/// Asks the running owner, or reads the folder when nobody runs.
fn ask(home: &Home, args: &JournalArgs, query: Query) -> Result<(ReadFrom, Answer), Failure> {
    if let Some(dir) = &args.offline {
        // The endpoint's folder or the journal's in it: people have either at hand.
        let inner = dir.join(link::JOURNAL_DIR);
        let dir = if inner.is_dir() { &inner } else { dir };
        // Nobody asked the owner, so it did not fail to answer.
        if journal::is_running(dir).unwrap_or(false) {
            return Err(Failure::words(
                Exit::Unreachable,
                format!("the owner of {} is running; --offline reads only what nobody has open", dir.display()),
                "nothing was changed",
                "ask the owner, with --endpoint NAME instead of --offline, or stop it",
            ));
        }
        return read_stopped(dir, &query);
    }
    let dir = home.endpoint_dir(&args.endpoint);
    let question = Question::Journal(query.clone());
    match serving::run(|_| async { ask_running(&dir, &question).await })? {
        Ok(Reply::Journal(Answer::Failed(reason))) => Err(damaged(&reason)),
        Ok(Reply::Journal(answer)) => Ok((ReadFrom::Running(dir), answer)),
        Ok(Reply::Link(..) | Reply::Resolve(_)) => Err(misfit(&ReadFrom::Running(dir))),
        Err(AskError::NotRunning { .. }) => read_stopped(&dir.join(link::JOURNAL_DIR), &query),
        Err(error @ AskError::NotAllowed { .. }) => Err(Failure::new(
            Exit::NotAllowed,
            &error,
            "nothing was changed",
            "run this as the endpoint's owner, or as root",
        )),
        Err(error @ (AskError::Io { .. } | AskError::TimedOut { .. } | AskError::Unreadable { .. })) => {
            Err(Failure::new(
                Exit::Unreachable,
                &error,
                "the endpoint runs, but did not answer; nothing was changed",
                "try again; if it stays so, stop the endpoint and read its folder with --offline",
            ))
        }
    }
}

fn read_stopped(dir: &Path, query: &Query) -> Result<(ReadFrom, Answer), Failure> {
    let read = ReadFrom::Stopped(dir.to_owned());
    let failed = |error: InspectError| match error {
        InspectError::Missing { .. } => Failure::new(
            Exit::Usage,
            &error,
            "nothing was changed",
            "say where with --dir, --endpoint or --offline; an endpoint makes its journal when it first runs",
        ),
        InspectError::Copy { .. } => Failure::new(
            Exit::Config,
            &error,
            "nothing was changed; a journal is read from a copy in the folder for temporary files",
            "look at permissions and at the space there (TMPDIR)",
        ),
        InspectError::Store(_) | InspectError::Row(_) | InspectError::Illegal(_) | InspectError::Empty => {
            let mut failure = damaged("");
            failure.view.error = Failure::new(Exit::Damaged, &error, "", "").view.error;
            failure
        }
    };
    if journal::is_running(dir).unwrap_or(false) {
        return Err(Failure::words(
            Exit::Unreachable,
            format!("the owner of {} is running, but does not answer questions", dir.display()),
            "nothing was changed",
            "wait until it has started, or stop it",
        ));
    }
    let stopped = Stopped::open(dir).map_err(failed)?;
    let answer = stopped.answer(query).map_err(failed)?;
    Ok((read, answer))
}

fn damaged(reason: &str) -> Failure {
    Failure::words(
        Exit::Damaged,
        reason,
        "nothing was changed",
        "`longshore journal verify` lists everything that is wrong; keep a copy of the folder before anything else",
    )
}

fn misfit(read: &ReadFrom) -> Failure {
    Failure::words(
        Exit::Unreachable,
        format!("the answer of {read} does not fit the question"),
        "nothing was changed",
        "is another version running? Use the same one for both",
    )
}
