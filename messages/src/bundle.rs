//! Several envelopes in one message of the broker: what waits for the same receiver travels together, because a broker and its queues
//! cost the same for one kilobyte as for thirty. A bundle means nothing by itself. Each envelope in it is what it would be alone,
//! and all of them are lost, repeated or late together, which is one of the ways in which that happens to envelopes anyway.
//!
//! ```text
//! byte 0      protocol version
//! byte 1      4, which no envelope has
//! then, for each envelope: 4 bytes of length, big-endian, and the envelope
//! ```

use crate::codec::PROTOCOL_VERSION;
use crate::envelope::Frame;
use crate::limits::{BUNDLE_BYTES_MAX, BUNDLE_ENVELOPES_MAX, ENVELOPE_BYTES_MAX};

/// The second byte of a bundle.
const BUNDLE: u8 = 4;
/// Bytes before the first envelope: version and type.
const PREFIX_BYTES: usize = 2;
/// Bytes of the length before each.
const LENGTH_BYTES: usize = 4;

/// Envelopes on their way into one message of the broker: at least one.
#[derive(Debug, Clone)]
pub struct Bundle {
    frames: Vec<Frame>,
    bytes: usize,
}

impl Bundle {
    /// One envelope, which may be larger than several together may be.
    #[must_use]
    pub fn new(first: Frame) -> Self {
        let bytes = PREFIX_BYTES + LENGTH_BYTES + first.bytes().len();
        Self { frames: vec![first], bytes }
    }

    /// Whether that one fits in, too.
    #[must_use]
    pub fn has_room_for(&self, frame: &Frame) -> bool {
        let bytes = self.bytes + LENGTH_BYTES + frame.bytes().len();
        self.frames.len() < BUNDLE_ENVELOPES_MAX && bytes <= BUNDLE_BYTES_MAX
    }

    /// Adds one. [`Self::has_room_for`] it must hold, or the receiver refuses the whole.
    pub fn push(&mut self, frame: Frame) {
        self.bytes += LENGTH_BYTES + frame.bytes().len();
        self.frames.push(frame);
    }

    /// What is published: a single envelope as it is, several as a bundle.
    #[must_use]
    pub fn into_payload(mut self) -> Payload {
        if self.frames.len() == 1
            && let Some(alone) = self.frames.pop()
        {
            return Payload(Inner::Alone(alone));
        }
        let mut bytes = Vec::with_capacity(self.bytes);
        bytes.extend([PROTOCOL_VERSION.value(), BUNDLE]);
        for frame in &self.frames {
            // No frame is longer than an envelope may be.
            let length = u32::try_from(frame.bytes().len()).unwrap_or(u32::MAX);
            bytes.extend(length.to_be_bytes());
            bytes.extend(frame.bytes());
        }
        Payload(Inner::Together(bytes))
    }
}

/// Bytes of one message of the broker. Those of a single envelope are not copied.
#[derive(Debug, Clone)]
pub struct Payload(Inner);

#[derive(Debug, Clone)]
enum Inner {
    Alone(Frame),
    Together(Vec<u8>),
}

impl Payload {
    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        match &self.0 {
            Inner::Alone(frame) => frame.bytes(),
            Inner::Together(bytes) => bytes,
        }
    }
}

/// The envelopes in what came from the broker, in their order: at least one. What is not a bundle, or is a damaged one, comes back as it is:
/// then it is an envelope, or garbled. Nothing in them is looked at, and none of them is a bundle that is taken apart.
#[must_use]
pub fn unbundle(bytes: Vec<u8>) -> Vec<Vec<u8>> {
    match parts(&bytes) {
        Some(parts) => parts.into_iter().map(<[u8]>::to_vec).collect(),
        None => vec![bytes],
    }
}

