//! The high-water file: how far the journal is known to have come, kept outside the engine. A journal that is shorter than
//! its mark has lost something that was on stable storage: that is damage, not a crash.
//!
//! The file is written from synced state only, to a temporary name, synced, renamed, and its directory synced.
//!
//! ```text
//! format 1 | CRC32C of the content, little-endian | MessagePack of [`HighWater`]
//! ```

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use messages::{ChainHash, EndpointId, Epoch, Incarnation, Seq, from_msgpack, to_msgpack};
use serde::{Deserialize, Serialize};

use crate::seam::{BeforeMark, MarkStep};
use crate::state::State;

/// The file's name in the journal's directory.
pub(crate) const NAME: &str = "high-water";
/// Bytes. More than 10,000 peers take.
const BYTES_MAX: u64 = 16 * 1024 * 1024;
const FORMAT: u8 = 1;

/// How far a journal is known to have come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HighWater {
    /// The journal.
    pub incarnation: Incarnation,
    /// Its opening.
    pub epoch: Epoch,
    /// Batches written, so that a loss is seen that no stream shows: of work, of marks, of the application's rows.
    #[serde(default)]
    pub batches: u64,
    /// The streams shared with each peer.
    pub peers: BTreeMap<EndpointId, PeerMark>,
}

/// How far the two streams shared with a peer are known to have come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerMark {
    /// The place that the next message sent gets.
    pub next: Seq,
    /// Hash of the header at `next - 1`.
    pub sent_head: ChainHash,
    /// The peer's journal, once heard of.
    pub incarnation: Option<Incarnation>,
    /// Everything received up to here was on stable storage.
    pub through: Option<Seq>,
    /// Hash of the header at `through`.
    pub received_head: ChainHash,
}

/// How a journal falls short of its mark.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Shortfall {
    /// It is another journal, or none.
    #[error("the mark is of journal {marked}, but the journal is {}", found.map_or_else(|| "empty".to_owned(), |found| found.to_string()))]
    Journal {
        /// The journal that the mark speaks of.
        marked: Incarnation,
        /// The journal found.
        found: Option<Incarnation>,
    },
    /// It was opened later than it knows of.
    #[error("the journal was opened {marked} times, but knows only of {found}")]
    Epoch {
        /// Openings by the mark.
        marked: Epoch,
        /// Openings by the journal.
        found: Epoch,
    },
    /// Something that was committed at its end is missing.
    #[error("of {marked} batches written the last {} are missing", marked - found)]
    Batches {
        /// Batches by the mark.
        marked: u64,
        /// Batches by the journal.
        found: u64,
    },
    /// Messages sent are missing at its end.
    #[error("messages {found} to {marked} sent to {peer} (the last not included) are missing")]
    Sent {
        /// To whom.
        peer: EndpointId,
        /// The next place by the mark.
        marked: Seq,
        /// The next place by the journal.
        found: Seq,
    },
    /// Messages received are missing at its end.
    #[error("messages received from {peer} reach only to {found}, by the mark they reached to {marked}")]
    Received {
        /// From whom.
        peer: EndpointId,
        /// The last place by the mark.
        marked: u64,
        /// The last place by the journal.
        found: u64,
    },
    /// The same places hold other messages.
    #[error("the stream with {peer} has another history than the mark")]
    History {
        /// With whom.
        peer: EndpointId,
    },
}

/// Why the file cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The operating system refused.
    #[error("cannot be read")]
    Io(#[from] io::Error),
    /// The content is not what was written.
    #[error("is damaged")]
    Damaged,
}

impl HighWater {
    /// The mark of a state.
    #[must_use]
    pub fn of(state: &State) -> Option<Self> {
        let meta = state.meta.as_ref()?;
        let peers = state.peers.iter().map(|(peer, streams)| {
            let incoming = streams.incoming.as_ref();
            let mark = PeerMark {
                next: streams.outgoing.next,
                sent_head: streams.outgoing.head,
                incarnation: incoming.map(|incoming| incoming.incarnation),
                through: incoming.and_then(|incoming| incoming.through),
                received_head: incoming.map_or(ChainHash::START, |incoming| incoming.head),
            };
            (peer.clone(), mark)
        });
        let (incarnation, epoch) = (meta.incarnation, meta.epoch);
        Some(Self { incarnation, epoch, batches: state.totals.batches, peers: peers.collect() })
    }

