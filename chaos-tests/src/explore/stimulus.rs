//! What a session may be told, made for one session in one world: every input, every kind of message and status that makes a
//! difference, and what its application and its operator may ask. It judges nothing.

use journal::{Change, WriteAhead};
use link::session::{
    Applied, DecodeErrorText, DeliveryTag, Disposition, Effects, Input, Millis, Now, Outbound, Published, Session,
    Transaction,
};
use messages::{
    ChainHash, Envelope, Epoch, Header, Incarnation, Kind, LogDatagram, LogKey, LogMark, LogStream, Message, MessageId,
    Nonce, Presence, ProbeId, Receiving, RunId, Seq, Status, decode,
};

use super::check::Ends;
use super::end::End;
use super::scope::{Side, id};

const TAG: DeliveryTag = DeliveryTag { connection: 1, tag: 1 };
/// Late enough for every timer.
const LATE: Now = Now { at: Millis(1_000), wall_ms: 0 };
const NOW: Now = Now { at: Millis(0), wall_ms: 0 };

/// What comes of a stimulus: changes and effects, or why it is refused.
pub(super) type Response = Result<(Vec<Change>, Effects), String>;

/// One thing that a session is told or asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stimulus {
    Connected,
    Disconnected,
    NextMessage,
    KnownMessage,
    FarMessage,
    WrongMessage,
    UnannouncedMessage,
    StrangersMessage,
    Status,
    Question,
    Answer,
    OldStatus,
    SecondProcess,
    AnotherJournal,
    ShowsBehind,
    Log,
    Garbled,
    Loaded,
    LoadedNothing,
    Trouble,
    NotWhole,
    Present,
    TimedOut,
    Send,
    Apply,
    SendAnswer,
    Resolve,
}

impl Stimulus {
    pub(super) const ALL: [Self; 27] = [
        Self::Connected,
        Self::Disconnected,
        Self::NextMessage,
        Self::KnownMessage,
        Self::FarMessage,
        Self::WrongMessage,
        Self::UnannouncedMessage,
        Self::StrangersMessage,
        Self::Status,
        Self::Question,
        Self::Answer,
        Self::OldStatus,
        Self::SecondProcess,
        Self::AnotherJournal,
        Self::ShowsBehind,
        Self::Log,
        Self::Garbled,
        Self::Loaded,
        Self::LoadedNothing,
        Self::Trouble,
        Self::NotWhole,
        Self::Present,
        Self::TimedOut,
        Self::Send,
        Self::Apply,
        Self::SendAnswer,
        Self::Resolve,
    ];

