//! What an exhaustive search needs of a session and nobody else does: its timers, its probes, and a way to leave out what
//! makes two sessions with the same future look different. It never changes what a session will decide.

use journal::State;
use messages::{EndpointId, Incarnation, ProbeId};

use super::{Freeze, Millis, Session};

/// The one value that every timer of a kind gets in a normal form. A search lets a timer that is set go off at any moment:
/// deliveries may take anything from nothing to hours, so no order between them and the timers can be excluded, and a driver
/// that was busy comes late. Then only which timers are set matters, not for when.
#[doc(hidden)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timers {
    /// A status that is due soon.
    pub status: Millis,
    /// A probe that is due at once.
    pub ask: Millis,
    /// A probe that waits for a delay.
    pub probe: Millis,
    /// A status that is due only because nothing else was said for long.
    pub heartbeat: Millis,
}

impl Session {
    /// Why the streams with the peer are stopped.
    #[must_use]
    pub fn frozen(&self, peer: &EndpointId) -> Option<&Freeze> {
        self.peers.get(peer)?.frozen.as_ref()
    }

    /// When a status and a probe are due.
    #[doc(hidden)]
    #[must_use]
    pub fn timers(&self, peer: &EndpointId) -> (Option<Millis>, Option<Millis>) {
        let entry = self.peers.get(peer).filter(|entry| self.connected && entry.frozen.is_none());
        entry.map_or((None, None), |entry| (entry.receiving.status_due, entry.sending.probe_due))
    }

    /// Whether the peer has heard this process.
    #[doc(hidden)]
    #[must_use]
    pub fn heard(&self, peer: &EndpointId) -> bool {
        self.is_heard(peer)
    }

    /// The name under which the stream to the peer is written.
    #[doc(hidden)]
    #[must_use]
    pub fn name_towards(&self, peer: &EndpointId) -> Incarnation {
        self.own(peer)
    }

    /// The probes that wait for an answer, oldest first.
    #[doc(hidden)]
    pub fn probes(&self, peer: &EndpointId) -> impl Iterator<Item = ProbeId> {
        self.peers.get(peer).into_iter().flat_map(|entry| entry.sending.probes.iter().map(|asked| asked.id))
    }

    /// The probe of the peer that is to be answered.
    #[doc(hidden)]
    #[must_use]
    pub fn owed(&self, peer: &EndpointId) -> Option<ProbeId> {
        self.peers.get(peer)?.receiving.answer
    }

    /// Leaves out what cannot matter any more, given the time, and which of this session's probes (by `own`, as what) and
    /// of the peer's (by `theirs`, always as something) can still be answered:
    ///
    /// - Times become the one time of their kind; see [`Timers`].
    /// - A probe that nothing on the way can answer is forgotten. It could only push an older one out of a full list, and
    ///   an answer that comes too late for that is as one that was lost.
    /// - Probes are numbered from 0: nothing looks at more than whether two ids are equal.
    /// - What is counted for people (resent, duplicates, when somebody was heard) becomes nothing.
    /// - Messages since the last status become nothing: as long as there are fewer than [`Config::status_every`]
    ///   (super::Config), their number changes nothing.
    /// - Probes in vain become nothing, too: their number only makes delays longer, and times are left out.
    #[doc(hidden)]
    pub fn normalize(
        &mut self,
        peer: &EndpointId,
        (at, timers): (Millis, Timers),
        own: impl Fn(ProbeId) -> Option<ProbeId>,
        theirs: impl Fn(ProbeId) -> ProbeId,
    ) {
        let soon = at.after(self.config.status_delay_ms);
        let Some(entry) = self.peers.get_mut(peer) else { return };
        let (sending, receiving) = (&mut entry.sending, &mut entry.receiving);
        sending.resent = 0;
        sending.attempts = 0;
        sending.fruitless = 0;
        let ask = |due| if due <= soon || due == timers.ask { timers.ask } else { timers.probe };
        sending.probe_due = sending.probe_due.map(ask);
        sending.probes.retain_mut(|asked| own(asked.id).map(|id| asked.id = id).is_some());
        receiving.unreported = 0;
        receiving.duplicates = 0;
        receiving.heard = None;
        let kind = |due| if due <= soon { timers.status } else { timers.heartbeat };
        receiving.status_due = receiving.status_due.map(kind);
        receiving.answer = receiving.answer.map(theirs);
        self.next_probe = ProbeId::new(sending.probes.len() as u64);
    }

    /// Takes out what is durable. A search keeps that once for all sessions over the same journal, and gives it back with
    /// [`Self::unpark`] before it uses the session again.
    #[doc(hidden)]
    pub fn park(&mut self) -> State {
        std::mem::take(&mut self.state)
    }

    /// Puts back what [`Self::park`] took out.
    #[doc(hidden)]
    pub fn unpark(&mut self, state: State) {
        self.state = state;
    }

    /// What has been published, what of it is missing, and what is being read, for a table of states.
    #[doc(hidden)]
    #[must_use]
    pub fn under_way(&self, peer: &EndpointId) -> Option<UnderWay> {
        let side = &self.peers.get(peer)?.sending;
        Some(UnderWay {
            connected: self.connected,
            published: messages::Seq::count(side.published),
            missing: !side.missing.is_empty(),
            loading: side.loading.is_some(),
        })
    }
}

/// The part of the outgoing side that [`PeerView`](super::PeerView) does not show.
#[doc(hidden)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnderWay {
    /// Whether the broker can be published to.
    pub connected: bool,
    /// Everything up to here may have reached the broker.
    pub published: u64,
    /// Something was found missing and is not read yet.
    pub missing: bool,
    /// Something is being read from the journal.
    pub loading: bool,
}
