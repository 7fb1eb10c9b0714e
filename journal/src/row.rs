//! Rows: what the journal remembers, and their bytes. Every row carries a CRC32C over its key and its content, so damage is
//! found wherever the engine lets it through.
//!
//! ```text
//! key     table byte, then for rows about a peer: peer's name, 0, and for rows of a message: seq, big-endian
//! value   format 1 | CRC32C over key and content, little-endian | content
//! content MessagePack with named fields; bodies and application rows are raw bytes
//! ```

use messages::{
    ChainHash, DecodeError, EndpointId, Epoch, Header, Incarnation, Lineage, Message, Ranges, Seq, from_msgpack,
    write_msgpack,
};
use serde::{Deserialize, Serialize};

use crate::batch::Batch;
use crate::incoming::Incoming;
use crate::key::{Direction, Key, MessageTable, Table, write_app, write_message, write_peer};
use crate::totals::Totals;

/// The first byte of a row's value.
const FORMAT: u8 = 1;
/// Bytes before a row's content.
const ENVELOPE_BYTES: usize = 5;

/// A row, decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Row {
    /// What journal this is.
    Meta(Meta),
    /// A stream that this endpoint sends to that peer.
    Outgoing(EndpointId, Outgoing),
    /// A stream that this endpoint receives from that peer.
    Incoming(EndpointId, Incoming),
    /// The header of a message, by direction.
    Header(Direction, EndpointId, Seq, HeaderRow),
    /// The body of a message, by direction.
    Body(Direction, EndpointId, Seq, Vec<u8>),
    /// An applied message whose outcome is not settled.
    Work(EndpointId, Seq, Work),
    /// What all other rows add up to. Only the journal itself sets it.
    Totals(Totals),
    /// A row of the application.
    App(Vec<u8>, Vec<u8>),
}

/// What journal this is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Meta {
    /// Whose journal.
    pub endpoint: EndpointId,
    /// Minted when it was created.
    pub incarnation: Incarnation,
    /// Raised each time it is opened.
    pub epoch: Epoch,
    /// When it was created, in milliseconds since 1970. For people.
    pub created_ms: u64,
}

/// A stream that this endpoint sends.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Outgoing {
    /// The place that the next message gets.
    pub next: Seq,
    /// Hash of the header at `next - 1`.
    pub head: ChainHash,
    /// The peer has everything up to here on stable storage.
    pub received: Option<Seq>,
    /// What else the peer has.
    pub ranges: Ranges,
    /// Everything up to here has its outcome on stable storage on both sides; bodies are dropped.
    pub settled: Option<Seq>,
    /// Everything up to here is dropped whole, and will never be asked about again.
    pub forgotten: Option<Seq>,
    /// Which incarnation wrote which part; nothing while the journal's own wrote all of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lineage: Option<Lineage>,
    /// The peer's journal that the marks speak of; nothing before it was heard of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<Incarnation>,
    /// What a journal of the peer that was lost may have received and carried out: everything up to here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub doubtful: Option<Seq>,
    /// How often the peer's journal was found to have lost something.
    #[serde(default)]
    pub losses: u32,
}

impl Default for Outgoing {
    fn default() -> Self {
        Self {
            next: Seq::FIRST,
            head: ChainHash::START,
            received: None,
            ranges: Ranges::default(),
            settled: None,
            forgotten: None,
            lineage: None,
            peer: None,
            doubtful: None,
            losses: 0,
        }
    }
}

/// A message without its body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeaderRow {
    /// When it was journaled here, in milliseconds since 1970. For people.
    pub at_ms: u64,
    /// The header's bytes, as hashed.
    #[serde(with = "serde_bytes")]
    pub header: Vec<u8>,
    /// Bytes of the body.
    pub body_bytes: u32,
    /// Why it was refused, when it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
}

impl HeaderRow {
    /// The row of a message journaled at that time.
    #[must_use]
    pub fn of(message: &Message, at_ms: u64) -> Self {
        let body_bytes = u32::try_from(message.body().len()).expect("an envelope is at most 256 KiB");
        Self { at_ms, header: message.header_bytes().to_vec(), body_bytes, refused: None }
    }

    /// The header, decoded.
    ///
    /// # Errors
    /// [`DecodeError`], which a row whose checksum is right does not give.
    pub fn decode(&self) -> Result<Header, DecodeError> {
        from_msgpack(&self.header)
    }

    /// The header's hash.
    #[must_use]
    pub fn hash(&self) -> ChainHash {
        ChainHash::of(&self.header)
    }
}

