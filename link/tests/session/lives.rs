//! What can happen to a machine beyond a restart: installed anew, put back to an older copy, copied while it runs. Nothing here knows
//! what the session makes of it.

use std::collections::BTreeMap;

use link::session::{DeliveryTag, Fault, Input, Millis, Now, Session};
use messages::{Epoch, Incarnation, Kind, Message, MessageId};

use crate::pair::{Disk, End};

impl End {
    /// The same name on a machine whose journal is new.
    pub(crate) fn reinstalled(old: &Self) -> Self {
        let mut new = Self::new(old.id.as_str(), old.peer.as_str(), old.config.clone());
        new.incarnation = Incarnation::from_u128(77);
        new.disk = Disk::default();
        new.nonces = 77_000;
        new.epoch = Epoch::new(0);
        new.restart();
        new
    }

    /// What is submitted from now on can be told from what an earlier life submitted.
    pub(crate) fn mark_bodies(&mut self, mark: &str) {
        self.mark = mark.to_owned();
    }

    /// Stops the streams, by the news that a later opening of the same journal was heard.
    pub(crate) fn freeze(&mut self) {
        let identity = self.session.identity().clone();
        let mut header =
            messages::Header::new(self.peer.clone(), self.id.clone(), identity.incarnation, identity.epoch);
        let incoming = self.session.state().peers[&self.peer].incoming.clone().unwrap();
        header.incarnation = incoming.incarnation;
        let header = header
            .numbered(incoming.through.unwrap().next(), messages::ChainHash::from_bytes([1; 32]))
            .carrying(MessageId::from_u128(0), Kind::Unknown(1), None, b"x");
        let message = Message::new(header, b"x").unwrap();
        let envelope = Box::new(messages::Envelope::Message(message));
        let tag = DeliveryTag { connection: 9, tag: 9 };
        let now = Now { at: Millis(0), wall_ms: 0 };
        let (changes, effects) = self.session.handle(now, Input::Delivered(tag, envelope)).committed_elsewhere();
        self.disk.write(&changes);
        assert!(matches!(effects.faults.as_slice(), [Fault::Frozen { .. }]), "{:?}", effects.faults);
    }

    /// The machine is put back to an earlier copy of its disk.
    pub(crate) fn restored(&mut self, copy: &Self) {
        self.disk = copy.disk.clone();
        self.epoch = copy.epoch;
        self.taken.clone_from(&copy.taken);
        self.nonces += 100_000;
    }

    /// The process starts again with a configuration that does not name the peer.
    pub(crate) fn forget_peer(&mut self) {
        let identity = self.session.identity().clone();
        self.session = Session::recover(identity, self.config.clone(), self.disk.fold(), [], BTreeMap::new());
    }

    /// A second process over a copy of the machine, at the same opening of the journal.
    pub(crate) fn cloned(old: &Self) -> Self {
        let mut new = Self::new(old.id.as_str(), old.peer.as_str(), old.config.clone());
        new.disk = old.disk.clone();
        new.nonces = old.nonces + 5;
        new.epoch = Epoch::new(old.epoch.value() - 1);
        new.restart();
        new
    }
}