    /// The input or call, and what it is about.
    pub(super) const fn title(self) -> &'static str {
        match self {
            Self::Connected => "`Connected`",
            Self::Disconnected => "`Disconnected`",
            Self::NextMessage => "`Delivered`: the next message",
            Self::KnownMessage => "`Delivered`: a message that is here already",
            Self::FarMessage => "`Delivered`: a message beyond the window",
            Self::WrongMessage => {
                "`Delivered`: the next place, with another message before it than the one that is here"
            }
            Self::UnannouncedMessage => "`Delivered`: a message of a journal that was not announced",
            Self::StrangersMessage => "`Delivered`: a message of somebody unknown",
            Self::Status => "`Delivered`: what the peer would say now",
            Self::Question => "`Delivered`: the same, asking for an answer",
            Self::Answer => "`Delivered`: the same, answering the oldest question",
            Self::OldStatus => "`Delivered`: a status of an earlier opening of the peer's journal",
            Self::SecondProcess => "`Delivered`: a status of a second process in the same opening",
            Self::AnotherJournal => "`Delivered`: a status of another journal, which answers nothing",
            Self::ShowsBehind => "`Delivered`: a status that has more of this journal's messages than it sent",
            Self::Log => "`Delivered`: a piece of a log",
            Self::Garbled => "`Garbled`",
            Self::Loaded => "`Loaded`: everything that was asked for",
            Self::LoadedNothing => "`Loaded`: nothing",
            Self::Trouble => "`Trouble`",
            Self::NotWhole => "`NotWhole`: the next message for the application",
            Self::Present => "`Present`: something new",
            Self::TimedOut => "`TimedOut`: every timer that is set",
            Self::Send => "`transact`: a message to send",
            Self::Apply => "`transact`: the next message applied",
            Self::SendAnswer => "`transact`: the answer to held work",
            Self::Resolve => "`resolve`",
        }
    }

    /// What that session makes of it; nothing where it cannot come about.
    pub(super) fn given(self, world: Ends<'_>, side: Side, session: &mut Session) -> Option<Response> {
        let peer = id(side.other());
        match self {
            Self::Send => {
                Some(transact(session, Transaction { send: vec![outbound(side, None)], ..Transaction::default() }))
            }
            Self::SendAnswer => {
                let held = world.end(side).held.first().copied()?;
                let send = vec![outbound(side, Some(held))];
                Some(transact(session, Transaction { send, ..Transaction::default() }))
            }
            Self::Apply => {
                let (seq, _) = session.unapplied(&peer)?;
                let apply = vec![Applied { peer, seq, disposition: Disposition::Settle }];
                Some(transact(session, Transaction { apply, ..Transaction::default() }))
            }
            Self::Resolve => Some(done(session.resolve(NOW, &peer, Nonce::new(7)).map_err(|error| error.to_string()))),
            Self::TimedOut => Some(done(Ok(session.handle(LATE, Input::TimedOut)))),
            _ => self.input(world, side, session).map(|input| done(Ok(session.handle(NOW, input)))),
        }
    }

    fn input(self, world: Ends<'_>, side: Side, session: &Session) -> Option<Input> {
        let (end, peer) = (world.end(side), id(side.other()));
        let status = |status: Status| Some(Input::Delivered(TAG, Box::new(Envelope::Status(status))));
        let now = || says(world.end(side.other()), side);
        match self {
            Self::Connected => Some(Input::Connected),
            Self::Disconnected => Some(Input::Disconnected),
            Self::Log => {
                let (run, step) = (RunId::from_u128(1), "a".parse().ok()?);
                let key = LogKey { run, step, attempt: 1, stream: LogStream::Stdout };
                let mark = LogDatagram::Mark(LogMark { key, have: 0, complete: false });
                Some(Input::Delivered(TAG, Box::new(Envelope::Log(mark))))
            }
            Self::Garbled => Some(Input::Garbled(TAG, DecodeErrorText("no envelope".to_owned()))),
            Self::Trouble => Some(Input::Trouble(peer)),
            Self::NotWhole => session.unapplied(&peer).map(|(seq, _)| Input::NotWhole(peer, seq)),
            Self::Present => Some(Input::Present(Presence::default())),
            Self::LoadedNothing => end.loads.front().map(|_| Input::Loaded(peer, Vec::new())),
            Self::Loaded => {
                let (from, to) = end.loads.front()?;
                let places = (from.value()..=to.value()).filter_map(Seq::new);
                let read = places.filter_map(|seq| end.disk.message(journal::Direction::Out, seq));
                Some(Input::Loaded(peer, read.collect()))
            }
            Self::Status => status(now()?),
            Self::Question => status(Status { probe: Some(ProbeId::new(70)), ..now()? }),
            Self::Answer => status(Status { answers: Some(session.probes(&peer).next()?), ..now()? }),
            Self::OldStatus => {
                let mut said = now()?;
                said.sending.epoch = Epoch::new(0);
                status(said)
            }
            Self::SecondProcess => status(Status { nonce: Nonce::new(77), ..now()? }),
            Self::AnotherJournal => {
                let mut said = now()?;
                (said.sending.incarnation, said.sending.lineage) = (Incarnation::from_u128(99), None);
                status(said)
            }
            Self::ShowsBehind => {
                let mut said = now()?;
                said.receiving = Some(Receiving {
                    incarnation: session.name_towards(&peer),
                    epoch: session.identity().epoch,
                    nonce: None,
                    superseded: Vec::new(),
                    through: Some(end.disk.streams(&peer).map_or(Seq::FIRST, |streams| streams.outgoing.next)),
                    head: ChainHash::START,
                    unanchored: true,
                    ranges: messages::Ranges::default(),
                    settled_through: None,
                    sworn: None,
                });
                status(said)
            }
            Self::NextMessage
            | Self::KnownMessage
            | Self::FarMessage
            | Self::WrongMessage
            | Self::UnannouncedMessage
            | Self::StrangersMessage => {
                let message = self.message(world, side)?;
                Some(Input::Delivered(TAG, Box::new(Envelope::Message(message))))
            }
            Self::TimedOut | Self::Send | Self::Apply | Self::SendAnswer | Self::Resolve => None,
        }
    }

    /// A message as the peer's journal could have written it, for what this side knows of that journal.
    fn message(self, world: Ends<'_>, side: Side) -> Option<Message> {
        let (peer, row) = (id(side.other()), world.end(side).disk.incoming(&id(side.other())).cloned());
        let through = row.as_ref().and_then(|row| row.mark_there(row.through));
        let next = Seq::after(through);
        let known = row.as_ref().map_or(Incarnation::from_u128(99), |row| row.incarnation);
        let head = row.as_ref().map_or(ChainHash::START, |row| row.head);
        let (from, incarnation, seq, previous) = match self {
            Self::KnownMessage => (peer, known, through?, head),
            Self::FarMessage => (peer, known, Seq::new(next.value() + 1_000)?, head),
            Self::WrongMessage => (peer, known, next, ChainHash::from_bytes([1; 32])),
            Self::UnannouncedMessage => (peer, Incarnation::from_u128(98), next, head),
            Self::StrangersMessage => ("stranger".parse().ok()?, known, next, head),
            _ => (peer, known, next, head),
        };
        let epoch = row.map_or(Epoch::FIRST, |row| row.epoch);
        let header = Header::new(from, id(side), incarnation, epoch).numbered(seq, previous);
        Message::new(header.carrying(MessageId::from_u128(9), Kind::Unknown(9), None, b"x"), b"x").ok()
    }
}

/// What an endpoint would say to the other one now, without a question and without an answer.
fn says(end: &End, to: Side) -> Option<Status> {
    let mut session = end.session.clone();
    let (_, effects) = session.handle(NOW, Input::Connected).committed_elsewhere();
    let said =
        effects.publish.into_iter().rfind(|publish| publish.what == Published::Status && publish.to == id(to))?;
    match decode(said.frame.bytes().to_vec()) {
        Ok(Envelope::Status(status)) => Some(Status { probe: None, answers: None, ..status }),
        _ => None,
    }
}

fn outbound(side: Side, answers: Option<Seq>) -> Outbound {
    let (to, id) = (id(side.other()), MessageId::from_u128(8));
    Outbound { to, id, kind: Kind::Unknown(9), body: b"x".to_vec(), cause: None, answers }
}

fn transact(session: &mut Session, transaction: Transaction) -> Response {
    done(session.transact(NOW, transaction).map_err(|error| error.to_string()))
}

fn done(write: Result<WriteAhead<Effects>, String>) -> Response {
    write.map(WriteAhead::committed_elsewhere)
}
