//! The envelopes: sequenced messages, unsequenced statuses, and log chunks. An envelope never changes after it was made:
//! a message sent again is the same bytes.
//!
//! ```text
//! byte 0      protocol version
//! byte 1      envelope type: 1 message, 2 status, 3 log (4 are several of them: see the bundle)
//! message:    bytes 2..6  length of the header, big-endian
//!             header      MessagePack map with named fields
//!             body        to the end, sealed or clear as the header says
//! status, log: MessagePack map with named fields, to the end
//! ```

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::codec::{DecodeError, EncodeError, PROTOCOL_VERSION, decode, to_msgpack};
use crate::limits::{BODY_BYTES_MAX, ENVELOPE_BYTES_MAX};
use crate::{ChainHash, Digest, EndpointId, Epoch, Incarnation, Kind, LogDatagram, MessageId, Seq, Status};

/// Bytes before a message's header: version, type and the header's length.
pub(crate) const PREFIX_BYTES: usize = 6;

/// The second byte of an envelope.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EnvelopeType {
    Message,
    Status,
    Log,
}

impl EnvelopeType {
    pub(crate) const fn from_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::Message),
            2 => Some(Self::Status),
            3 => Some(Self::Log),
            _ => None,
        }
    }

    const fn code(self) -> u8 {
        match self {
            Self::Message => 1,
            Self::Status => 2,
            Self::Log => 3,
        }
    }
}

/// What came over the broker.
// One of them is on its way at a time, and boxed where it waits.
#[allow(clippy::large_enum_variant)]
#[derive(Debug, Clone, PartialEq)]
pub enum Envelope {
    /// A sequenced, journaled message.
    Message(Message),
    /// What the peer has and what it misses. Safe to lose, repeat or reorder.
    Status(Status),
    /// A piece of a log file, or word of how much of one has arrived. Safe to lose, repeat or reorder.
    Log(LogDatagram),
}

/// How a body is protected. The place is kept for sealing; so far every body travels in the clear.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "u8", into = "u8")]
pub enum Sealing {
    /// The body is readable by whoever holds the bytes.
    Clear,
    /// A sealing that this build does not know; the message is refused with a reason.
    Unknown(u8),
}

impl From<u8> for Sealing {
    fn from(code: u8) -> Self {
        match code {
            0 => Self::Clear,
            other => Self::Unknown(other),
        }
    }
}

impl From<Sealing> for u8 {
    fn from(sealing: Sealing) -> Self {
        match sealing {
            Sealing::Clear => 0,
            Sealing::Unknown(code) => code,
        }
    }
}

/// What is known of a message without opening its body. Its fields have names of one letter in its bytes, which are hashed, kept and sent
/// twice each; those that they had before are understood.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// Who sent it.
    #[serde(rename = "f", alias = "from")]
    pub from: EndpointId,
    /// For whom it is.
    #[serde(rename = "t", alias = "to")]
    pub to: EndpointId,
    /// The sender's journal.
    #[serde(rename = "i", alias = "incarnation")]
    pub incarnation: Incarnation,
    /// The opening of that journal in which the message was made.
    #[serde(rename = "e", alias = "epoch")]
    pub epoch: Epoch,
    /// Its place in the stream from `from` to `to`.
    #[serde(rename = "s", alias = "seq")]
    pub seq: Seq,
    /// The submitter's id for it.
    #[serde(rename = "m", alias = "id")]
    pub id: MessageId,
    /// What the body is.
    #[serde(rename = "k", alias = "kind")]
    pub kind: Kind,
    /// The message that it answers, if any.
    #[serde(rename = "c", alias = "cause", default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<MessageId>,
    /// SHA-256 of the body as it travels.
    #[serde(rename = "d", alias = "digest")]
    pub digest: Digest,
    /// Hash of the header before it in the stream, [`ChainHash::START`] for the first.
    #[serde(rename = "p", alias = "previous")]
    pub previous: ChainHash,
    /// How the body is protected.
    #[serde(rename = "x", alias = "sealing")]
    pub sealing: Sealing,
}

impl Header {
    /// A header for a stream, still without its place and load; see [`Self::numbered`] and [`Self::carrying`].
    #[must_use]
    pub fn new(from: EndpointId, to: EndpointId, incarnation: Incarnation, epoch: Epoch) -> Self {
        Self {
            from,
            to,
            incarnation,
            epoch,
            seq: Seq::FIRST,
            id: MessageId::from_u128(0),
            kind: Kind::Refusal,
            cause: None,
            digest: Digest::of(&[]),
            previous: ChainHash::START,
            sealing: Sealing::Clear,
        }
    }

    /// The same header at that place of its stream.
    #[must_use]
    pub fn numbered(self, seq: Seq, previous: ChainHash) -> Self {
        Self { seq, previous, ..self }
    }

