//! What the bytes are, and that nothing from outside can upset the decoder.
#![allow(clippy::unwrap_used)]

use messages::limits::{BODY_BYTES_MAX, ENVELOPE_BYTES_MAX, RANGES_MAX};
use messages::{
    Body, ChainHash, DecodeError, Digest, Earlier, Effect, EncodeError, EndpointId, Envelope, Epoch, Frame, Header,
    Incarnation, JobId, Keep, Kind, LogChunk, LogDatagram, LogKey, LogStream, Message, MessageId, Nonce,
    PROTOCOL_VERSION, Presence, ProbeId, Program, Ranges, Receiving, RunId, RunStart, Sending, Seq, Status,
    StepChanged, StepEnd, StepEvent, StepSpec, decode,
};
use proptest::prelude::*;

fn agent() -> EndpointId {
    "web-01".parse().unwrap()
}

fn run_start() -> RunStart {
    RunStart {
        run: RunId::from_u128(0x0198_f3a1_0000_7000_8000_0000_0000_0001),
        job: JobId::from_u128(0x0198_f3a1_0000_7000_8000_0000_0000_0002),
        name: "deploy".into(),
        steps: vec![StepSpec {
            env: [("A".to_owned(), "1".to_owned())].into(),
            effect: Effect::Guarded(Program::Exec(vec!["test".into(), "-e".into(), "x".into()])),
            timeout_ms: Some(60_000),
            ..StepSpec::new("fetch".parse().unwrap(), Program::Shell("true".into()))
        }],
        timeout_ms: None,
        keep: Keep::default(),
        earlier: None,
    }
}

fn run_retry() -> RunStart {
    let mut run = run_start();
    run.steps.push(StepSpec::new("switch".parse().unwrap(), Program::Shell("true".into())));
    let fetch = || "fetch".parse().unwrap();
    run.earlier = Some(Earlier {
        runs: vec![RunId::from_u128(7)],
        done: [fetch()].into(),
        outputs: [(fetch(), [("version".to_owned(), "7".to_owned())].into())].into(),
        unknown: [("switch".parse().unwrap(), "it was given up".to_owned())].into(),
        folder: true,
    });
    run
}

fn step_changed() -> StepChanged {
    StepChanged {
        run: RunId::from_u128(1),
        step: "fetch".parse().unwrap(),
        attempt: 1,
        event: StepEvent::Ended(StepEnd::Exited(0)),
        at_ms: 5,
        usage: None,
        outputs: Default::default(),
        note: None,
        unknown: false,
        silent: false,
    }
}

fn message(body: &[u8], kind: Kind) -> Message {
    let header = Header::new(EndpointId::Server, agent(), Incarnation::from_u128(0xabcd), Epoch::new(3))
        .numbered(Seq::new(300).unwrap(), ChainHash::from_bytes([7; 32]))
        .carrying(MessageId::from_u128(0x42), kind, Some(MessageId::from_u128(0x41)), body);
    Message::new(header, body).unwrap()
}

