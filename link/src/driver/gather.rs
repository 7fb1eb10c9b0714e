//! Gathering what is to be committed together. One commit costs a hand-over to the writer and back, whatever is in it; so while
//! commits are under way, the next one fills. Messages that are lent to the application wait a moment for what it makes of them, so that both
//! are one commit, and what nobody is in a hurry for waits for something else. Nothing else is ever held back from an idle journal.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use journal::WriteAhead;
use messages::EndpointId;

use super::{COMMITS_MAX, Driver, Reply};
use crate::session::Effects;

/// Inputs that one commit covers at most, so that the first of them does not wait for ever more.
const INPUTS_MAX: usize = 512;
/// Bytes of inputs that one commit covers at most, which bounds what waits in memory.
const BYTES_MAX: usize = 4 * 1024 * 1024;
/// How long messages that are lent wait for the application. It answers within a tenth of that, unless it has something else to do.
const LENT_MAX: Duration = Duration::from_millis(2);
/// How long what is not in a hurry waits for something that is.
const UNHURRIED_MAX: Duration = Duration::from_millis(20);

/// Changes that wait for their commit, and what is bound to them, in the order of the inputs.
pub(super) struct Gathered {
    write: WriteAhead<Vec<(Effects, Reply)>>,
    inputs: usize,
    bytes: usize,
    /// Peers with messages in it.
    arrived: BTreeSet<EndpointId>,
    /// Since when the application has some of these.
    lent: Option<Instant>,
    /// A transaction is in it, for which somebody waits.
    awaited: bool,
    /// Since when there is anything in it, and whether any of that is in a hurry.
    since: Option<Instant>,
    hurried: bool,
}

/// How soon something is to be committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Haste {
    /// As soon as may be.
    Now,
    /// With what comes next, or after a while.
    None,
}

impl Default for Gathered {
    fn default() -> Self {
        let write = WriteAhead::new(Vec::new(), Vec::new());
        let (arrived, lent, since) = (BTreeSet::new(), None, None);
        Self { write, inputs: 0, bytes: 0, arrived, lent, awaited: false, since, hurried: false }
    }
}

impl Gathered {
    /// Adds what one input amounts to, behind all others.
    fn push(&mut self, write: WriteAhead<Effects>, reply: Reply, bytes: usize, haste: Haste) {
        match haste {
            Haste::Now => {
                self.awaited |= !matches!(reply, Reply::Nobody);
                self.hurried = true;
            }
            Haste::None => {}
        }
        self.since.get_or_insert_with(Instant::now);
        self.write.push(write.with(reply));
        self.inputs += 1;
        self.bytes += bytes;
    }

    /// Notes that the application has messages of that peer that are not on stable storage.
    pub(super) fn lent(&mut self, peer: &EndpointId) {
        if self.arrived.contains(peer) {
            self.lent.get_or_insert_with(Instant::now);
        }
    }

    /// Until when it waits: for anything that is in a hurry, or for what the application makes of what it was lent. Once there is a
    /// transaction in it that is waited for, it waits no longer: whoever waits may be the one who is to deal with the rest. Nor does it when it is
    /// full: nothing that it could wait for is taken in then.
    pub(super) fn waits_until(&self) -> Option<Instant> {
        if !self.has_room() {
            return None;
        }
        match (self.hurried, self.awaited) {
            (false, _) => self.since.map(|since| since + UNHURRIED_MAX),
            (true, false) => self.lent.map(|since| since + LENT_MAX),
            (true, true) => None,
        }
    }

    /// Whether another input may be taken.
    pub(super) const fn has_room(&self) -> bool {
        self.inputs < INPUTS_MAX && self.bytes < BYTES_MAX
    }
}

impl Driver {
    /// Gathers what one input amounts to. The messages that arrived with it may be lent from now on.
    pub(super) fn gather(&mut self, mut write: WriteAhead<Effects>, reply: Reply, bytes: usize, haste: Haste) {
        let lend = |effects: &mut Effects| (std::mem::take(&mut effects.arrived), !effects.rewound.is_empty());
        let (arrived, rewinds) = write.lend(lend);
        self.rewinding += usize::from(rewinds);
        for arrived in arrived {
            let peer = arrived.message.header.from.clone();
            self.kept.arrived.keep(&peer, arrived);
            self.gathered.arrived.insert(peer.clone());
            self.waiting.insert(peer);
        }
        self.gathered.push(write, reply, bytes, haste);
    }