/// An applied message whose outcome is not settled.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Work {
    /// The message to the same peer that carries the outcome, once there is one.
    pub answered: Option<Seq>,
}

/// Why bytes in the store are not a row.
#[derive(Debug, thiserror::Error)]
pub enum RowError {
    /// The key is of no known form.
    #[error("unknown key {key:02x?}")]
    Key {
        /// The key's bytes.
        key: Vec<u8>,
    },
    /// The value is too short, or of another format.
    #[error("the row {key:?} has format {format:?}, this build reads {FORMAT}")]
    Format {
        /// Where the row is.
        key: Key,
        /// The value's first byte, if it has one.
        format: Option<u8>,
    },
    /// The content is not what was written.
    #[error("the row {key:?} does not match its checksum")]
    Checksum {
        /// Where the row is.
        key: Key,
    },
    /// The content cannot be decoded although its checksum is right.
    #[error("the row {key:?} cannot be decoded")]
    Content {
        /// Where the row is.
        key: Key,
        /// What is wrong.
        source: DecodeError,
    },
}

impl Row {
    /// Where the row is.
    #[must_use]
    pub fn key(&self) -> Key {
        let table = |direction: &Direction, out, inbox| match direction {
            Direction::Out => out,
            Direction::In => inbox,
        };
        match self {
            Self::Meta(_) => Key::Meta,
            Self::Outgoing(peer, _) => Key::Stream(Direction::Out, peer.clone()),
            Self::Incoming(peer, _) => Key::Stream(Direction::In, peer.clone()),
            Self::Header(direction, peer, seq, _) => {
                let table = table(direction, MessageTable::SentHeader, MessageTable::InboxHeader);
                Key::Message(table, peer.clone(), *seq)
            }
            Self::Body(direction, peer, seq, _) => {
                let table = table(direction, MessageTable::SentBody, MessageTable::InboxBody);
                Key::Message(table, peer.clone(), *seq)
            }
            Self::Work(peer, seq, _) => Key::Message(MessageTable::Work, peer.clone(), *seq),
            Self::Totals(_) => Key::Totals,
            Self::App(name, _) => Key::App(name.clone()),
        }
    }

    /// The row's key and value, as stored.
    #[must_use]
    pub fn encode(&self) -> (Vec<u8>, Vec<u8>) {
        let mut key = Vec::new();
        let (value_at, ..) = self.write(&mut key);
        let value = key.split_off(value_at);
        (key, value)
    }

    /// Adds the row to a batch. Returns its bytes.
    pub(crate) fn put_into(&self, batch: &mut Batch) -> usize {
        batch.put_written(|bytes| self.write(bytes))
    }

    /// Appends key and value. Returns where the value begins, and the checksums of both.
    fn write(&self, bytes: &mut Vec<u8>) -> (usize, u32, u32) {
        let key_at = bytes.len();
        self.write_key(bytes);
        let value_at = bytes.len();
        let key_sum = crc32c::crc32c(&bytes[key_at..]);
        bytes.extend_from_slice(&[FORMAT, 0, 0, 0, 0]);
        self.write_content(bytes);
        let content_at = value_at + ENVELOPE_BYTES;
        let checksum = crc32c::crc32c_append(key_sum, &bytes[content_at..]);
        bytes[value_at + 1..content_at].copy_from_slice(&checksum.to_le_bytes());
        (value_at, key_sum, crc32c::crc32c(&bytes[value_at..]))
    }

    fn write_key(&self, bytes: &mut Vec<u8>) {
        let table = |direction: &Direction, out, inbox| match direction {
            Direction::Out => out,
            Direction::In => inbox,
        };
        match self {
            Self::Meta(_) => bytes.push(Table::Meta.byte()),
            Self::Outgoing(peer, _) => write_peer(bytes, Table::Outgoing, peer),
            Self::Incoming(peer, _) => write_peer(bytes, Table::Incoming, peer),
            Self::Header(direction, peer, seq, _) => {
                write_message(bytes, table(direction, Table::SentHeader, Table::InboxHeader), peer, *seq);
            }
            Self::Body(direction, peer, seq, _) => {
                write_message(bytes, table(direction, Table::SentBody, Table::InboxBody), peer, *seq);
            }
            Self::Work(peer, seq, _) => write_message(bytes, Table::Work, peer, *seq),
            Self::Totals(_) => bytes.push(Table::Totals.byte()),
            Self::App(name, _) => write_app(bytes, name),
        }
    }

