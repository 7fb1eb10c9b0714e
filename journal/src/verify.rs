//! Checking a whole journal: every checksum, every body's digest, every chain, and the marks against the rows. It reports
//! what it finds and goes on; it never writes.

use std::ops::ControlFlow;

use messages::{ChainHash, Digest, EndpointId, Header, Seq};
use serde::{Deserialize, Serialize};

use crate::incoming::Place;
use crate::inspect::{InspectError, kept, places};
use crate::key::{Direction, Key, MessageTable};
use crate::row::{HeaderRow, Row};
use crate::state::{IllegalChange, PeerState, State};
use crate::store::Store;
use crate::totals::Totals;

/// Problems that are listed; more are only counted.
const PROBLEMS_MAX: usize = 1_000;

/// How often a journal that is written meanwhile is checked at most.
const ATTEMPTS: usize = 5;

/// What was checked and what was found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verification {
    /// Rows read.
    pub rows: u64,
    /// Messages whose header was read and whose chain was followed.
    pub messages: u64,
    /// Bodies whose digest was computed.
    pub bodies: u64,
    /// The streams, in words: peer, direction, first and last place kept.
    pub streams: Vec<VerifiedStream>,
    /// What is wrong, in words; at most 1,000.
    pub problems: Vec<String>,
    /// How many problems there are.
    pub problem_count: u64,
}

/// One stream that was checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifiedStream {
    /// The other end.
    pub peer: EndpointId,
    /// Which of the two.
    pub direction: Direction,
    /// The first place kept.
    pub first: u64,
    /// The last place kept; less than `first` when there is none.
    pub last: u64,
}

impl Verification {
    pub(crate) fn problem(&mut self, what: String) {
        self.problem_count += 1;
        if self.problems.len() < PROBLEMS_MAX {
            self.problems.push(what);
        }
    }
}

/// Checks the whole store. One that is written meanwhile is checked again, up to [`ATTEMPTS`] times: what is wrong stays wrong, and what
/// only looked so, because marks moved between two reads, is not found again.
///
/// # Errors
/// [`InspectError`] only when the engine itself gives up; whatever is wrong with rows is in the answer.
pub fn verify(store: &dyn Store) -> Result<Verification, InspectError> {
    let totals = |store: &dyn Store| store.value(&Key::Totals.bytes());
    let mut report = Verification::default();
    let mut suspects: Option<Vec<String>> = None;
    for _ in 0..ATTEMPTS {
        let before = totals(store)?;
        report = verify_once(store)?;
        let written = before != totals(store)?;
        if let Some(suspects) = &suspects {
            report.problems.retain(|problem| suspects.contains(problem));
            report.problem_count = report.problems.len() as u64;
        }
        if report.problems.is_empty() || !written {
            break;
        }
        suspects = Some(report.problems.clone());
    }
    Ok(report)
}

fn verify_once(store: &dyn Store) -> Result<Verification, InspectError> {
    let mut report = Verification::default();
    let mut state = State::default();
    let mut found = Totals::default();
    let totals = |store: &dyn Store| store.value(&Key::Totals.bytes());
    let before = totals(store)?;
    store.scan(&[0], &[0xff], &mut |key, value| {
        report.rows += 1;
        found.add(key, crc32c::crc32c(value));
        match Row::decode(key, value) {
            Ok(row) => {
                if let Err(error) = state.put(&row) {
                    report.problem(error.to_string());
                }
            }
            Err(error) => report.problem(error.to_string()),
        }
        ControlFlow::Continue(())
    })?;
    // A running journal may have been written meanwhile; then the rows seen are of no one moment.
    if before == totals(store)? && !found.same_rows(&state.totals) {
        report.problem(IllegalChange::Rows { written: state.totals.rows, found: found.rows }.to_string());
    }
    if state.meta.is_none() {
        report.problem("there is no row that says what journal this is".to_owned());
    }
    for (peer, streams) in &state.peers {
        for direction in [Direction::In, Direction::Out] {
            verify_stream(store, &mut report, peer, direction, streams)?;
        }
    }
    Ok(report)
}