fn status() -> Status {
    Status {
        from: agent(),
        to: EndpointId::Server,
        nonce: Nonce::new(99),
        version_min: PROTOCOL_VERSION,
        version_max: PROTOCOL_VERSION,
        sending: Sending {
            incarnation: Incarnation::from_u128(1),
            epoch: Epoch::new(2),
            lowest_kept: Seq::FIRST,
            next: Seq::new(5).unwrap(),
            head: ChainHash::from_bytes([1; 32]),
            forget_through: None,
            lineage: None,
            journal: None,
            toward: None,
            acknowledged: None,
            acknowledged_beyond: Ranges::default(),
            settled_through: None,
            doubtful_through: None,
            losses: 0,
        },
        receiving: Some(Receiving {
            incarnation: Incarnation::from_u128(2),
            epoch: Epoch::new(4),
            through: Seq::new(7),
            head: ChainHash::from_bytes([2; 32]),
            nonce: None,
            superseded: Vec::new(),
            unanchored: false,
            ranges: Ranges::try_from(vec![(Seq::new(9).unwrap(), Seq::new(11).unwrap())]).unwrap(),
            settled_through: Seq::new(6),
            sworn: None,
        }),
        window: 4096,
        probe: Some(ProbeId::new(12)),
        answers: None,
        frozen: false,
        presence: Some(Presence { slots_free: 3, slots: 4, draining: false, version: "0.1.0".into(), refusing: None }),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The bytes of a release are a promise to the peers and journals of later ones: from the first release on a change here needs a new
/// protocol version.
#[test]
fn golden_bytes_do_not_change() {
    let (kind, body) = Body::RunStart(run_start()).encode().unwrap();
    let (_, retry) = Body::RunRetry(run_retry()).encode().unwrap();
    let (_, changed) = Body::StepChanged(step_changed()).encode().unwrap();
    let actual = format!(
        "run.start body\n{}\nmessage\n{}\nmessage hash\n{}\nstatus\n{}\nlog\n{}\nrun.retry body\n{}\nstep.changed body\n{}\n",
        hex(&body),
        hex(message(&body, kind).frame.bytes()),
        message(&body, kind).hash,
        hex(Frame::status(&status()).unwrap().bytes()),
        hex(Frame::log(&log()).unwrap().bytes()),
        hex(&retry),
        hex(&changed),
    );
    assert_eq!(actual, include_str!("golden.txt"), "actual:\n{actual}");
}

/// Journals from before names were short go on, and what was on its way then is understood.
#[test]
fn bytes_with_long_names_are_understood() {
    let text = include_str!("golden-long-names.txt");
    let bytes = |name: &str| -> Vec<u8> {
        let hex = text.lines().skip_while(|line| *line != name).nth(1).unwrap();
        hex.as_bytes().chunks(2).map(|byte| u8::from_str_radix(str::from_utf8(byte).unwrap(), 16).unwrap()).collect()
    };
    assert_eq!(decode(bytes("status")).unwrap(), Envelope::Status(status()));
    let (kind, body) = Body::RunStart(run_start()).encode().unwrap();
    let Envelope::Message(earlier) = decode(bytes("message")).unwrap() else { panic!("it is a message") };
    assert_eq!(earlier.header, message(&body, kind).header);
    assert_ne!(earlier.hash, message(&body, kind).hash, "the hash is of the bytes as they are");
}

/// Whom a status speaks toward is left out only where it says so another time.
#[test]
fn a_status_means_the_same_after_its_journey() {
    let received = status().receiving.map(|receiving| receiving.incarnation);
    for (toward, receives) in
        [(None, true), (received, true), (Some(Incarnation::from_u128(9)), true), (None, false), (received, false)]
    {
        let mut sent = Status { frozen: toward.is_none(), window: 7, presence: None, ..status() };
        sent.sending.toward = toward;
        sent.version_max = messages::ProtocolVersion::new(3);
        sent.receiving = sent.receiving.filter(|_| receives);
        let frame = Frame::status(&sent).unwrap();
        assert_eq!(decode(frame.bytes().to_vec()).unwrap(), Envelope::Status(sent), "{toward:?} {receives}");
    }
    // Written by hand: it sends toward whom it receives from, and receives from nobody.
    let map = |value: &[(&str, &[u8])]| {
        let mut bytes = vec![0x80 | value.len() as u8];
        value.iter().for_each(|(name, value)| {
            bytes.push(0xa0 | name.len() as u8);
            bytes.extend_from_slice(name.as_bytes());
            bytes.extend_from_slice(value);
        });
        bytes
    };
    let text = |text: &str| [&[0xa0 | text.len() as u8], text.as_bytes()].concat();
    let name = [&[0xc4, 16][..], &[7; 16]].concat();
    let head = [&[0xc4, 32][..], &[7; 32]].concat();
    let sending = map(&[("i", &name), ("e", &[1]), ("k", &[1]), ("n", &[1]), ("h", &head)]);
    let (agent, server) = (text("web-01"), text("server"));
    let fields: [(&str, &[u8]); 5] = [("f", &agent), ("t", &server), ("n", &[9]), ("s", &sending), ("b", &[0xc3])];
    let read = |fields: &[(&str, &[u8])]| decode([&[1, 2][..], &map(fields)].concat());
    let Ok(Envelope::Status(alone)) = read(&fields) else { panic!("{:?}", read(&fields)) };
    assert_eq!((alone.sending.toward, alone.receiving, alone.window), (None, None, 4_096), "it means nothing then");
    assert!(read(&[&fields[..], &[("from", &agent[..])]].concat()).is_err(), "one name and its alias");
    let mut usual = status();
    usual.sending.toward = received;
    let (usual, alone) = (Frame::status(&usual).unwrap(), Frame::status(&status()).unwrap());
    assert!(usual.bytes().len() < alone.bytes().len() + 4, "the journal's name is not said twice");
}

/// The hash of a stream without messages is 32 zeros, which travel as nothing.
#[test]
fn the_head_of_an_empty_stream_is_not_said() {
    let with = |sending, receiving| {
        let mut status = status();
        status.sending.head = sending;
        status.receiving = status.receiving.map(|before| Receiving { head: receiving, ..before });
        let frame = Frame::status(&status).unwrap();
        assert_eq!(decode(frame.bytes().to_vec()).unwrap(), Envelope::Status(status));
        frame.bytes().len()
    };
    let (start, other) = (ChainHash::START, ChainHash::from_bytes([7; 32]));
    let said = with(other, other);
    assert_eq!([with(start, other), with(other, start), with(start, start)], [said - 36, said - 36, said - 72]);
}

fn log() -> LogDatagram {
    LogDatagram::Chunk(LogChunk {
        from: agent(),
        key: LogKey { run: RunId::from_u128(1), step: "fetch".parse().unwrap(), attempt: 1, stream: LogStream::Stdout },
        offset: 70_000,
        bytes: b"hello\n".to_vec(),
        crc32c: 0x1234_5678,
        end: None,
    })
}

#[test]
fn envelopes_come_back_as_they_were() {
    let (kind, body) = Body::RunStart(run_start()).encode().unwrap();
    let sent = message(&body, kind);
    let Envelope::Message(received) = decode(sent.frame.bytes().to_vec()).unwrap() else { panic!("not a message") };
    assert_eq!(received, sent);
    assert_eq!(Body::decode(received.header.kind, received.body()).unwrap(), Body::RunStart(run_start()));
    assert_eq!(ChainHash::of(received.header_bytes()), received.hash);

    let frame = Frame::status(&status()).unwrap();
    assert_eq!(decode(frame.bytes().to_vec()).unwrap(), Envelope::Status(status()));
    let frame = Frame::log(&log()).unwrap();
    assert_eq!(decode(frame.bytes().to_vec()).unwrap(), Envelope::Log(log()));
}

#[test]
fn a_status_with_every_range_stays_under_three_kibibytes() {
    let far = u64::MAX - 1_000;
    let ranges: Vec<_> = (0..RANGES_MAX as u64).map(|n| (far + 3 * n, far + 3 * n + 1)).collect();
    let ranges = ranges.into_iter().map(|(a, b)| (Seq::new(a).unwrap(), Seq::new(b).unwrap())).collect::<Vec<_>>();
    let mut full = status();
    let ranges = Ranges::try_from(ranges).unwrap();
    full.receiving.as_mut().unwrap().ranges = ranges.clone();
    full.sending.acknowledged_beyond = ranges;
    assert!(Frame::status(&full).unwrap().bytes().len() < 3_072);
}

#[test]
fn a_body_of_the_largest_size_fits_and_one_byte_more_does_not() {
    let largest = message(&vec![0; BODY_BYTES_MAX], Kind::Unknown(999));
    assert!(largest.frame.bytes().len() <= ENVELOPE_BYTES_MAX);
    assert!(decode(largest.frame.bytes().to_vec()).is_ok());
    let header = largest.header.clone();
    assert!(matches!(Message::new(header, &vec![0; BODY_BYTES_MAX + 1]), Err(EncodeError::BodyTooLarge { .. })));
}

#[test]
fn each_way_of_being_wrong_has_its_own_answer() {
    let good = message(b"body", Kind::Unknown(5)).frame.bytes().to_vec();
    let mangled = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = good.clone();
        change(&mut bytes);
        decode(bytes)
    };
    assert!(matches!(decode(vec![]), Err(DecodeError::Truncated { .. })));
    assert!(matches!(decode(vec![1]), Err(DecodeError::Truncated { .. })));
    assert!(matches!(decode(vec![0; ENVELOPE_BYTES_MAX + 1]), Err(DecodeError::TooLarge { .. })));
    assert!(matches!(mangled(&|b| b[0] = 9), Err(DecodeError::Version { .. })));
    assert!(matches!(mangled(&|b| b[1] = 77), Err(DecodeError::Type { got: 77 })));
    assert!(matches!(mangled(&|b| b[2] = 255), Err(DecodeError::TooLarge { .. })));
    assert!(matches!(mangled(&|b| b.truncate(40)), Err(DecodeError::Truncated { .. })));
    assert!(matches!(mangled(&|b| b.extend(b"x")), Err(DecodeError::Digest)));
    assert!(matches!(mangled(&|b| b[5] += 1), Err(DecodeError::Trailing { .. } | DecodeError::MessagePack(_))));

    let mut trailing = Frame::status(&status()).unwrap().bytes().to_vec();
    trailing.push(0);
    assert!(matches!(decode(trailing), Err(DecodeError::Trailing { bytes: 1 })));
}

#[test]
fn deep_nesting_ends_in_an_error_and_not_in_the_stack() {
    let mut bomb = vec![1, 2];
    bomb.extend(std::iter::repeat_n(0x91, 200_000));
    assert!(matches!(decode(bomb), Err(DecodeError::MessagePack(_))));
    // The same inside a field that no reader knows.
    let mut hidden = vec![1, 2, 0x81, 0xa1, b'z'];
    hidden.extend(std::iter::repeat_n(0x91, 200_000));
    assert!(matches!(decode(hidden), Err(DecodeError::MessagePack(_))));
}

#[test]
fn a_newer_peers_fields_are_skipped() {
    #[derive(serde::Serialize)]
    struct Newer {
        message: MessageId,
        colour: &'static str,
        reason: &'static str,
    }
    let bytes = messages::to_msgpack(&Newer { message: MessageId::from_u128(1), colour: "red", reason: "r" }).unwrap();
    assert!(matches!(Body::decode(Kind::Refusal, &bytes), Ok(Body::Refusal(refusal)) if refusal.reason == "r"));
}

#[test]
fn an_unknown_kind_is_refused_by_its_code_and_a_bad_run_by_its_limit() {
    let error = Body::decode(Kind::from(4_711), b"").unwrap_err();
    assert_eq!(error.to_string(), "message kind 4711 is not known to this version");
    let mut run = run_start();
    run.steps.push(run.steps[0].clone());
    let (kind, bytes) = Body::RunStart(run).encode().unwrap();
    assert!(Body::decode(kind, &bytes).unwrap_err().to_string().contains("only once"));
}

/// Whoever does not know that a run goes on from another one must not take it for a new one.
#[test]
fn a_run_that_goes_on_from_another_one_is_a_kind_of_its_own() {
    let (kind, bytes) = Body::RunRetry(run_retry()).encode().unwrap();
    assert_eq!((u16::from(kind), Body::decode(kind, &bytes).unwrap()), (5, Body::RunRetry(run_retry())));
    let error = Body::decode(Kind::RunStart, &bytes).unwrap_err();
    assert!(error.to_string().contains("is a run.retry"), "{error}");
    let (_, plain) = Body::RunStart(run_start()).encode().unwrap();
    assert!(Body::decode(Kind::RunRetry, &plain).unwrap_err().to_string().contains("what it goes on from"));
    let bad: [fn(&mut Earlier); 5] = [
        |earlier| earlier.runs.clear(),
        |earlier| earlier.runs = vec![RunId::from_u128(1); 17],
        |earlier| earlier.done.extend(["none".parse().unwrap()]),
        |earlier| earlier.done.clear(),
        |earlier| earlier.outputs.values_mut().next().unwrap().extend([("a-b".into(), String::new())]),
    ];
    for (at, change) in bad.into_iter().enumerate() {
        let mut run = run_retry();
        change(run.earlier.as_mut().unwrap());
        let (kind, bytes) = Body::RunRetry(run).encode().unwrap();
        assert!(Body::decode(kind, &bytes).is_err(), "change {at} was taken");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_an_envelope_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        let _ = decode(bytes);
    }

    #[test]
    fn one_changed_byte_is_never_taken_for_the_original(at in any::<prop::sample::Index>(), flip in 1_u8..) {
        let (kind, body) = Body::RunStart(run_start()).encode().unwrap();
        let sent = message(&body, kind);
        let mut bytes = sent.frame.bytes().to_vec();
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        if let Ok(Envelope::Message(received)) = decode(bytes) {
            // Only the header can differ without being noticed here; then its hash differs, and the chain notices.
            prop_assert_ne!(received.hash, sent.hash);
            prop_assert_eq!(Digest::of(received.body()), received.header.digest);
        }
    }
}
