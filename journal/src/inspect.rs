//! Looking into a journal: the questions operators ask, and their answers from rows alone. The same code answers for a
//! running endpoint and for a stopped one. It never writes.

use std::ops::ControlFlow;
use std::path::PathBuf;

use messages::{Body, ChainHash, EndpointId, Epoch, Incarnation, Kind, MessageId, Ranges, Seq, from_msgpack};
use serde::{Deserialize, Serialize};

use crate::key::{Direction, Key, MessageTable};
use crate::row::{HeaderRow, Meta, Row, RowError};
use crate::state::{PeerState, State};
pub use crate::stopped::Stopped;
use crate::store::{Store, StoreError};

/// Messages that one list answers with at most, per stream.
pub const LIST_MAX: u32 = 10_000;

/// A question.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Query {
    /// Messages, a line each.
    List(ListQuery),
    /// One message, whole.
    Show(EndpointId, Direction, Seq),
    /// Counts and sizes.
    Stats,
    /// Every checksum, every chain.
    Verify,
}

/// Which messages to list.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListQuery {
    /// Only those shared with this peer.
    pub peer: Option<EndpointId>,
    /// Only this direction.
    pub direction: Option<Direction>,
    /// Begin at this place; without it, the last ones of each stream are listed.
    pub from: Option<Seq>,
    /// How many of each stream at most; capped at [`LIST_MAX`].
    pub limit: u32,
}

/// An answer, of the same name as its question.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// Messages, by peer, direction and place.
    List(Vec<Entry>),
    /// The message, if it is kept.
    Show(Option<Box<Detail>>),
    /// Counts and sizes.
    Stats(Stats),
    /// What was checked and what was found.
    Verify(super::Verification),
    /// The question could not be answered.
    Failed(String),
}

/// Where a message stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EntryState {
    /// Sent; the peer has not said that it has it.
    Pending,
    /// On stable storage at the receiver.
    Received,
    /// Received, and the application works on it.
    Applied,
    /// Its final outcome is on stable storage on both sides.
    Settled,
    /// Received, found unacceptable, and never to be acted on.
    Refused,
}

/// One message in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The other end of the stream.
    pub peer: EndpointId,
    /// Which stream.
    pub direction: Direction,
    /// The place in it.
    pub seq: Seq,
    /// What the message is.
    pub kind: Kind,
    /// Where it stands, as this journal knows.
    pub state: EntryState,
    /// Bytes of the body.
    pub body_bytes: u32,
    /// When it was journaled here, in milliseconds since 1970.
    pub at_ms: u64,
    /// Its id.
    pub id: MessageId,
}

/// One message, whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Detail {
    /// As in a list.
    pub entry: Entry,
    /// The sender's journal.
    pub incarnation: Incarnation,
    /// The opening in which the message was made.
    pub epoch: Epoch,
    /// The message that it answers.
    pub cause: Option<MessageId>,
    /// Hash of its header.
    pub hash: ChainHash,
    /// Hash of the header before it.
    pub previous: ChainHash,
    /// Why it was refused.
    pub refused: Option<String>,
    /// The message that carries its outcome.
    pub answered_by: Option<Seq>,
    /// The body, while it is kept and can be read.
    pub body: Option<Body>,
    /// What stands in place of the body, in words.
    pub body_note: Option<String>,
}

/// Counts and sizes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// What journal it is.
    pub meta: Meta,
    /// Bytes on disk.
    pub disk_bytes: u64,
    /// Bytes of rows, keys included.
    pub live_bytes: u64,
    /// Rows.
    pub rows: u64,
    /// Each stream.
    pub streams: Vec<StreamStats>,
}

/// One stream in figures.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamStats {
    /// The other end.
    pub peer: EndpointId,
    /// Which of the two.
    pub direction: Direction,
    /// The last place given or received.
    pub last: Option<Seq>,
    /// Everything up to here is at the receiver.
    pub received: Option<Seq>,
    /// Received beyond that mark.
    pub ranges: Ranges,
    /// Everything up to here is settled.
    pub settled: Option<Seq>,
    /// Everything up to here is dropped.
    pub forgotten: Option<Seq>,
    /// Messages applied here whose outcome is not settled.
    pub open_work: u64,
}

