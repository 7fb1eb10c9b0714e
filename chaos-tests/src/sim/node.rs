//! A machine and the process on it: disk, mark and what began outside of the journal survive the process; session, commits under
//! way and everything else die with it. Feeds the session as the driver does, and decides nothing.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::ControlFlow;
use std::sync::Arc;

use journal::{
    Direction, HighWater, InStep, Journal, Key, MessageTable, OpenError, Opening, PeerState, Row, State, WriteAhead,
};
use link::session::{Config, Effects, Identity, Load, Millis, Now, Publish, Session};
use messages::{ChainHash, EndpointId, Incarnation, Message, Nonce, Seq};

use super::application::{Application, Shim};
use super::checkers::Replay;
use super::disk::{Rows, SimDisk};

/// What happens in the application when a commit is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum After {
    Nothing,
    /// The client is told that its job is taken.
    Accepted(u64),
    /// These runs are in that stage.
    Runs(Vec<u64>, super::application::Stage),
}

/// A commit's load.
pub(crate) type Bound = (Effects, After);

/// What outlives a process.
pub(crate) struct Machine {
    pub(crate) disk: Arc<SimDisk>,
    pub(crate) mark: Option<HighWater>,
    /// Jobs that were begun here, as the folders of attempts say. No part of the journal.
    pub(crate) attempts: BTreeSet<u64>,
    /// Where steps take time: what is known of them outside of the journal, by job and step.
    pub(crate) shims: Option<BTreeMap<(u64, u8), Shim>>,
}

/// A machine with an endpoint.
pub(crate) struct Node {
    pub(crate) id: EndpointId,
    /// 0 for the server, then the agents. Copies of a machine share it.
    pub(crate) seat: usize,
    pub(crate) peers: Vec<EndpointId>,
    pub(crate) machine: Machine,
    pub(crate) config: Config,
    pub(crate) process: Option<Process>,
    /// Processes so far.
    pub(crate) lives: u64,
    /// What the last process had on disk when it ended.
    pub(crate) last: Option<State>,
    /// An old copy of the disk and its mark.
    pub(crate) saved: Option<(Rows, Option<HighWater>)>,
}

/// A running process.
pub(crate) struct Process {
    pub(crate) journal: Journal,
    pub(crate) writer: InStep,
    pub(crate) session: Session,
    /// On the way to the disk, oldest first.
    pub(crate) pending: VecDeque<WriteAhead<Bound>>,
    /// On the disk, not carried out yet.
    pub(crate) done: VecDeque<Bound>,
    pub(crate) loads: VecDeque<Load>,
    /// On the way to the broker.
    pub(crate) backlog: VecDeque<Publish>,
    pub(crate) connection: Option<u64>,
    /// What the application may be given.
    pub(crate) durable: BTreeMap<EndpointId, Seq>,
    /// What it was given and has not dealt with.
    pub(crate) inbox: BTreeMap<EndpointId, VecDeque<(Seq, Message)>>,
    pub(crate) app: Application,
    pub(crate) paused: bool,
    /// When the process began, on the world's clock: its own begins at 0.
    began: u64,
    /// Messages whose numbering the checkers know of.
    pub(crate) numbered: BTreeMap<EndpointId, u64>,
    pub(crate) commits: u64,
}

/// What a process needs to begin, beyond its machine.
pub(crate) struct Birth {
    pub(crate) incarnation: Incarnation,
    pub(crate) nonce: u64,
    pub(crate) at: u64,
    pub(crate) wall_ms: u64,
}

impl Node {
    /// Opens the journal and begins a process, as an endpoint's service does.
    pub(crate) fn begin(
        &self,
        birth: &Birth,
        config: Config,
        tamper: &dyn Fn(&mut State),
    ) -> Result<Process, OpenError> {
        let opening = Opening { endpoint: self.id.clone(), incarnation: birth.incarnation, now_ms: birth.wall_ms };
        let disk: Arc<SimDisk> = Arc::clone(&self.machine.disk);
        let (journal, writer, mut state) = Journal::in_step(disk, &opening, self.machine.mark.as_ref())?;
        tamper(&mut state);
        let meta = journal.meta().clone();
        let mut recent = BTreeMap::new();
        for (peer, streams) in state.peers.iter().filter(|(peer, _)| self.peers.contains(peer)) {
            recent.insert(peer.clone(), recent_hashes(&journal, &config, peer, streams));
        }
        let identity = Identity {
            local: meta.endpoint,
            incarnation: meta.incarnation,
            epoch: meta.epoch,
            nonce: Nonce::new(birth.nonce),
        };
        let mut app = Application::read(&journal).expect("a journal that was just opened can be read");
        if let Some(shims) = &self.machine.shims {
            app.reattach(shims);
        }
        let session = Session::recover(identity, config, state, self.peers.clone(), recent);
        let unapplied = session.peers().filter_map(|peer| Some((peer.clone(), session.unapplied(peer)?.1)));
        let durable = unapplied.collect();
        Ok(Process {
            journal,
            writer,
            session,
            pending: VecDeque::new(),
            done: VecDeque::new(),
            loads: VecDeque::new(),
            backlog: VecDeque::new(),
            connection: None,
            durable,
            inbox: BTreeMap::new(),
            app,
            paused: false,
            began: birth.at,
            numbered: BTreeMap::new(),
            commits: 0,
        })
    }
}

