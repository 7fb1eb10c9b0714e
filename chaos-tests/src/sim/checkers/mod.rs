//! The checkers: each holds the world to one promise. A checker is told what was observed and answers with a violation or with
//! nothing; it knows no scenario, injects nothing and never looks into a session that it was not shown.

mod bounded;
mod bytes;
mod damage;
mod effects;
mod lost;
mod marks;
mod order;
mod reconcile;
mod replay;

use std::collections::BTreeSet;
use std::fmt;

use journal::{Incoming, State};
use link::session::Config;
use messages::{Incarnation, Message, Receiving, Seq};

use super::broker::{CopyId, Fate};
use super::trace::Clock;

/// A promise of the design.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Promise {
    /// Nothing acknowledged is lost.
    P1,
    /// Nothing takes effect twice unless its author allowed it.
    P2,
    /// Reconciling costs what was lost.
    P3,
    /// Everything can be inspected: what is on disk is what is known.
    P6,
    /// Everything is bounded.
    P7,
    /// No wall clock decides anything.
    P8,
}

/// A promise was broken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{promise:?} {checker} at {}: {what}", Clock(*at))]
pub struct Violation {
    /// Which promise.
    pub promise: Promise,
    /// Who found it.
    pub checker: &'static str,
    /// Virtual milliseconds since the world began.
    pub at: u64,
    /// What was seen, with its ids.
    pub what: String,
}

/// One stream of one journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Stream {
    pub(crate) from: usize,
    pub(crate) to: usize,
    pub(crate) journal: Incarnation,
}

impl fmt::Display for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}→{}", Seat(self.from), Seat(self.to))
    }
}

/// An endpoint's place, for people: 0 is the server.
pub(crate) struct Seat(pub(crate) usize);

impl fmt::Display for Seat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => f.pad("server"),
            agent => f.pad(&format!("a{agent}")),
        }
    }
}

/// How a job ended, as the server has it on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum JobEnd {
    Open,
    Done,
    Unknown,
    Refused,
}

/// What the rows of a whole journal amount to, read anew.
pub(crate) struct Replay {
    pub(crate) state: State,
    /// What is wrong with the rows, in words.
    pub(crate) problems: Vec<String>,
}

/// Something that was seen in the world.
pub(crate) enum Observation<'a> {
    /// A process opened its journal, or was refused.
    Opened { seat: usize, node: usize, damaged: Option<&'a str>, state: Result<&'a State, String> },
    /// A message is durable at its sender.
    Numbered { stream: Stream, seq: Seq, message: &'a Message },
    /// A message was handed to the broker.
    Handed { stream: Stream, seq: Seq, bytes: &'a [u8], copy: CopyId, received: Option<Seq>, window: u32 },
    /// Something became of a copy.
    Copy { copy: CopyId, fate: Fate },
    /// A delivery was acknowledged to the broker.
    Settled { stream: Stream, seq: Seq, copy: Option<CopyId>, durable: bool, turned_away: bool },
    /// A receiver turned a message away, which the broker may or may not come to know.
    TurnedAway { from: usize, to: usize, seq: Seq },
    /// An endpoint said what it has of a stream.
    Claimed { seat: usize, peer: usize, claim: &'a Receiving, durable: Option<&'a Incoming> },
    /// An endpoint stopped its streams with a peer, or cannot read its own journal.
    Complained { seat: usize, peer: usize, why: &'a str },
    /// The application was given a message.
    Offered { node: usize, stream: Stream, place: Seq, seq: Seq, bytes: &'a [u8] },
    /// The client was told that its job is taken.
    Acknowledged { job: u64 },
    /// A step was executed, in the world outside.
    Executed { seat: usize, node: usize, job: u64, once: bool, step: u8, steps: u8 },
    /// A commit is done. The session's state is given when nothing of it is on its way.
    Committed {
        node: usize,
        config: &'a Config,
        session: Option<&'a State>,
        written: &'a State,
        replay: Option<&'a Replay>,
    },
    /// The server has the end of a job on disk when everything is at rest. Excused when its agent's streams are stopped.
    Ended { job: u64, end: JobEnd, excused: bool, cloned: bool },
}

impl Observation<'_> {
    /// The two endpoints whose streams it is about, if they are of concern.
    fn pair(&self) -> Option<(usize, usize)> {
        match self {
            Self::Numbered { stream, .. }
            | Self::Handed { stream, .. }
            | Self::Settled { stream, .. }
            | Self::Offered { stream, .. } => Some((stream.from, stream.to)),
            Self::Claimed { seat, peer, .. } | Self::Complained { seat, peer, .. } => Some((*seat, *peer)),
            Self::Opened { .. }
            | Self::Copy { .. }
            | Self::Acknowledged { .. }
            | Self::Executed { .. }
            | Self::Committed { .. }
            | Self::TurnedAway { .. }
            | Self::Ended { .. } => None,
        }
    }
}

/// Holds the world to one promise.
trait Checker {
    fn promise(&self) -> Promise;
    fn name(&self) -> &'static str;
    /// Takes in what was seen; the words of what is wrong with it.
    fn see(&mut self, seen: &Observation<'_>) -> Result<(), String>;
}

/// All of them.
pub(crate) struct Checkers {
    all: Vec<Box<dyn Checker>>,
    /// Endpoints that are not, or not only, who they were. Their streams are judged by what the fault's expectation says.
    changed: BTreeSet<usize>,
}

impl Checkers {
    pub(crate) fn new() -> Self {
        let all: Vec<Box<dyn Checker>> = vec![
            Box::new(lost::NothingLost::default()),
            Box::new(effects::OnceOnly::default()),
            Box::new(order::InOrder::default()),
            Box::new(bytes::JournalFirst::default()),
            Box::new(marks::HonestMarks),
            Box::new(reconcile::ResentIsLost::default()),
            Box::new(bounded::Bounded),
            Box::new(replay::ReplayIsState),
            Box::new(damage::NotSilent),
        ];
        Self { all, changed: BTreeSet::new() }
    }

    /// From now on that endpoint is not who it was.
    pub(crate) fn identity_changed(&mut self, seat: usize) {
        self.changed.insert(seat);
    }

    /// Whether a stream between these two is of an endpoint that is not who it was.
    fn is_changed(&self, pair: (usize, usize)) -> bool {
        self.changed.contains(&pair.0) || self.changed.contains(&pair.1)
    }

    /// Shows all of them what was seen.
    pub(crate) fn see(&mut self, at: u64, seen: &Observation<'_>) -> Result<(), Violation> {
        if seen.pair().is_some_and(|pair| self.is_changed(pair)) {
            return Ok(());
        }
        for checker in &mut self.all {
            let (promise, name) = (checker.promise(), checker.name());
            checker.see(seen).map_err(|what| Violation { promise, checker: name, at, what })?;
        }
        Ok(())
    }
}
