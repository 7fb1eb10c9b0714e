//! The fuzz target `decode` on stable: random bytes, and valid envelopes made wrong.
#![allow(clippy::unwrap_used)]

#[path = "../../fuzz/bodies/decode.rs"]
mod body;
#[path = "../../fuzz/bodies/mutate.rs"]
mod mutate;

use messages::{
    ChainHash, EndpointId, Epoch, Frame, Header, Incarnation, Kind, Lineage, LogChunk, LogDatagram, LogKey, LogStream,
    Message, MessageId, Nonce, PROTOCOL_VERSION, Presence, Ranges, Receiving, Refusal, RunId, Sending, Seq, Status,
};
use proptest::prelude::*;

fn seq(value: u64) -> Seq {
    Seq::new(value).unwrap()
}

/// One envelope of each type, each field of which holds something.
fn valid() -> Vec<Vec<u8>> {
    let agent: EndpointId = "web-01".parse().unwrap();
    let (reason, code) = ("no such run".to_owned(), messages::RefusalCode::Disk);
    let refusal = Refusal { message: MessageId::from_u128(7), reason, code };
    let (kind, body) = messages::Body::Refusal(refusal).encode().unwrap();
    let header = Header::new(agent.clone(), EndpointId::Server, Incarnation::from_u128(5), Epoch::new(2));
    let header = header.numbered(seq(9), ChainHash::from_bytes([3; 32]));
    let message = |kind, body: &[u8]| {
        let header = header.clone().carrying(MessageId::from_u128(8), kind, Some(MessageId::from_u128(6)), body);
        Message::new(header, body).unwrap().frame.bytes().to_vec()
    };
    let (incarnation, epoch, head) = (Incarnation::from_u128(1), Epoch::new(2), ChainHash::from_bytes([1; 32]));
    let (lowest_kept, forget_through) = (Seq::FIRST, Some(Seq::FIRST));
    let ranges = Ranges::try_from(vec![(seq(9), seq(11)), (seq(20), seq(20))]).unwrap();
    let (version_min, version_max) = (PROTOCOL_VERSION, PROTOCOL_VERSION);
    let (version, refusing) = ("0.1.0".into(), Some(code));
    let presence = Presence { slots_free: 3, slots: 4, draining: true, version, refusing };
    let status = Status {
        from: agent.clone(),
        to: EndpointId::Server,
        nonce: Nonce::new(99),
        version_min,
        version_max,
        sending: Sending {
            incarnation,
            lineage: Some(Lineage::new(incarnation)),
            journal: Some(incarnation),
            epoch,
            lowest_kept,
            next: seq(5),
            head,
            forget_through,
            toward: Some(incarnation),
            acknowledged: Some(seq(3)),
            acknowledged_beyond: Ranges::default(),
            settled_through: Some(seq(2)),
            doubtful_through: Some(seq(4)),
            losses: 1,
        },
        receiving: Some(Receiving {
            incarnation,
            epoch,
            nonce: Some(Nonce::new(3)),
            superseded: vec![incarnation],
            through: Some(seq(7)),
            head,
            unanchored: true,
            ranges,
            settled_through: None,
            sworn: None,
        }),
        window: 4_096,
        probe: Some(messages::ProbeId::new(12)),
        answers: Some(messages::ProbeId::new(13)),
        frozen: true,
        presence: Some(presence),
    };
    let key =
        LogKey { run: RunId::from_u128(1), step: "fetch".parse().unwrap(), attempt: 1, stream: LogStream::Stdout };
    let chunk = LogChunk { from: agent, key, offset: 70_000, bytes: b"hello\n".to_vec(), crc32c: 0x1234, end: None };
    let log = LogDatagram::Chunk(chunk);
    vec![
        message(kind, &body),
        message(Kind::Unknown(999), b"of a newer version"),
        Frame::status(&status).unwrap().bytes().to_vec(),
        Frame::log(&log).unwrap().bytes().to_vec(),
    ]
}

#[test]
fn a_valid_envelope_of_each_type_is_one() {
    for bytes in valid() {
        assert!(body::any_bytes(&bytes));
    }
}

proptest! {
    #[test]
    fn random_bytes_are_read_as_they_are_written_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        body::any_bytes(&bytes);
        // With a beginning that lets the rest be looked at.
        for envelope_type in 1..=3 {
            body::any_bytes(&[&[1, envelope_type][..], &bytes].concat());
        }
    }

    #[test]
    fn valid_envelopes_made_wrong_are_read_as_they_are_written_or_refused(
        which in any::<prop::sample::Index>(),
        edits in prop::collection::vec((any::<usize>(), any::<u8>(), any::<u8>()), 1..6),
    ) {
        let valid = valid();
        body::any_bytes(&mutate::mutate(&valid[which.index(valid.len())], &edits));
    }
}