    /// The same header for that body.
    #[must_use]
    pub fn carrying(self, id: MessageId, kind: Kind, cause: Option<MessageId>, body: &[u8]) -> Self {
        Self { id, kind, cause, digest: Digest::of(body), ..self }
    }
}

/// The bytes of one envelope, as they travel and as the journal keeps them. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame(Arc<Vec<u8>>);

impl Frame {
    /// The frame of a message.
    ///
    /// # Errors
    /// [`EncodeError`] when the body is too large.
    pub fn message(header: &Header, body: &[u8]) -> Result<Self, EncodeError> {
        if body.len() > BODY_BYTES_MAX {
            return Err(EncodeError::BodyTooLarge { bytes: body.len() });
        }
        let header = to_msgpack(header)?;
        let mut bytes = Vec::with_capacity(PREFIX_BYTES + header.len() + body.len());
        bytes.extend([PROTOCOL_VERSION.value(), EnvelopeType::Message.code()]);
        let length = u32::try_from(header.len()).map_err(|_| EncodeError::TooLarge { bytes: header.len() })?;
        bytes.extend(length.to_be_bytes());
        bytes.extend(header);
        bytes.extend(body);
        Self::bounded(bytes)
    }

    /// The frame of a status.
    ///
    /// # Errors
    /// [`EncodeError`], only for presence facts of absurd length.
    pub fn status(status: &Status) -> Result<Self, EncodeError> {
        Self::plain(EnvelopeType::Status, to_msgpack(status)?)
    }

    /// The frame of a log chunk or mark.
    ///
    /// # Errors
    /// [`EncodeError`] when the chunk is too large.
    pub fn log(log: &LogDatagram) -> Result<Self, EncodeError> {
        Self::plain(EnvelopeType::Log, to_msgpack(log)?)
    }

    fn plain(kind: EnvelopeType, load: Vec<u8>) -> Result<Self, EncodeError> {
        let mut bytes = Vec::with_capacity(2 + load.len());
        bytes.extend([PROTOCOL_VERSION.value(), kind.code()]);
        bytes.extend(load);
        Self::bounded(bytes)
    }

    fn bounded(bytes: Vec<u8>) -> Result<Self, EncodeError> {
        if bytes.len() > ENVELOPE_BYTES_MAX {
            return Err(EncodeError::TooLarge { bytes: bytes.len() });
        }
        Ok(Self(Arc::new(bytes)))
    }

    pub(crate) fn from_checked(bytes: Vec<u8>) -> Self {
        Self(Arc::new(bytes))
    }

    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// A sequenced message, with the bytes it came in or will go out in.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    /// The header, decoded.
    pub header: Header,
    /// The hash of the header's bytes, which the next header of the stream holds.
    pub hash: ChainHash,
    /// All of its bytes.
    pub frame: Frame,
}

impl Message {
    /// Makes a message from its header and body.
    ///
    /// # Errors
    /// [`EncodeError`] when the body is too large.
    pub fn new(header: Header, body: &[u8]) -> Result<Self, EncodeError> {
        let frame = Frame::message(&header, body)?;
        let body_start = frame.bytes().len() - body.len();
        let hash = ChainHash::of(&frame.bytes()[PREFIX_BYTES..body_start]);
        Ok(Self { header, hash, frame })
    }

    /// Puts a message together again from the parts that a journal keeps. The bytes are the same as when it was made.
    ///
    /// # Errors
    /// [`DecodeError`] when the header cannot be decoded or the body is not the one it speaks of.
    pub fn restore(header: &[u8], body: &[u8]) -> Result<Self, DecodeError> {
        let mut bytes = Vec::with_capacity(PREFIX_BYTES + header.len() + body.len());
        bytes.extend([PROTOCOL_VERSION.value(), EnvelopeType::Message.code()]);
        let length = u32::try_from(header.len()).unwrap_or(u32::MAX);
        bytes.extend(length.to_be_bytes());
        bytes.extend(header);
        bytes.extend(body);
        match decode(bytes)? {
            Envelope::Message(message) => Ok(message),
            Envelope::Status(_) | Envelope::Log(_) => unreachable!("the type byte was written as a message's"),
        }
    }

    /// The body's bytes.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        &self.frame.bytes()[self.body_start()..]
    }

    /// The header's bytes, as hashed.
    #[must_use]
    pub fn header_bytes(&self) -> &[u8] {
        &self.frame.bytes()[PREFIX_BYTES..self.body_start()]
    }

    fn body_start(&self) -> usize {
        // A message is only ever made of a frame whose prefix was written or checked here.
        let bytes = self.frame.bytes();
        PREFIX_BYTES + u32::from_be_bytes([bytes[2], bytes[3], bytes[4], bytes[5]]) as usize
    }
}
