//! Planted faults: mistakes that somebody could make, put around the unchanged session and journal, to show that the checkers bite.
//! None of this exists in the product; each stands where the mistake would have the same consequences.

use journal::{Change, Direction, Row, State, WriteAhead};
use link::session::{Effects, Publish, Published};
use messages::{ChainHash, EndpointId, Envelope, Frame, Message, Seq, decode};

use super::broker::Item;
use super::node::{After, Bound};
use super::world::{Step, World};

/// A mistake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Planted {
    /// The client is answered before the sync.
    AcceptedBeforeSync,
    /// Everything that a commit allows is done before it.
    EffectBeforeCommit,
    /// The end of a run is recorded in one commit and reported in another.
    OutcomeApart,
    /// A message is marked as applied in one commit, and what it leads to is recorded in another.
    AppliedApart,
    /// What lies beyond a gap is reported as if the gap were closed.
    GapAccepted,
    /// After a restart nothing is known of what was received.
    DedupeForgotten,
    /// After a restart the places of what was not received are given again.
    PlaceReused,
    /// A body is dropped when the broker confirms it.
    TruncatedEarly,
    /// A receiver drops the body of work that it has only begun.
    BodyDroppedEarly,
    /// Whatever is not known to be received is sent again with each connection.
    BlindResend,
    /// What is older by the publisher's wall clock than what was seen is taken for out of order.
    ClockForOrder,
    /// A message that is sent again is made anew.
    Reencoded,
    /// Answers to the probes of an earlier process are believed.
    OldAnswersBelieved,
    /// Any status is taken for an answer to the last probe.
    AnyStatusAnswers,
    /// What was received is reported before it is on disk.
    MarkBeforeCommit,
    /// A delivery is acknowledged to the broker before it is on disk.
    AckedBeforeCommit,
    /// A message that the application refuses keeps what follows it waiting.
    RefusedBlocks,
    /// A step that may be done once is done again after a crash.
    OnceAgain,
    /// The journal does not sync.
    SyncForgotten,
    /// The window does not bound what is under way.
    WindowIgnored,
}

impl Planted {
    /// Every one.
    pub const ALL: [Self; 20] = [
        Self::AcceptedBeforeSync,
        Self::EffectBeforeCommit,
        Self::OutcomeApart,
        Self::AppliedApart,
        Self::GapAccepted,
        Self::DedupeForgotten,
        Self::PlaceReused,
        Self::TruncatedEarly,
        Self::BodyDroppedEarly,
        Self::BlindResend,
        Self::ClockForOrder,
        Self::Reencoded,
        Self::OldAnswersBelieved,
        Self::AnyStatusAnswers,
        Self::MarkBeforeCommit,
        Self::AckedBeforeCommit,
        Self::RefusedBlocks,
        Self::OnceAgain,
        Self::SyncForgotten,
        Self::WindowIgnored,
    ];

    /// Its name, as it is given on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::AcceptedBeforeSync => "accepted-before-sync",
            Self::EffectBeforeCommit => "effect-before-commit",
            Self::OutcomeApart => "outcome-in-another-commit",
            Self::AppliedApart => "applied-in-another-commit",
            Self::GapAccepted => "gap-accepted",
            Self::DedupeForgotten => "dedupe-forgotten-after-restart",
            Self::PlaceReused => "seq-reused-after-restart",
            Self::TruncatedEarly => "truncated-before-the-peers-mark",
            Self::BodyDroppedEarly => "body-dropped-before-settled",
            Self::BlindResend => "blind-resend-on-reconnect",
            Self::ClockForOrder => "clock-used-for-order",
            Self::Reencoded => "bytes-re-encoded-on-resend",
            Self::OldAnswersBelieved => "answer-to-an-older-process-believed",
            Self::AnyStatusAnswers => "any-status-taken-for-an-answer",
            Self::MarkBeforeCommit => "mark-reported-before-commit",
            Self::AckedBeforeCommit => "delivery-acked-before-commit",
            Self::RefusedBlocks => "refused-message-blocks-the-stream",
            Self::OnceAgain => "once-done-again-after-a-crash",
            Self::SyncForgotten => "sync-forgotten",
            Self::WindowIgnored => "window-ignored",
        }
    }

    /// What a process believes of its journal when it begins.
    pub(crate) fn tamper(planted: Option<Self>, state: &mut State) {
        for streams in state.peers.values_mut() {
            match planted {
                Some(Self::DedupeForgotten) => {
                    if let Some(incoming) = &mut streams.incoming {
                        *incoming = journal::Incoming::new(incoming.incarnation, incoming.epoch);
                        streams.beyond.clear();
                    }
                }
                Some(Self::PlaceReused) if streams.outgoing.ranges.is_empty() => {
                    streams.outgoing.next = Seq::after(streams.outgoing.received);
                    if streams.outgoing.received.is_none() {
                        streams.outgoing.head = ChainHash::START;
                    }
                }
                _ => {}
            }
        }
    }

    /// What becomes of a commit: its changes, what is done before it, and what after.
    pub(crate) fn distort(self, mut changes: Vec<Change>, bound: Bound) -> (Vec<Change>, Option<Bound>, Bound) {
        let (mut effects, after) = bound;
        match self {
            Self::AcceptedBeforeSync if matches!(after, After::Accepted(_)) => {
                (changes, Some((Effects::default(), after)), (effects, After::Nothing))
            }
            Self::EffectBeforeCommit => (changes, Some((effects, After::Nothing)), (Effects::default(), after)),
            Self::MarkBeforeCommit => {
                let (publish, rest) =
                    effects.publish.into_iter().partition(|publish| publish.what == Published::Status);
                effects.publish = rest;
                let early = Effects { publish, ..Effects::default() };
                (changes, Some((early, After::Nothing)), (effects, after))
            }
            Self::AckedBeforeCommit => {
                let acknowledge = std::mem::take(&mut effects.acknowledge);
                let early = Effects { acknowledge, ..Effects::default() };
                (changes, Some((early, After::Nothing)), (effects, after))
            }
            Self::BodyDroppedEarly => {
                let begun = changes.iter().filter_map(|change| match change {
                    Change::Put(Row::Work(peer, seq, _)) => Some((peer.clone(), *seq)),
                    _ => None,
                });
                let drops: Vec<Change> =
                    begun.map(|(peer, seq)| Change::DropBodies(Direction::In, peer, seq, seq)).collect();
                changes.extend(drops);
                (changes, None, (effects, after))
            }
            _ => (changes, None, (effects, after)),
        }
    }
}