    fn write_content(&self, bytes: &mut Vec<u8>) {
        const PLAIN: &str = "plain structs of numbers, bytes and text always encode";
        match self {
            Self::Meta(row) => write_msgpack(bytes, row).expect(PLAIN),
            Self::Outgoing(_, row) => write_msgpack(bytes, row).expect(PLAIN),
            Self::Incoming(_, row) => write_msgpack(bytes, row).expect(PLAIN),
            Self::Header(_, _, _, row) => write_msgpack(bytes, row).expect(PLAIN),
            Self::Work(_, _, row) => write_msgpack(bytes, row).expect(PLAIN),
            Self::Totals(row) => write_msgpack(bytes, row).expect(PLAIN),
            Self::Body(_, _, _, content) | Self::App(_, content) => bytes.extend_from_slice(content),
        }
    }

    /// Reads a row that means something to the fold; of any other, which is bodies, rows of the application, headers of messages sent
    /// and those that `is_beyond` does not say are beyond the mark of their stream, it only checks that it is whole, without a
    /// copy.
    ///
    /// # Errors
    /// As for [`Self::decode`].
    pub(crate) fn decode_meaning(
        key_bytes: &[u8],
        value: &[u8],
        is_beyond: &dyn Fn(&EndpointId, Seq) -> bool,
    ) -> Result<Option<Self>, RowError> {
        let key = Key::read(key_bytes).ok_or_else(|| RowError::Key { key: key_bytes.to_vec() })?;
        let means_nothing = match &key {
            Key::Message(MessageTable::SentHeader | MessageTable::SentBody | MessageTable::InboxBody, ..) => true,
            Key::Message(MessageTable::InboxHeader, peer, seq) => !is_beyond(peer, *seq),
            Key::App(_) => true,
            Key::Message(MessageTable::Work, ..) | Key::Meta | Key::Stream(..) | Key::Totals => false,
        };
        if means_nothing {
            open_row(&key, key_bytes, value).map(|_| None)
        } else {
            Self::decode(key_bytes, value).map(Some)
        }
    }

    /// Reads a row.
    ///
    /// # Errors
    /// [`RowError`] for whatever is not exactly what [`Self::encode`] wrote.
    pub fn decode(key_bytes: &[u8], value: &[u8]) -> Result<Self, RowError> {
        let key = Key::read(key_bytes).ok_or_else(|| RowError::Key { key: key_bytes.to_vec() })?;
        let content = open_row(&key, key_bytes, value)?;
        let row = match &key {
            Key::Meta => from_msgpack(content).map(Self::Meta),
            Key::Stream(Direction::Out, peer) => from_msgpack(content).map(|row| Self::Outgoing(peer.clone(), row)),
            Key::Stream(Direction::In, peer) => from_msgpack(content).map(|row| Self::Incoming(peer.clone(), row)),
            Key::Message(table, peer, seq) => {
                let (peer, seq) = (peer.clone(), *seq);
                match table {
                    MessageTable::SentHeader => {
                        from_msgpack(content).map(|row| Self::Header(Direction::Out, peer, seq, row))
                    }
                    MessageTable::InboxHeader => {
                        from_msgpack(content).map(|row| Self::Header(Direction::In, peer, seq, row))
                    }
                    MessageTable::SentBody => Ok(Self::Body(Direction::Out, peer, seq, content.to_vec())),
                    MessageTable::InboxBody => Ok(Self::Body(Direction::In, peer, seq, content.to_vec())),
                    MessageTable::Work => from_msgpack(content).map(|row| Self::Work(peer, seq, row)),
                }
            }
            Key::Totals => from_msgpack(content).map(Self::Totals),
            Key::App(name) => Ok(Self::App(name.clone(), content.to_vec())),
        };
        row.map_err(|source| RowError::Content { key, source })
    }
}

fn checksum(key: &[u8], content: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(key), content)
}

/// A row's content, if it is what was written.
fn open_row<'a>(key: &Key, key_bytes: &[u8], value: &'a [u8]) -> Result<&'a [u8], RowError> {
    let format = value.first().copied();
    let (Some(FORMAT), Some(sum), Some(content)) = (format, value.get(1..ENVELOPE_BYTES), value.get(ENVELOPE_BYTES..))
    else {
        return Err(RowError::Format { key: key.clone(), format });
    };
    if checksum(key_bytes, content).to_le_bytes() != sum {
        return Err(RowError::Checksum { key: key.clone() });
    }
    Ok(content)
}