fn recent_hashes(
    journal: &Journal,
    config: &Config,
    peer: &EndpointId,
    streams: &PeerState,
) -> BTreeMap<Seq, ChainHash> {
    let (from, Some(to)) = Session::recent_span(config, streams) else { return BTreeMap::new() };
    let span = (from.value()..=to.value()).filter_map(Seq::new);
    let header = |seq| journal.header(Direction::Out, peer, seq).ok().flatten();
    span.filter_map(|seq| Some((seq, header(seq)?.hash()))).collect()
}

impl Process {
    /// The time as this process knows it.
    pub(crate) const fn now(&self, at: u64, wall_ms: u64) -> Now {
        Now { at: Millis(at - self.began), wall_ms }
    }

    /// When the session wants to be called next, on the world's clock.
    pub(crate) fn next_timeout(&self) -> Option<u64> {
        self.session.next_timeout().map(|due| due.0.saturating_add(self.began))
    }

    /// Whether nothing is under way inside.
    pub(crate) fn is_idle(&self) -> bool {
        self.pending.is_empty()
            && self.done.is_empty()
            && self.loads.is_empty()
            && self.backlog.is_empty()
            && self.inbox.values().all(VecDeque::is_empty)
    }

    /// Takes up the next messages for the application, only from disk, in the order of the stream, each with its place here.
    pub(crate) fn offer(&mut self, peer: &EndpointId, most: u64) -> Vec<(Seq, Message)> {
        if self.inbox.get(peer).is_some_and(|inbox| !inbox.is_empty()) {
            return Vec::new();
        }
        let Some((from, _)) = self.session.unapplied(peer) else { return Vec::new() };
        let Some(durable) = self.durable.get(peer).copied().filter(|durable| from <= *durable) else {
            return Vec::new();
        };
        let to = durable.min(Seq::new(from.value() + most).unwrap_or(durable));
        let read = self.journal.messages(Direction::In, peer, (from, to), 1 << 20).unwrap_or_default();
        let whole =
            read.into_iter().zip(from.value()..).take_while(|((place, _), expected)| place.value() == *expected);
        whole.map(|(found, _)| found).collect()
    }

    /// Reads the rows of the whole journal anew.
    pub(crate) fn replay(&self) -> Replay {
        let mut replay = Replay { state: State::default(), problems: Vec::new() };
        let mut found = BTreeSet::new();
        let scanned = self.journal.store().scan(&[0], &[0xff], &mut |key, value| {
            match Row::decode(key, value) {
                Ok(row) => {
                    if let Key::Message(table, peer, seq) = row.key()
                        && table != MessageTable::Work
                    {
                        found.insert((table, peer, seq));
                    }
                    if let Err(error) = replay.state.put(&row) {
                        replay.problems.push(error.to_string());
                    }
                }
                Err(error) => replay.problems.push(error.to_string()),
            }
            ControlFlow::Continue(())
        });
        if let Err(error) = scanned {
            replay.problems.push(error.to_string());
        }
        let wanted = wanted(&replay.state);
        for (table, peer, seq) in wanted.difference(&found) {
            replay.problems.push(format!("{table:?} {seq} of {peer} is missing though the marks need it"));
        }
        for (table, peer, seq) in found.difference(&wanted) {
            replay.problems.push(format!("{table:?} {seq} of {peer} is there though the marks have passed it"));
        }
        replay
    }
}

/// The rows of messages that the marks of a state speak of.
fn wanted(state: &State) -> BTreeSet<(MessageTable, EndpointId, Seq)> {
    let mut wanted = BTreeSet::new();
    let mut span = |table, peer: &EndpointId, after: Option<Seq>, to: Option<Seq>| {
        let span = (Seq::after(after).value()..=Seq::count(to)).filter_map(Seq::new);
        wanted.extend(span.map(|seq| (table, peer.clone(), seq)));
    };
    for (peer, streams) in &state.peers {
        let outgoing = &streams.outgoing;
        span(MessageTable::SentHeader, peer, outgoing.forgotten, outgoing.next.previous());
        span(MessageTable::SentBody, peer, outgoing.settled, outgoing.next.previous());
        if let Some(incoming) = &streams.incoming {
            let held = incoming.ranges.iter().chain(incoming.through.map(|through| (Seq::FIRST, through)));
            let pieces = held.flat_map(|held| incoming.without_voids(held));
            for (from, to) in pieces {
                span(MessageTable::InboxHeader, peer, incoming.forgotten.max(from.previous()), Some(to));
                span(MessageTable::InboxBody, peer, incoming.settled.max(from.previous()), Some(to));
            }
        }
    }
    wanted
}
