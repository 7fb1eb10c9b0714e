//! A journal full of messages that nobody has settled, in the rows that a session writes, and beside it a bare log of the same bytes.
//! It sends nothing and receives nothing.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use journal::{
    Change, Commit, CommitError, Direction, Engine, HeaderRow, Journal, OpenError, Opening, Outgoing, Row, State,
    WriteAhead,
};
use messages::{EncodeError, EndpointId, Header, Incarnation, Kind, Message, MessageId, Seq};

/// Bytes of a message's body.
pub const BODY_BYTES: usize = 1_024;

/// Commits under way at a time, so that syncs are shared.
const UNDER_WAY: usize = 256;

/// Bytes that the bare log reads at once: few enough to stay in a processor's cache until they are summed.
const READ_BYTES: usize = 256 * 1024;

/// Bytes before a record of the bare log: checksum and length.
const RECORD_HEADER: usize = 8;

/// Why a journal cannot be filled.
#[derive(Debug, thiserror::Error)]
pub enum FillError {
    /// The journal cannot be opened.
    #[error("the journal cannot be opened")]
    Open(#[from] OpenError),
    /// The journal does not take a commit.
    #[error("the journal does not take a commit")]
    Commit(#[from] CommitError),
    /// A message cannot be written.
    #[error("a message cannot be written")]
    Encode(#[from] EncodeError),
    /// The operating system refused.
    #[error("the operating system refused")]
    Io(#[from] std::io::Error),
}

/// To whom the messages go.
#[must_use]
pub fn peer() -> EndpointId {
    EndpointId::Agent("web-01".parse().expect("it is a name"))
}

/// Where the journal of a folder is.
#[must_use]
pub fn journal_dir(dir: &Path) -> PathBuf {
    dir.join("journal")
}

/// Where the bare log of a folder is.
#[must_use]
pub fn bare_path(dir: &Path) -> PathBuf {
    dir.join("bare.log")
}

/// Opens the journal as its endpoint does.
///
/// # Errors
/// [`OpenError`]
pub fn open(dir: &Path, engine: Engine) -> Result<(Journal, State), OpenError> {
    let opening = Opening { endpoint: EndpointId::Server, incarnation: Incarnation::from_u128(1), now_ms: 0 };
    Journal::open_as(&journal_dir(dir), &opening, engine)
}

/// A journal with the one stream that it sends, and commits under way.
pub struct Filler {
    /// The journal.
    pub journal: Journal,
    outgoing: Outgoing,
    under_way: VecDeque<Commit<()>>,
}

impl Filler {
    /// Makes the journal in that folder.
    ///
    /// # Errors
    /// [`FillError::Open`]
    pub fn open(dir: &Path, engine: Engine) -> Result<Self, FillError> {
        let (journal, _) = open(dir, engine)?;
        Ok(Self { journal, outgoing: Outgoing::default(), under_way: VecDeque::new() })
    }

    /// Journals one message more, as a session does. Shows what it writes.
    ///
    /// # Errors
    /// [`FillError`]
    pub fn send(&mut self, look: &mut dyn FnMut(&[Change]) -> std::io::Result<()>) -> Result<(), FillError> {
        let (seq, number) = (self.outgoing.next, self.outgoing.next.value());
        // Bytes that no engine can make shorter.
        let mixed = |place: u64| (place + number * 131).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes();
        let body: Vec<u8> = (1..=BODY_BYTES as u64 / 8).flat_map(mixed).collect();
        let meta = self.journal.meta();
        let header = Header::new(EndpointId::Server, peer(), meta.incarnation, meta.epoch)
            .numbered(seq, self.outgoing.head)
            .carrying(MessageId::from_u128(u128::from(number)), Kind::Unknown(9), None, &body);
        let message = Message::new(header, &body)?;
        (self.outgoing.next, self.outgoing.head) = (seq.next(), message.hash);
        let changes = vec![
            Change::Put(Row::Header(Direction::Out, peer(), seq, HeaderRow::of(&message, 1_700_000_000_000))),
            Change::Put(Row::Body(Direction::Out, peer(), seq, body)),
            Change::Put(Row::Outgoing(peer(), self.outgoing.clone())),
        ];
        look(&changes)?;
        self.commit(changes)
    }

    /// Settles and drops everything up to a place, as a session does after a status.
    ///
    /// # Errors
    /// [`FillError::Commit`]
    pub fn settle(&mut self, to: Seq) -> Result<(), FillError> {
        let from = Seq::after(self.outgoing.settled);
        if to < from {
            return Ok(());
        }
        let mark = Some(to);
        self.outgoing = Outgoing { received: mark, settled: mark, forgotten: mark, ..self.outgoing.clone() };
        self.commit(vec![
            Change::Put(Row::Outgoing(peer(), self.outgoing.clone())),
            Change::DropBodies(Direction::Out, peer(), from, to),
            Change::DropHeaders(Direction::Out, peer(), from, to),
        ])
    }

    fn commit(&mut self, changes: Vec<Change>) -> Result<(), FillError> {
        self.under_way.push_back(self.journal.commit(WriteAhead::new(changes, ())));
        self.wait(UNDER_WAY)
    }

    /// Waits until that many commits are under way at most.
    ///
    /// # Errors
    /// [`FillError::Commit`]
    pub fn wait(&mut self, most: usize) -> Result<(), FillError> {
        while self.under_way.len() > most {
            if let Some(commit) = self.under_way.pop_front() {
                commit.wait()?;
            }
        }
        Ok(())
    }
}

/// Fills a new journal with that many messages, and a bare log with the same rows, one record for each message. Both are on stable
/// storage when this returns, and the journal is still open.
///
/// # Errors
/// [`FillError`]
pub fn fill(dir: &Path, engine: Engine, messages: u64) -> Result<Filler, FillError> {
    let mut filler = Filler::open(dir, engine)?;
    let mut bare = BufWriter::with_capacity(READ_BYTES, File::create_new(bare_path(dir))?);
    let mut record = Vec::new();
    for _ in 0..messages {
        filler.send(&mut |changes| {
            record.clear();
            record.resize(RECORD_HEADER, 0);
            for change in changes {
                if let Change::Put(row @ (Row::Header(..) | Row::Body(..))) = change {
                    let (key, value) = row.encode();
                    record.extend_from_slice(&key);
                    record.extend_from_slice(&value);
                }
            }
            let length = u32::try_from(record.len() - RECORD_HEADER).map_err(std::io::Error::other)?;
            record[4..RECORD_HEADER].copy_from_slice(&length.to_le_bytes());
            let crc = crc32c::crc32c(&record[4..]);
            record[..4].copy_from_slice(&crc.to_le_bytes());
            bare.write_all(&record)
        })?;
    }
    filler.wait(0)?;
    bare.into_inner().map_err(std::io::IntoInnerError::into_error)?.sync_all()?;
    Ok(filler)
}

/// Recovers a bare log: reads all of it and checks every checksum. It keeps nothing. Returns its records and their bytes.
///
/// # Errors
/// When the system refuses. Where a record is not whole the log ends.
pub fn recover_bare(path: &Path) -> std::io::Result<(u64, u64)> {
    let mut file = File::open(path)?;
    let mut buffer = vec![0; READ_BYTES];
    let (mut begin, mut end) = (0, 0);
    let (mut records, mut bytes) = (0, 0);
    loop {
        let wanted = match buffer[begin..end].get(4..RECORD_HEADER) {
            Some(length) => {
                let length = u32::from_le_bytes([length[0], length[1], length[2], length[3]]) as usize;
                RECORD_HEADER + length
            }
            None => RECORD_HEADER,
        };
        if wanted <= end - begin {
            let record = &buffer[begin..begin + wanted];
            if record[..4] != crc32c::crc32c(&record[4..]).to_le_bytes() {
                return Ok((records, bytes));
            }
            records += 1;
            bytes += wanted as u64;
            begin += wanted;
            continue;
        }
        buffer.copy_within(begin..end, 0);
        (begin, end) = (0, end - begin);
        if wanted > buffer.len() {
            return Ok((records, bytes));
        }
        match file.read(&mut buffer[end..])? {
            0 => return Ok((records, bytes)),
            read => end += read,
        }
    }
}
