//! One endpoint of a world: its process and its journal, and how one process follows another. It knows nothing of the other
//! endpoint but its name.

use std::collections::VecDeque;

use journal::Meta;
use link::session::{Identity, Input, Millis, Now, Session};
use messages::{Epoch, Incarnation, MessageId, Nonce, Seq};

use super::disk::Disk;
use super::ledger::Known;
use super::plant::Plant;
use super::scope::{Side, TIMERS, config, id};
use super::violation::Violation;

/// A copy of an endpoint's journal. What its application remembers is in the same journal.
#[derive(Debug, Clone, Hash)]
pub(super) struct Copy {
    pub(super) disk: Disk,
    pub(super) taken: Vec<u8>,
}

/// One endpoint.
#[derive(Debug, Clone, Hash)]
pub struct End {
    pub(super) session: Session,
    pub(super) connected: bool,
    pub(super) disk: Disk,
    /// What the session wants to read from its journal.
    pub(super) loads: VecDeque<(Seq, Seq)>,
    /// The messages that the application has taken, as its journal remembers them: their places in the ledger, in order.
    pub(super) taken: Vec<u8>,
    /// Places of messages that the application of this process works on and has not answered.
    pub(super) held: Vec<Seq>,
    pub(super) processes: u8,
    /// What the copy knew that the journal was last restored from.
    pub(super) restored: Option<Known>,
}

impl End {
    /// Its journal was just made.
    pub(super) fn new(side: Side) -> Self {
        let incarnation = Incarnation::from_u128(1 + side.at() as u128);
        let meta = Meta { endpoint: id(side), incarnation, epoch: Epoch::FIRST, created_ms: 0 };
        let disk = Disk::new(meta);
        let session = recover(side, &disk, 0).expect("an empty journal contradicts nothing");
        Self {
            session,
            connected: false,
            disk,
            loads: VecDeque::new(),
            taken: Vec::new(),
            held: Vec::new(),
            processes: 1,
            restored: None,
        }
    }

    /// The process ends and the next one starts. Only the journal is left.
    pub(super) fn restart(&mut self, side: Side, plant: Option<Plant>) -> Result<(), Violation> {
        if let Some(meta) = &mut self.disk.state.meta {
            meta.epoch = meta.epoch.next();
        }
        if plant == Some(Plant::MarkLostOnCrash)
            && let Some(streams) = self.disk.state.peers.get_mut(&id(side.other()))
            && let Some(incoming) = &mut streams.incoming
        {
            incoming.through = incoming.applied;
            self.disk.state = self.disk.replay().map_err(Violation::Illegal)?;
        }
        self.session = recover(side, &self.disk, self.processes)?;
        self.processes += 1;
        self.connected = false;
        self.loads.clear();
        let work = self.disk.streams(&id(side.other())).map(|streams| &streams.work);
        let open = work.into_iter().flatten().filter(|(_, work)| work.answered.is_none());
        self.held = open.map(|(seq, _)| *seq).collect();
        Ok(())
    }

    /// The process ends, its journal is replaced by that copy, and the next one starts.
    pub(super) fn restore(&mut self, side: Side, copy: &Copy, plant: Option<Plant>) -> Result<(), Violation> {
        (self.disk, self.taken) = (copy.disk.clone(), copy.taken.clone());
        self.restored = Some(Known::of(self.disk.streams(&id(side.other()))));
        self.restart(side, plant)
    }

    /// It loses its connection, if it has one.
    pub(super) fn disconnect(&mut self) {
        if std::mem::take(&mut self.connected) {
            let (changes, _) = self.session.handle(now(Millis(0)), Input::Disconnected).committed_elsewhere();
            debug_assert!(changes.is_empty());
        }
    }

    /// What the ledgers look at.
    pub(super) fn journal(&self) -> Journal<'_> {
        Journal { disk: &self.disk, taken: &self.taken, restored: self.restored }
    }
}

/// What is durable of an endpoint.
#[derive(Debug, Clone, Copy)]
pub(super) struct Journal<'a> {
    pub(super) disk: &'a Disk,
    pub(super) taken: &'a [u8],
    pub(super) restored: Option<Known>,
}

impl Journal<'_> {
    /// Whether this side's disk has that message of the other side whole.
    pub(super) fn has(&self, direction: journal::Direction, message: MessageId) -> bool {
        self.disk.holds_id(direction, message)
    }
}

pub(super) const fn now(at: Millis) -> Now {
    Now { at, wall_ms: 0 }
}

fn recover(side: Side, disk: &Disk, process: u8) -> Result<Session, Violation> {
    let state = disk.replay().map_err(Violation::Illegal)?;
    if state != disk.state {
        return Err(Violation::Replay);
    }
    let meta = state.meta.clone().ok_or(Violation::Replay)?;
    let nonce = Nonce::new(100 * (1 + side.at() as u64) + u64::from(process));
    let identity = Identity { local: meta.endpoint, incarnation: meta.incarnation, epoch: meta.epoch, nonce };
    let peer = id(side.other());
    let recent = [(peer.clone(), disk.recent(&config(), &peer))].into();
    let mut session = Session::recover(identity, config(), state, [peer.clone()], recent);
    session.normalize(&peer, (Millis(0), TIMERS), |_| None, |probe| probe);
    Ok(session)
}