fn verify_stream(
    store: &dyn Store,
    report: &mut Verification,
    peer: &EndpointId,
    direction: Direction,
    streams: &PeerState,
) -> Result<(), InspectError> {
    let (first, last) = kept(streams, direction);
    report.streams.push(VerifiedStream { peer: peer.clone(), direction, first, last });
    let (contiguous, head, settled) = match direction {
        Direction::Out => (streams.outgoing.next.previous(), Some(streams.outgoing.head), streams.outgoing.settled),
        Direction::In => {
            let Some(incoming) = &streams.incoming else { return Ok(()) };
            (incoming.through, Some(incoming.head).filter(|_| !incoming.unanchored), incoming.settled)
        }
    };
    let mut before: Option<ChainHash> = None;
    let spans = places(streams, direction);
    for seq in spans.iter().flat_map(|&(from, to)| from..=to).filter_map(Seq::new) {
        if spans.iter().any(|(from, _)| *from == seq.value()) {
            // Only the first message of all follows nothing. What lies before any other is forgotten, or lost with a journal; its
            // header speaks of what nobody here has seen.
            before = (seq == Seq::FIRST).then_some(ChainHash::START);
        }
        let expected = match direction {
            Direction::Out => true,
            Direction::In => {
                Some(seq) <= contiguous || streams.incoming.as_ref().is_some_and(|row| row.ranges.contains(seq))
            }
        };
        let Some((row, header)) = header(store, report, streams, direction, peer, seq)? else {
            if expected {
                report.problem(format!("{direction}:{seq} of {peer} is missing"));
            }
            before = None;
            continue;
        };
        report.messages += 1;
        if before.is_some_and(|before| before != header.previous) {
            report.problem(format!("{direction}:{seq} of {peer} does not follow the message before it"));
        }
        if Some(seq) == contiguous && head.is_some_and(|head| row.hash() != head) {
            report.problem(format!("{direction}:{seq} of {peer} is not the head that the stream speaks of"));
        }
        before = Some(row.hash());
        let body_expected = Some(seq) > settled && row.refused.is_none();
        verify_body(store, report, (direction, peer, seq), &header, body_expected)?;
    }
    Ok(())
}

/// Whether a message received is at a place other than its sender's number, because journals of the sender were superseded. Of
/// parts that are superseded themselves the rule is no longer known.
fn moved(streams: &PeerState, direction: Direction, seq: Seq, header: &Header) -> bool {
    match (&streams.incoming, direction) {
        (Some(incoming), Direction::In) => match incoming.place(header.incarnation, header.seq) {
            Place::Here(place) => place == seq,
            Place::Superseded => header.seq <= seq,
            Place::Unknown => false,
        },
        (Some(_) | None, _) => false,
    }
}

fn header(
    store: &dyn Store,
    report: &mut Verification,
    streams: &PeerState,
    direction: Direction,
    peer: &EndpointId,
    seq: Seq,
) -> Result<Option<(HeaderRow, Header)>, InspectError> {
    let table = match direction {
        Direction::Out => MessageTable::SentHeader,
        Direction::In => MessageTable::InboxHeader,
    };
    let key = Key::Message(table, peer.clone(), seq).bytes();
    // A row that cannot be read was reported by the scan.
    let Some(Ok(Row::Header(_, _, _, row))) = store.value(&key)?.map(|value| Row::decode(&key, &value)) else {
        return Ok(None);
    };
    match row.decode() {
        Ok(header) if header.seq == seq || moved(streams, direction, seq, &header) => Ok(Some((row, header))),
        Ok(header) => {
            report.problem(format!("{direction}:{seq} of {peer} holds the header of {}", header.seq));
            Ok(None)
        }
        Err(error) => {
            report.problem(format!("{direction}:{seq} of {peer} has an unreadable header: {error}"));
            Ok(None)
        }
    }
}

fn verify_body(
    store: &dyn Store,
    report: &mut Verification,
    (direction, peer, seq): (Direction, &EndpointId, Seq),
    header: &Header,
    expected: bool,
) -> Result<(), InspectError> {
    let table = match direction {
        Direction::Out => MessageTable::SentBody,
        Direction::In => MessageTable::InboxBody,
    };
    let key = Key::Message(table, peer.clone(), seq).bytes();
    match store.value(&key)?.map(|value| Row::decode(&key, &value)) {
        Some(Ok(Row::Body(_, _, _, body))) => {
            report.bodies += 1;
            if Digest::of(&body) != header.digest {
                report.problem(format!("the body of {direction}:{seq} of {peer} is not the one its header speaks of"));
            }
        }
        None if expected => {
            report.problem(format!("the body of {direction}:{seq} of {peer} is missing though it is not settled"));
        }
        Some(_) | None => {}
    }
    Ok(())
}
