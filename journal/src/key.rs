//! Where a row is: tables, directions, and the bytes of keys, which give the order in which a journal is read.

use messages::{EndpointId, Seq};
use serde::{Deserialize, Serialize};

/// The kinds of rows. The byte of each is its place in the key space; the order matters for reading: what a stream row says
/// is known before its messages come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// What journal this is.
    Meta,
    /// One stream that this endpoint sends.
    Outgoing,
    /// One stream that this endpoint receives.
    Incoming,
    /// The headers of messages sent.
    SentHeader,
    /// The bodies of messages sent, until they are settled.
    SentBody,
    /// The headers of messages received.
    InboxHeader,
    /// The bodies of messages received, until they are settled.
    InboxBody,
    /// Messages received and applied whose outcome is not yet settled.
    Work,
    /// What all other rows add up to.
    Totals,
    /// Rows of the application.
    App,
}

impl Table {
    /// Every table, in key order.
    pub const ALL: [Self; 10] = [
        Self::Meta,
        Self::Outgoing,
        Self::Incoming,
        Self::SentHeader,
        Self::SentBody,
        Self::InboxHeader,
        Self::InboxBody,
        Self::Work,
        Self::Totals,
        Self::App,
    ];

    pub(crate) const fn byte(self) -> u8 {
        match self {
            Self::Meta => 0x01,
            Self::Outgoing => 0x02,
            Self::Incoming => 0x03,
            Self::SentHeader => 0x04,
            Self::SentBody => 0x05,
            Self::InboxHeader => 0x06,
            Self::InboxBody => 0x07,
            Self::Work => 0x08,
            Self::Totals => 0x09,
            Self::App => 0x10,
        }
    }

    fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|table| table.byte() == byte)
    }
}

/// Where a row is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// The one row that says what journal this is.
    Meta,
    /// The row of a stream: [`Table::Outgoing`] or [`Table::Incoming`].
    Stream(Direction, EndpointId),
    /// A row of a message.
    Message(MessageTable, EndpointId, Seq),
    /// The one row that says what all others add up to.
    Totals,
    /// A row of the application, under a name of its choice.
    App(Vec<u8>),
}

/// Which of the two streams shared with a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    /// From the peer to this endpoint.
    In,
    /// From this endpoint to the peer.
    Out,
}

impl std::fmt::Display for Direction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::In => "in",
            Self::Out => "out",
        })
    }
}

/// The tables that hold a row for a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MessageTable {
    /// [`Table::SentHeader`]
    SentHeader,
    /// [`Table::SentBody`]
    SentBody,
    /// [`Table::InboxHeader`]
    InboxHeader,
    /// [`Table::InboxBody`]
    InboxBody,
    /// [`Table::Work`]
    Work,
}

impl MessageTable {
    pub(crate) const fn table(self) -> Table {
        match self {
            Self::SentHeader => Table::SentHeader,
            Self::SentBody => Table::SentBody,
            Self::InboxHeader => Table::InboxHeader,
            Self::InboxBody => Table::InboxBody,
            Self::Work => Table::Work,
        }
    }
}

impl Key {
    /// The key's bytes.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        match self {
            Self::Meta => bytes.push(Table::Meta.byte()),
            Self::Stream(Direction::Out, peer) => write_peer(&mut bytes, Table::Outgoing, peer),
            Self::Stream(Direction::In, peer) => write_peer(&mut bytes, Table::Incoming, peer),
            Self::Message(table, peer, seq) => write_message(&mut bytes, table.table(), peer, *seq),
            Self::Totals => bytes.push(Table::Totals.byte()),
            Self::App(name) => write_app(&mut bytes, name),
        }
        bytes
    }

    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        let (&table, rest) = bytes.split_first()?;
        let table = Table::from_byte(table)?;
        let peer = |name: &[u8]| std::str::from_utf8(name).ok()?.parse::<EndpointId>().ok();
        let message = |kind| {
            let end = rest.iter().position(|byte| *byte == 0)?;
            let seq = u64::from_be_bytes(rest[end + 1..].try_into().ok()?);
            Some(Self::Message(kind, peer(&rest[..end])?, Seq::new(seq)?))
        };
        match table {
            Table::Meta => rest.is_empty().then_some(Self::Meta),
            Table::Outgoing => Some(Self::Stream(Direction::Out, peer(rest.strip_suffix(&[0])?)?)),
            Table::Incoming => Some(Self::Stream(Direction::In, peer(rest.strip_suffix(&[0])?)?)),
            Table::SentHeader => message(MessageTable::SentHeader),
            Table::SentBody => message(MessageTable::SentBody),
            Table::InboxHeader => message(MessageTable::InboxHeader),
            Table::InboxBody => message(MessageTable::InboxBody),
            Table::Work => message(MessageTable::Work),
            Table::Totals => rest.is_empty().then_some(Self::Totals),
            Table::App => Some(Self::App(rest.to_vec())),
        }
    }
}

/// Appends what all rows of a table about one peer begin with.
pub(crate) fn write_peer(bytes: &mut Vec<u8>, table: Table, peer: &EndpointId) {
    bytes.push(table.byte());
    bytes.extend_from_slice(peer.as_str().as_bytes());
    bytes.push(0);
}

/// Appends the key of a message's row.
pub(crate) fn write_message(bytes: &mut Vec<u8>, table: Table, peer: &EndpointId, seq: Seq) {
    write_peer(bytes, table, peer);
    bytes.extend_from_slice(&seq.value().to_be_bytes());
}

/// Appends the key of a row of the application.
pub(crate) fn write_app(bytes: &mut Vec<u8>, name: &[u8]) {
    bytes.push(Table::App.byte());
    bytes.extend_from_slice(name);
}
