//! What must hold for any bytes that are given to the decoder of envelopes: an envelope within its limits that is written as it was
//! read, or an error. Run by the fuzz target `decode` and by the property tests of `messages`.

use messages::limits::{ENVELOPE_BYTES_MAX, HEADER_BYTES_MAX, RANGES_MAX};
use messages::{Body, ChainHash, DecodeError, Digest, Envelope, Frame, Message, Status, decode};

/// Panics when something does not hold. Says whether the bytes were an envelope.
pub(crate) fn any_bytes(bytes: &[u8]) -> bool {
    let envelope = match decode(bytes.to_vec()) {
        Ok(envelope) => envelope,
        Err(error) => {
            let too_large = bytes.len() > ENVELOPE_BYTES_MAX;
            assert!(
                !too_large || matches!(error, DecodeError::TooLarge { .. }),
                "size comes before everything: {error}"
            );
            return false;
        }
    };
    assert!(bytes.len() <= ENVELOPE_BYTES_MAX);
    match envelope {
        Envelope::Message(message) => check_message(bytes, &message),
        Envelope::Status(status) => check_status(bytes, &status),
        Envelope::Log(log) => match Frame::log(&log) {
            Ok(frame) => assert_eq!(decode(frame.bytes().to_vec()).ok(), Some(Envelope::Log(log))),
            Err(error) => assert!(grows_too_large(bytes), "{error}"),
        },
    }
    true
}

/// Names of fields may be left out by whoever writes, so what is read can take more bytes when we write it.
fn grows_too_large(bytes: &[u8]) -> bool {
    bytes.len() > ENVELOPE_BYTES_MAX / 4
}

fn check_message(bytes: &[u8], message: &Message) {
    assert_eq!(message.frame.bytes(), bytes, "a message is kept as it came");
    assert!(message.header_bytes().len() <= HEADER_BYTES_MAX);
    assert_eq!(message.hash, ChainHash::of(message.header_bytes()));
    assert_eq!(message.header.digest, Digest::of(message.body()));
    let restored = Message::restore(message.header_bytes(), message.body());
    assert_eq!(restored.ok().as_ref(), Some(message), "what a journal keeps of it makes it again");
    if let Ok(body) = Body::decode(message.header.kind, message.body())
        && let Ok((kind, encoded)) = body.encode()
    {
        assert_eq!(kind, message.header.kind);
        assert_eq!(Body::decode(kind, &encoded).ok(), Some(body), "a body is written as it was read");
    }
}

fn check_status(bytes: &[u8], status: &Status) {
    let ranges = status.receiving.iter().map(|receiving| receiving.ranges.iter().count());
    assert!(ranges.max().unwrap_or(0) <= RANGES_MAX);
    match Frame::status(status) {
        Ok(frame) => assert_eq!(decode(frame.bytes().to_vec()).ok(), Some(Envelope::Status(status.clone()))),
        Err(error) => assert!(grows_too_large(bytes), "{error}"),
    }
}
