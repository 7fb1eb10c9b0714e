//! Ids and positions. Each is a type of its own, so that none can stand in for another. Nothing here makes an id: randomness
//! and clocks belong to the callers.

use std::fmt;
use std::num::NonZeroU64;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::names::{IdError, printable};

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// Takes over an id that was made elsewhere.
            #[must_use]
            pub const fn new(id: Uuid) -> Self {
                Self(id)
            }

            /// An id with just these 128 bits.
            #[must_use]
            pub const fn from_u128(bits: u128) -> Self {
                Self(Uuid::from_u128(bits))
            }

            /// The id as a UUID.
            #[must_use]
            pub const fn uuid(self) -> Uuid {
                self.0
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                Uuid::try_parse(text).map(Self).map_err(|_| IdError::Uuid { what: $what, text: printable(text) })
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

uuid_id! {
    /// The id of one message: a UUIDv7, chosen by whoever submits it and durable before the first send, so that submitting
    /// again after a crash is the same message.
    MessageId, "message id"
}
uuid_id! {
    /// The id of a job: one submission of a job file.
    JobId, "job id"
}
uuid_id! {
    /// The id of a run: what one agent does for one job.
    RunId, "run id"
}
uuid_id! {
    /// 128 random bits minted when a journal is created. Part of the identity of every stream that the journal sends.
    Incarnation, "incarnation"
}

impl Incarnation {
    /// The incarnation that follows when a process finds that its journal was restored from an old copy. The nonce, which is
    /// random and never stored, makes it another one each time.
    #[must_use]
    pub fn successor(self, nonce: Nonce) -> Self {
        let mut bytes = b"longshore successor".to_vec();
        bytes.extend_from_slice(self.0.as_bytes());
        bytes.extend_from_slice(&nonce.0.to_be_bytes());
        let hash = crate::Digest::of(&bytes);
        let half = hash.bytes().first_chunk::<16>().expect("a digest has 32 bytes");
        Self::from_u128(u128::from_be_bytes(*half))
    }
}

/// How many times a journal has been opened, from 1. Raised and synced at each opening, it fences an older process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Epoch(u64);

impl Epoch {
    /// The epoch of a journal that has just been created.
    pub const FIRST: Self = Self(1);

    /// Takes over an epoch read from storage or from the wire.
    #[must_use]
    pub const fn new(value: u64) -> Self {
        Self(value)
    }

    /// The epoch after this one. Saturates, which 2^64 openings never reach.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// The count itself.
    #[must_use]
    pub const fn value(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// 64 random bits made when a process starts and never stored. Two nonces under one epoch mean a cloned machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Nonce(u64);

impl Nonce {
    /// A nonce with just these bits.
    #[must_use]
    pub const fn new(bits: u64) -> Self {
        Self(bits)
    }

    /// The bits.
    #[must_use]
    pub const fn value(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Names one probe of one process, so that its answer can be told from the answers to others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ProbeId(u64);

impl ProbeId {
    /// The probe with that number. A process starts counting at its nonce, so that probes of two processes differ.
    #[must_use]
    pub const fn new(value: u64) -> Self {
        Self(value)
    }

    /// The next probe of the same process.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.wrapping_add(1))
    }
}

/// The place of a message in its stream, from 1, without gaps, never reused and never reset. "Nothing yet" is `Option::None`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Seq(NonZeroU64);

impl Seq {
    /// The first place of a stream.
    pub const FIRST: Self = Self(NonZeroU64::MIN);

    /// The place with that number, or nothing for 0.
    #[must_use]
    pub const fn new(value: u64) -> Option<Self> {
        match NonZeroU64::new(value) {
            Some(value) => Some(Self(value)),
            None => None,
        }
    }

    /// The number itself, at least 1.
    #[must_use]
    pub const fn value(self) -> u64 {
        self.0.get()
    }

    /// The place after this one. Saturates, which 2^64 messages never reach.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// The place before this one, or nothing for the first.
    #[must_use]
    pub const fn previous(self) -> Option<Self> {
        Self::new(self.0.get() - 1)
    }

    /// The first place beyond a mark.
    #[must_use]
    pub const fn after(mark: Option<Self>) -> Self {
        match mark {
            Some(mark) => mark.next(),
            None => Self::FIRST,
        }
    }

    /// The number of a mark, 0 for "nothing yet".
    #[must_use]
    pub const fn count(mark: Option<Self>) -> u64 {
        match mark {
            Some(mark) => mark.value(),
            None => 0,
        }
    }
}

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn marks_and_places_agree() {
        assert_eq!(Seq::after(None), Seq::FIRST);
        assert_eq!(Seq::after(Seq::new(41)), Seq::new(42).unwrap());
        assert_eq!(Seq::FIRST.previous(), None);
        assert_eq!(Seq::count(None), 0);
        assert_eq!(Seq::new(0), None);
    }
}