/// Nothing if it is not a whole bundle of at least two.
fn parts(bytes: &[u8]) -> Option<Vec<&[u8]>> {
    let mut rest = bytes.strip_prefix(&[PROTOCOL_VERSION.value(), BUNDLE])?;
    if bytes.len() > ENVELOPE_BYTES_MAX {
        return None;
    }
    let mut parts = Vec::new();
    while let Some((length, after)) = rest.split_first_chunk::<LENGTH_BYTES>() {
        let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
        let (part, after) = after.split_at_checked(length)?;
        if part.is_empty() || parts.len() == BUNDLE_ENVELOPES_MAX {
            return None;
        }
        parts.push(part);
        rest = after;
    }
    (rest.is_empty() && parts.len() > 1).then_some(parts)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::{EndpointId, Epoch, Header, Incarnation};

    fn frame(bytes: usize) -> Frame {
        let header = Header::new(EndpointId::Server, EndpointId::Server, Incarnation::from_u128(1), Epoch::FIRST);
        Frame::message(&header, &vec![7; bytes]).unwrap()
    }

    fn bundle(frames: &[Frame]) -> Bundle {
        let mut frames = frames.iter().cloned();
        let mut bundle = Bundle::new(frames.next().unwrap());
        frames.for_each(|frame| bundle.push(frame));
        bundle
    }

    #[test]
    fn several_come_out_as_they_went_in_and_one_travels_as_ever() {
        let frames: Vec<_> = [10, 0, 1_000].map(frame).into();
        let bytes = bundle(&frames).into_payload().bytes().to_vec();
        assert!(unbundle(bytes.clone()).iter().eq(frames.iter().map(Frame::bytes)));
        assert!(matches!(crate::decode(bytes), Err(crate::DecodeError::Type { got: BUNDLE })));
        let alone = Bundle::new(frames[2].clone()).into_payload().bytes().to_vec();
        assert_eq!((&alone[..], unbundle(alone.clone())), (frames[2].bytes(), vec![alone.clone()]));
    }

    #[test]
    fn a_bundle_is_full_by_number_and_by_bytes() {
        let small = frame(1);
        let mut bundle = Bundle::new(small.clone());
        let room = std::iter::from_fn(|| bundle.has_room_for(&small).then(|| bundle.push(small.clone()))).count();
        assert_eq!(room + 1, BUNDLE_ENVELOPES_MAX);
        let bytes = bundle.into_payload().bytes().to_vec();
        assert_eq!(unbundle(bytes).len(), BUNDLE_ENVELOPES_MAX);
        let mut bundle = Bundle::new(frame(BUNDLE_BYTES_MAX / 2));
        assert!(bundle.has_room_for(&small) && !bundle.has_room_for(&frame(BUNDLE_BYTES_MAX / 2)));
        bundle.push(small.clone());
        let large = Bundle::new(frame(BUNDLE_BYTES_MAX));
        assert!(!large.has_room_for(&small) && bundle.into_payload().bytes().to_vec().len() <= BUNDLE_BYTES_MAX);
    }

    #[test]
    fn what_is_no_whole_bundle_stays_as_it_is() {
        let whole = bundle(&[frame(10), frame(20)]).into_payload().bytes().to_vec();
        let mut longer = whole.clone();
        longer.push(0);
        let mut too_many = whole[..2].to_vec();
        for _ in 0..=BUNDLE_ENVELOPES_MAX {
            too_many.extend([0, 0, 0, 1, 9]);
        }
        let one = bundle(&[frame(10)]).into_payload().bytes().to_vec();
        let alone = [&[1, BUNDLE, 0, 0, 0, u8::try_from(one.len()).unwrap()][..], &one].concat();
        let huge = [&[1, BUNDLE][..], &u32::MAX.to_be_bytes(), &[0; 8]].concat();
        let empty = [&[1, BUNDLE][..], &[0, 0, 0, 1, 5, 0, 0, 0, 0]].concat();
        let other = [&[2][..], &whole[1..]].concat();
        let cut: Vec<_> = (0..whole.len()).map(|length| whole[..length].to_vec()).collect();
        for bytes in [longer, too_many, alone, huge, empty, other].into_iter().chain(cut) {
            assert_eq!(unbundle(bytes.clone()), [bytes]);
        }
    }
}