    /// Hands what was gathered to the journal, unless enough is under way there.
    pub(super) fn flush(&mut self) {
        let waits = self.gathered.waits_until().is_some_and(|until| Instant::now() < until);
        if self.commits.len() < COMMITS_MAX && !waits {
            self.flush_all();
        }
    }

    /// Hands what was gathered to the journal.
    pub(super) fn flush_all(&mut self) {
        if self.gathered.inputs > 0 {
            let gathered = std::mem::take(&mut self.gathered);
            self.commits.push_back(self.journal.commit(gathered.write));
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;

    use journal::{Journal, MemoryStore, Opening};
    use messages::{Incarnation, Nonce};

    use super::*;
    use crate::driver::{Parts, endpoint};
    use crate::session::Config;
    use crate::wire::wire;

    fn empty() -> WriteAhead<Effects> {
        WriteAhead::new(Vec::new(), Effects::default())
    }

    /// What waits for a slow disk is bounded by what one commit covers, since a commit that is full takes nothing more in.
    #[tokio::test]
    async fn what_comes_while_the_disk_is_slow_is_one_commit_more_and_not_one_for_each() {
        let opening = Opening { endpoint: EndpointId::Server, incarnation: Incarnation::from_u128(1), now_ms: 0 };
        let (journal, state) = Journal::over(Arc::new(MemoryStore::default()), &opening).unwrap();
        let (wire, _end) = wire();
        let (peers, config, nonce) = (Vec::new(), Config::default(), Nonce::new(5));
        let (_endpoint, mut driver) = endpoint(Parts { journal, state, wire, peers, config, nonce }).unwrap();
        // Nobody looks for commits that are done, so all of them are under way.
        for _ in 0..COMMITS_MAX + 3 {
            driver.gather(empty(), Reply::Nobody, 0, Haste::Now);
            driver.flush();
        }
        assert_eq!((driver.commits.len(), driver.gathered.inputs), (COMMITS_MAX, 3));
    }

    #[test]
    fn what_is_full_waits_for_nobody() {
        for haste in [Haste::Now, Haste::None] {
            let mut gathered = Gathered::default();
            gathered.arrived.insert(EndpointId::Server);
            for _ in 1..INPUTS_MAX {
                gathered.push(empty(), Reply::Nobody, 0, haste);
            }
            gathered.lent(&EndpointId::Server);
            assert!(gathered.waits_until().is_some());
            gathered.push(empty(), Reply::Nobody, 0, haste);
            assert_eq!(gathered.waits_until(), None, "nothing is taken in that it could wait for");
            let mut large = Gathered::default();
            large.arrived.insert(EndpointId::Server);
            large.push(empty(), Reply::Nobody, BYTES_MAX, haste);
            large.lent(&EndpointId::Server);
            assert_eq!(large.waits_until(), None);
        }
    }

    #[test]
    fn what_is_lent_waits_a_moment_unless_somebody_waits_for_it_and_what_nobody_minds_waits_longer() {
        let mut gathered = Gathered::default();
        assert_eq!(gathered.waits_until(), None);
        gathered.push(empty(), Reply::Nobody, 0, Haste::None);
        let unhurried = gathered.waits_until().map(|until| until.saturating_duration_since(Instant::now()));
        assert!(unhurried.is_some_and(|left| left > LENT_MAX));
        gathered.push(empty(), Reply::Nobody, 0, Haste::Now);
        assert_eq!(gathered.waits_until(), None, "the application has none of it");
        gathered.lent(&EndpointId::Server);
        assert_eq!(gathered.waits_until(), None, "what the application has is not in it");
        gathered.arrived.insert(EndpointId::Server);
        gathered.lent(&EndpointId::Server);
        assert!(gathered.waits_until().is_some_and(|until| until <= Instant::now() + LENT_MAX));
        let (reply, _waiting) = tokio::sync::oneshot::channel();
        gathered.push(empty(), Reply::Submitter(reply), 0, Haste::Now);
        assert_eq!(gathered.waits_until(), None, "somebody waits for it");
    }
}