/// Why a journal cannot be looked into.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// There is no journal there.
    #[error("there is no journal in {}", path.display())]
    Missing {
        /// The directory.
        path: PathBuf,
    },
    /// The files cannot be copied.
    #[error("{} cannot be copied for reading", path.display())]
    Copy {
        /// The directory or file.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The engine refused.
    #[error("the store cannot be read")]
    Store(#[from] StoreError),
    /// A row is damaged.
    #[error("the journal is damaged")]
    Row(#[from] RowError),
    /// The rows contradict each other.
    #[error("the journal contradicts itself")]
    Illegal(#[from] crate::IllegalChange),
    /// The store is readable but holds no journal.
    #[error("the store holds no journal")]
    Empty,
}

/// Answers a question from the rows of a store.
///
/// # Errors
/// [`InspectError`]; [`Query::Verify`] reports damaged rows in its answer instead.
pub fn answer(store: &dyn Store, query: &Query) -> Result<Answer, InspectError> {
    match query {
        Query::List(query) => list(store, query).map(Answer::List),
        Query::Show(peer, direction, seq) => show(store, peer, *direction, *seq).map(Answer::Show),
        Query::Stats => stats(store).map(Answer::Stats),
        Query::Verify => Ok(Answer::Verify(crate::verify(store)?)),
    }
}

/// The rows that come before any message: they are few, and they say where each message stands.
fn streams(store: &dyn Store) -> Result<State, InspectError> {
    let mut state = State::default();
    let mut failure = None;
    let mut fold =
        |key: &[u8], value: &[u8]| match Row::decode(key, value).map_err(InspectError::from).and_then(|row| {
            state.put(&row)?;
            Ok(())
        }) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                failure = Some(error);
                ControlFlow::Break(())
            }
        };
    let tables = [crate::Table::Meta, crate::Table::Outgoing, crate::Table::Incoming, crate::Table::Work];
    for table in tables {
        store.scan(&[table.byte()], &[table.byte() + 1], &mut fold)?;
    }
    match failure {
        Some(error) => Err(error),
        None if state.meta.is_none() => Err(InspectError::Empty),
        None => Ok(state),
    }
}

fn list(store: &dyn Store, query: &ListQuery) -> Result<Vec<Entry>, InspectError> {
    let state = streams(store)?;
    let limit = u64::from(query.limit.clamp(1, LIST_MAX));
    let mut entries = Vec::new();
    for (peer, streams) in &state.peers {
        if query.peer.as_ref().is_some_and(|wanted| wanted != peer) {
            continue;
        }
        for direction in [Direction::In, Direction::Out] {
            if query.direction.is_some_and(|wanted| wanted != direction) {
                continue;
            }
            let places = pick(&places(streams, direction), query.from, limit);
            for seq in places.into_iter().filter_map(Seq::new) {
                if let Some(row) = header(store, direction, peer, seq)? {
                    entries.push(entry(streams, peer, direction, seq, &row)?);
                }
            }
        }
    }
    Ok(entries)
}

/// The first and the last place that the journal may still hold, 1 and 0 when there is none.
pub(crate) fn kept(streams: &PeerState, direction: Direction) -> (u64, u64) {
    match direction {
        Direction::Out => (Seq::count(streams.outgoing.forgotten) + 1, streams.outgoing.next.value() - 1),
        Direction::In => streams.incoming.as_ref().map_or((1, 0), |incoming| {
            (Seq::count(incoming.forgotten) + 1, Seq::count(incoming.ranges.last().max(incoming.through)))
        }),
    }
}

/// The spans of places that may hold messages. Between them nothing was ever received.
pub(crate) fn places(streams: &PeerState, direction: Direction) -> Vec<(u64, u64)> {
    let (first, last) = kept(streams, direction);
    let whole = Seq::new(first).zip(Seq::new(last)).filter(|(first, last)| first <= last);
    match (whole, &streams.incoming) {
        (Some(span), Some(incoming)) if direction == Direction::In => {
            incoming.without_voids(span).into_iter().map(|(from, to)| (from.value(), to.value())).collect()
        }
        (Some(_), _) => vec![(first, last)],
        (None, _) => Vec::new(),
    }
}

/// At most that many places: from one on, or the last ones.
fn pick(spans: &[(u64, u64)], from: Option<Seq>, limit: u64) -> Vec<u64> {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    if let Some(from) = from {
        return spans.iter().flat_map(|&(first, last)| first.max(from.value())..=last).take(limit).collect();
    }
    let backwards = spans.iter().rev().flat_map(|&(first, last)| (first..=last).rev());
    let mut places: Vec<u64> = backwards.take(limit).collect();
    places.reverse();
    places
}

fn header(
    store: &dyn Store,
    direction: Direction,
    peer: &EndpointId,
    seq: Seq,
) -> Result<Option<HeaderRow>, InspectError> {
    let table = match direction {
        Direction::Out => MessageTable::SentHeader,
        Direction::In => MessageTable::InboxHeader,
    };
    match row(store, Key::Message(table, peer.clone(), seq))? {
        Some(Row::Header(_, _, _, row)) => Ok(Some(row)),
        Some(_) | None => Ok(None),
    }
}

fn row(store: &dyn Store, key: Key) -> Result<Option<Row>, InspectError> {
    let key = key.bytes();
    let value = store.value(&key)?;
    Ok(value.map(|value| Row::decode(&key, &value)).transpose()?)
}

fn entry(
    streams: &PeerState,
    peer: &EndpointId,
    direction: Direction,
    seq: Seq,
    row: &HeaderRow,
) -> Result<Entry, InspectError> {
    let table = match direction {
        Direction::Out => MessageTable::SentHeader,
        Direction::In => MessageTable::InboxHeader,
    };
    let content = |source| RowError::Content { key: Key::Message(table, peer.clone(), seq), source };
    let header: messages::Header = from_msgpack(&row.header).map_err(content)?;
    let state = match direction {
        Direction::Out if Some(seq) <= streams.outgoing.settled => EntryState::Settled,
        Direction::Out if Some(seq) <= streams.outgoing.received || streams.outgoing.ranges.contains(seq) => {
            EntryState::Received
        }
        Direction::Out => EntryState::Pending,
        Direction::In if row.refused.is_some() => EntryState::Refused,
        Direction::In if streams.work.contains_key(&seq) => EntryState::Applied,
        Direction::In if Some(seq) <= streams.incoming.as_ref().and_then(|incoming| incoming.applied) => {
            EntryState::Settled
        }
        Direction::In => EntryState::Received,
    };
    Ok(Entry {
        peer: peer.clone(),
        direction,
        seq,
        kind: header.kind,
        state,
        body_bytes: row.body_bytes,
        at_ms: row.at_ms,
        id: header.id,
    })
}

fn show(
    store: &dyn Store,
    peer: &EndpointId,
    direction: Direction,
    seq: Seq,
) -> Result<Option<Box<Detail>>, InspectError> {
    let state = streams(store)?;
    let (Some(streams), Some(found)) = (state.peers.get(peer), header(store, direction, peer, seq)?) else {
        return Ok(None);
    };
    let entry = entry(streams, peer, direction, seq, &found)?;
    let table = match direction {
        Direction::Out => MessageTable::SentBody,
        Direction::In => MessageTable::InboxBody,
    };
    let (body, body_note) = match row(store, Key::Message(table, peer.clone(), seq))? {
        Some(Row::Body(_, _, _, bytes)) => match Body::decode(entry.kind, &bytes) {
            Ok(body) => (Some(body), None),
            Err(error) => (None, Some(error.to_string())),
        },
        Some(_) | None => (None, Some("dropped: the message is settled".to_owned())),
    };
    let content = |source| RowError::Content { key: Key::Message(table, peer.clone(), seq), source };
    let header = found.decode().map_err(content)?;
    Ok(Some(Box::new(Detail {
        entry,
        incarnation: header.incarnation,
        epoch: header.epoch,
        cause: header.cause,
        hash: found.hash(),
        previous: header.previous,
        refused: found.refused,
        answered_by: streams.work.get(&seq).and_then(|work| work.answered),
        body,
        body_note,
    })))
}

fn stats(store: &dyn Store) -> Result<Stats, InspectError> {
    let state = streams(store)?;
    let (mut rows, mut live_bytes) = (0_u64, 0_u64);
    store.scan(&[0], &[0xff], &mut |key, value| {
        rows += 1;
        live_bytes += (key.len() + value.len()) as u64;
        ControlFlow::Continue(())
    })?;
    let mut streams = Vec::new();
    for (peer, shared) in &state.peers {
        let outgoing = &shared.outgoing;
        streams.push(StreamStats {
            peer: peer.clone(),
            direction: Direction::Out,
            last: outgoing.next.previous(),
            received: outgoing.received,
            ranges: outgoing.ranges.clone(),
            settled: outgoing.settled,
            forgotten: outgoing.forgotten,
            open_work: 0,
        });
        if let Some(incoming) = &shared.incoming {
            streams.push(StreamStats {
                peer: peer.clone(),
                direction: Direction::In,
                last: incoming.ranges.last().max(incoming.through),
                received: incoming.through,
                ranges: incoming.ranges.clone(),
                settled: incoming.settled,
                forgotten: incoming.forgotten,
                open_work: shared.work.len() as u64,
            });
        }
    }
    let meta = state.meta.ok_or(InspectError::Empty)?;
    Ok(Stats { meta, disk_bytes: store.size()?, live_bytes, rows, streams })
}