    /// How the state falls short of this mark, if it does.
    #[must_use]
    pub fn shortfalls(&self, state: &State) -> Vec<Shortfall> {
        let Some(meta) = state.meta.as_ref().filter(|meta| meta.incarnation == self.incarnation) else {
            let found = state.meta.as_ref().map(|meta| meta.incarnation);
            return vec![Shortfall::Journal { marked: self.incarnation, found }];
        };
        let mut shortfalls = Vec::new();
        if meta.epoch < self.epoch {
            shortfalls.push(Shortfall::Epoch { marked: self.epoch, found: meta.epoch });
        }
        let found = state.totals.batches;
        if found < self.batches {
            shortfalls.push(Shortfall::Batches { marked: self.batches, found });
        }
        let nothing = crate::state::PeerState::default();
        for (peer, mark) in &self.peers {
            let streams = state.peers.get(peer).unwrap_or(&nothing);
            let found = streams.outgoing.next;
            if found < mark.next {
                shortfalls.push(Shortfall::Sent { peer: peer.clone(), marked: mark.next, found });
            } else if found == mark.next && streams.outgoing.head != mark.sent_head {
                shortfalls.push(Shortfall::History { peer: peer.clone() });
            }
            let incoming = streams.incoming.as_ref();
            if mark.incarnation.is_some() && incoming.map(|incoming| incoming.incarnation) != mark.incarnation {
                // The peer may have begun a new journal since the mark; a stream that vanished is a loss.
                if incoming.is_none() {
                    let marked = Seq::count(mark.through);
                    shortfalls.push(Shortfall::Received { peer: peer.clone(), marked, found: 0 });
                }
                continue;
            }
            let through = incoming.and_then(|incoming| incoming.through);
            if through < mark.through {
                let (marked, found) = (Seq::count(mark.through), Seq::count(through));
                shortfalls.push(Shortfall::Received { peer: peer.clone(), marked, found });
            } else if through == mark.through && incoming.is_some_and(|incoming| incoming.head != mark.received_head) {
                shortfalls.push(Shortfall::History { peer: peer.clone() });
            }
        }
        shortfalls
    }

    /// Writes the file so that after a crash either the old or the new content is there, whole.
    ///
    /// # Errors
    /// The operating system's; the old file is still there.
    pub fn write(&self, dir: &Path) -> io::Result<()> {
        self.write_in_steps(dir, &|_| Ok(()))
    }

    /// As [`Self::write`], asking before each step.
    pub(crate) fn write_in_steps(&self, dir: &Path, before: &BeforeMark) -> io::Result<()> {
        let content = to_msgpack(self).expect("plain structs of numbers and bytes always encode");
        let temporary = dir.join("high-water.new");
        before(MarkStep::Create)?;
        let mut file = File::create(&temporary)?;
        before(MarkStep::Write)?;
        file.write_all(&[FORMAT])?;
        file.write_all(&crc32c::crc32c(&content).to_le_bytes())?;
        file.write_all(&content)?;
        before(MarkStep::Sync)?;
        file.sync_all()?;
        before(MarkStep::Rename)?;
        fs::rename(&temporary, path(dir))?;
        before(MarkStep::SyncFolder)?;
        File::open(dir)?.sync_all()
    }

    /// Reads the file; nothing when there is none.
    ///
    /// # Errors
    /// [`ReadError`]
    pub fn read(dir: &Path) -> Result<Option<Self>, ReadError> {
        let path = path(dir);
        match fs::metadata(&path) {
            Ok(meta) if meta.len() > BYTES_MAX => return Err(ReadError::Damaged),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        }
        let bytes = fs::read(&path)?;
        let (Some(&FORMAT), Some(sum), Some(content)) = (bytes.first(), bytes.get(1..5), bytes.get(5..)) else {
            return Err(ReadError::Damaged);
        };
        if crc32c::crc32c(content).to_le_bytes() != sum {
            return Err(ReadError::Damaged);
        }
        from_msgpack(content).map(Some).map_err(|_| ReadError::Damaged)
    }
}

fn path(dir: &Path) -> PathBuf {
    dir.join(NAME)
}