impl World {
    /// Whether a mistaken receiver would take that for older than what it has seen.
    pub(crate) fn clock_says_old(&mut self, n: usize, item: &Item) -> bool {
        let latest = self.latest_wall.entry(n).or_default();
        let old = item.wall_ms < *latest;
        *latest = item.wall_ms.max(*latest);
        old
    }

    /// What a mistaken receiver makes of a delivery.
    pub(crate) fn distort_delivery(&mut self, n: usize, envelope: Envelope) -> Envelope {
        match (self.planted, envelope) {
            (Some(Planted::AnyStatusAnswers), Envelope::Status(mut status)) => {
                let probe = self.last_probe.get(&(n, status.from.clone())).copied();
                status.answers = status.answers.or(probe);
                Envelope::Status(status)
            }
            (_, envelope) => envelope,
        }
    }

    /// What a mistaken sender makes of a publish.
    pub(crate) fn distort_publish(&mut self, n: usize, publish: Publish) -> Publish {
        let Some(planted) = self.planted else { return publish };
        let Ok(envelope) = decode(publish.frame.bytes().to_vec()) else { return publish };
        let frame = match (planted, envelope) {
            (Planted::AnyStatusAnswers, Envelope::Status(status)) => {
                self.last_probe.extend(status.probe.map(|probe| ((n, status.to.clone()), probe)));
                None
            }
            (Planted::GapAccepted, Envelope::Status(mut status)) => {
                let beyond = |peer: &EndpointId, seq: Seq| {
                    let streams = self.nodes[n].process.as_ref()?.session.state().peers.get(peer)?;
                    streams.beyond.get(&seq).map(|link| link.hash)
                };
                let last = status.receiving.as_ref().and_then(|row| row.ranges.last());
                if let (Some(receiving), Some(last)) = (&mut status.receiving, last)
                    && let Some(head) = beyond(&status.to, last)
                {
                    (receiving.through, receiving.head) = (Some(last), head);
                    receiving.ranges.drop_through(last);
                }
                Frame::status(&status).ok()
            }
            (Planted::Reencoded, Envelope::Message(mut message)) if matches!(publish.what, Published::Resent(_)) => {
                message.header.epoch = self.process(n).session.identity().epoch;
                let body = message.body().to_vec();
                Message::new(message.header, &body).ok().map(|message| message.frame)
            }
            _ => None,
        };
        match frame {
            Some(frame) => Publish { frame, ..publish },
            None => publish,
        }
    }

    /// What a mistaken sender does with a new connection.
    pub(crate) fn resend_blindly(&mut self, n: usize) -> Step {
        if self.planted != Some(Planted::BlindResend) {
            return Ok(());
        }
        let process = self.process(n);
        for (peer, streams) in &process.writer.state().peers {
            let (from, last) = (Seq::after(streams.outgoing.received), streams.outgoing.next.previous());
            let Some(last) = last.filter(|last| from <= *last) else { continue };
            let read = process.journal.messages(Direction::Out, peer, (from, last), usize::MAX).unwrap_or_default();
            process.backlog.extend(read.into_iter().map(|(_, message)| Publish {
                to: peer.clone(),
                what: Published::Resent(message.header.seq),
                frame: message.frame,
            }));
        }
        Ok(())
    }

    /// What a mistaken sender does when the broker has confirmed something.
    pub(crate) fn confirmed(&mut self, n: usize, publish: &Publish) {
        if self.planted == Some(Planted::TruncatedEarly)
            && let Published::Message(seq) | Published::Resent(seq) = publish.what
        {
            let change = Change::DropBodies(Direction::Out, publish.to.clone(), seq, seq);
            let write = WriteAhead::new(vec![change], (Effects::default(), After::Nothing));
            self.process(n).pending.push_back(write);
        }
    }
}
