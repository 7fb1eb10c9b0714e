//! Bytes to envelopes and back. Size is checked before anything is parsed, nesting is limited, and what is left over after
//! an envelope is an error: two readers can never disagree about the same bytes.

use std::fmt;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::envelope::{Envelope, EnvelopeType, Frame, Header, Message, PREFIX_BYTES};
use crate::limits::{BODY_BYTES_MAX, DEPTH_MAX, ENVELOPE_BYTES_MAX, HEADER_BYTES_MAX};
use crate::{ChainHash, Digest};

/// A version of the protocol, the first byte of every envelope.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ProtocolVersion(u8);

impl ProtocolVersion {
    /// The version with that number.
    #[must_use]
    pub const fn new(value: u8) -> Self {
        Self(value)
    }

    /// The number.
    #[must_use]
    pub const fn value(self) -> u8 {
        self.0
    }
}

impl fmt::Display for ProtocolVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The version that this build speaks, the only one so far.
pub const PROTOCOL_VERSION: ProtocolVersion = ProtocolVersion(1);

/// Why a value could not be turned into an envelope. Both are the submitter's to mend.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    /// The body is larger than an envelope can carry.
    #[error("the body has {bytes} bytes, at most {BODY_BYTES_MAX} fit in one message")]
    BodyTooLarge {
        /// Bytes of the body.
        bytes: usize,
    },
    /// The envelope would be larger than allowed.
    #[error("the envelope has {bytes} bytes, at most {ENVELOPE_BYTES_MAX} are allowed")]
    TooLarge {
        /// Bytes of the envelope.
        bytes: usize,
    },
    /// The value cannot be written as MessagePack.
    #[error("cannot be written as MessagePack")]
    MessagePack(#[from] rmp_serde::encode::Error),
}

/// Why bytes are not an envelope. All of them are the sender's, or of whoever had the bytes on the way.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// More bytes than an envelope may have. Nothing was parsed.
    #[error("{bytes} bytes, at most {max} are allowed")]
    TooLarge {
        /// Bytes received.
        bytes: usize,
        /// Bytes allowed here.
        max: usize,
    },
    /// The bytes end before the envelope does.
    #[error("the bytes end early, after {bytes}")]
    Truncated {
        /// Bytes received.
        bytes: usize,
    },
    /// A protocol version that this build does not speak.
    #[error("protocol version {got}, this build speaks {PROTOCOL_VERSION}")]
    Version {
        /// The version received.
        got: ProtocolVersion,
    },
    /// An envelope type that this build does not know.
    #[error("unknown envelope type {got}")]
    Type {
        /// The type received.
        got: u8,
    },
    /// Bytes are left over after the value.
    #[error("{bytes} bytes are left over")]
    Trailing {
        /// Bytes left over.
        bytes: usize,
    },
    /// The body's bytes are not those the header speaks of.
    #[error("the body does not have the digest its header gives")]
    Digest,
    /// Not the MessagePack that was expected.
    #[error("not the expected MessagePack")]
    MessagePack(#[from] rmp_serde::decode::Error),
}

/// Writes a value as MessagePack with named fields, so that older readers can skip new ones.
///
/// # Errors
/// [`rmp_serde::encode::Error`] when the value cannot be written.
pub fn to_msgpack<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, rmp_serde::encode::Error> {
    // Most rows and headers fit, and need not be moved while they grow.
    let mut bytes = Vec::with_capacity(MSGPACK_BYTES_USUAL);
    write_msgpack(&mut bytes, value)?;
    Ok(bytes)
}

/// Bytes that a row or a header has usually, at most.
const MSGPACK_BYTES_USUAL: usize = 512;

/// As [`to_msgpack`], behind what is in the buffer already.
///
/// # Errors
/// As for [`to_msgpack`]; the buffer may then hold a part of the value.
pub fn write_msgpack<T: Serialize + ?Sized>(bytes: &mut Vec<u8>, value: &T) -> Result<(), rmp_serde::encode::Error> {
    rmp_serde::encode::write_named(bytes, value)
}

/// Reads one MessagePack value that must fill the bytes, nested at most [`DEPTH_MAX`] levels.
///
/// # Errors
/// [`DecodeError::MessagePack`] or [`DecodeError::Trailing`]. The size is the caller's to bound.
pub fn from_msgpack<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError> {
    let mut deserializer = rmp_serde::Deserializer::new(bytes);
    deserializer.set_max_depth(DEPTH_MAX);
    let value = T::deserialize(&mut deserializer)?;
    match deserializer.into_inner().len() {
        0 => Ok(value),
        left => Err(DecodeError::Trailing { bytes: left }),
    }
}

/// Reads an envelope. The bytes of a message are kept as they came; hashes are over them.
///
/// # Errors
/// [`DecodeError`], for every input that is not exactly one envelope. Never panics, whatever the input.
pub fn decode(bytes: Vec<u8>) -> Result<Envelope, DecodeError> {
    if bytes.len() > ENVELOPE_BYTES_MAX {
        return Err(DecodeError::TooLarge { bytes: bytes.len(), max: ENVELOPE_BYTES_MAX });
    }
    let (&version, &code) = match (bytes.first(), bytes.get(1)) {
        (Some(version), Some(code)) => (version, code),
        (None, _) | (_, None) => return Err(DecodeError::Truncated { bytes: bytes.len() }),
    };
    if ProtocolVersion(version) != PROTOCOL_VERSION {
        return Err(DecodeError::Version { got: ProtocolVersion(version) });
    }
    match EnvelopeType::from_code(code).ok_or(DecodeError::Type { got: code })? {
        EnvelopeType::Message => decode_message(bytes).map(Envelope::Message),
        EnvelopeType::Status => from_msgpack(&bytes[2..]).map(Envelope::Status),
        EnvelopeType::Log => from_msgpack(&bytes[2..]).map(Envelope::Log),
    }
}

fn decode_message(bytes: Vec<u8>) -> Result<Message, DecodeError> {
    let truncated = DecodeError::Truncated { bytes: bytes.len() };
    let Some(length) = bytes.get(2..PREFIX_BYTES).and_then(|prefix| prefix.try_into().ok()).map(u32::from_be_bytes)
    else {
        return Err(truncated);
    };
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    if length > HEADER_BYTES_MAX {
        return Err(DecodeError::TooLarge { bytes: length, max: HEADER_BYTES_MAX });
    }
    let body_start = PREFIX_BYTES + length;
    let Some(header_bytes) = bytes.get(PREFIX_BYTES..body_start) else {
        return Err(truncated);
    };
    let header: Header = from_msgpack(header_bytes)?;
    let hash = ChainHash::of(header_bytes);
    if Digest::of(&bytes[body_start..]) != header.digest {
        return Err(DecodeError::Digest);
    }
    Ok(Message { header, hash, frame: Frame::from_checked(bytes) })
}
