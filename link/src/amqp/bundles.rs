//! What leaves in one message of the broker: a single envelope, or several to the same endpoint, if that one has said that it takes
//! them. Nobody waits for a second envelope: only what is there already travels together. It decides nothing about what is sent.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use lapin::message::Delivery;
use messages::{AgentId, Bundle, EndpointId};

use super::config::Role;
use crate::session::{Publish, Published};

/// The AMQP message type of everything that is published from here: whoever sent it takes bundles.
pub(super) const TAKES_BUNDLES: &str = "longshore.bundles";

/// Endpoints that are remembered. To one beyond them everything goes singly.
const TAKERS_MAX: usize = 65_536;

/// Who takes bundles: those whose last message was marked. One that is replaced by an older program, which takes none, is noticed by its first
/// word; what it could not read until then it is sent again.
#[derive(Debug, Default)]
pub(super) struct Takers(Mutex<BTreeSet<EndpointId>>);

impl Takers {
    fn known(&self) -> MutexGuard<'_, BTreeSet<EndpointId>> {
        // A set is whole before anything can panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes what a delivery says of its sender.
    pub(super) fn note(&self, role: &Role, delivery: &Delivery) {
        let Some(from) = sender(role, delivery.routing_key.as_str()) else { return };
        let takes = delivery.properties.kind().as_ref().is_some_and(|kind| kind.as_str() == TAKES_BUNDLES);
        self.set(from, takes);
    }

    fn set(&self, from: EndpointId, takes: bool) {
        let mut known = self.known();
        if !takes {
            known.remove(&from);
        } else if known.len() < TAKERS_MAX && !known.contains(&from) {
            known.insert(from);
        }
    }

    /// Whether that one takes bundles.
    pub(super) fn has(&self, endpoint: &EndpointId) -> bool {
        self.known().contains(endpoint)
    }
}

/// Who sent what has that key. The broker lets an agent use no key but its own.
fn sender(role: &Role, key: &str) -> Option<EndpointId> {
    match role {
        Role::Agent(_) => Some(EndpointId::Server),
        Role::Server { .. } => {
            let (agent, _class) = key.strip_prefix("agent.")?.split_once('.')?;
            Some(EndpointId::Agent(agent.parse::<AgentId>().ok()?))
        }
    }
}

/// What is published at once.
#[derive(Debug)]
pub(super) struct Load {
    /// To whom.
    pub(super) to: EndpointId,
    /// What it is: at least one.
    pub(super) what: Vec<Published>,
    /// Its envelopes.
    pub(super) bundle: Bundle,
}

impl Load {
    pub(super) fn new(Publish { to, what, frame }: Publish) -> Self {
        Self { to, what: vec![what], bundle: Bundle::new(frame) }
    }

    /// Whether that one can travel with the others. Not if it is for somebody else, too large, or a piece of a log, which has a queue of its own
    /// and may get lost more easily.
    pub(super) fn takes(&self, more: &Publish) -> bool {
        let alone = [more.what, self.what[0]].contains(&Published::Log);
        !alone && more.to == self.to && self.bundle.has_room_for(&more.frame)
    }

    /// Adds one that [it takes](Self::takes).
    pub(super) fn add(&mut self, more: Publish) {
        self.what.push(more.what);
        self.bundle.push(more.frame);
    }

    /// Whether the broker is to keep it: any of it is a message.
    pub(super) fn is_kept(&self) -> bool {
        self.what.iter().any(|what| match what {
            Published::Message(_) | Published::Resent(_) => true,
            Published::Status | Published::Log => false,
        })
    }

    /// Whether it is a piece of a log, or word about one.
    pub(super) fn is_log(&self) -> bool {
        self.what[0] == Published::Log
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use messages::{Epoch, Frame, Header, Incarnation, Seq};

    fn publish(to: &EndpointId, what: Published) -> Publish {
        let header = Header::new(EndpointId::Server, to.clone(), Incarnation::from_u128(1), Epoch::FIRST);
        Publish { to: to.clone(), what, frame: Frame::message(&header, b"body").unwrap() }
    }

    #[test]
    fn only_what_goes_to_the_same_endpoint_and_the_same_queue_travels_together() {
        let (one, two): (EndpointId, EndpointId) = ("one".parse().unwrap(), "two".parse().unwrap());
        let mut load = Load::new(publish(&one, Published::Status));
        assert!(!load.is_kept());
        let message = publish(&one, Published::Message(Seq::FIRST));
        assert!(load.takes(&message));
        load.add(message);
        let others = [publish(&two, Published::Status), publish(&one, Published::Log)];
        assert!(!others.iter().any(|other| load.takes(other)));
        assert_eq!(load.what, [Published::Status, Published::Message(Seq::FIRST)]);
        assert!(load.is_kept() && !load.is_log());
        let log = Load::new(publish(&one, Published::Log));
        assert!(!log.takes(&publish(&one, Published::Status)) && log.is_log() && !log.is_kept());
    }

    #[test]
    fn who_takes_bundles_is_known_by_the_last_word_and_the_key_that_it_came_with() {
        let (server, agent) = (Role::Server { agents: Vec::new() }, Role::Agent("me".parse().unwrap()));
        assert_eq!(sender(&agent, "agent.me"), Some(EndpointId::Server));
        assert_eq!(sender(&server, "agent.web-1.link"), Some("web-1".parse().unwrap()));
        for key in ["", "agent.", "agent.web-1", "agent.A b.link", "other.web-1.link"] {
            assert_eq!(sender(&server, key), None, "{key}");
        }
        let takers = Takers::default();
        let one: EndpointId = "one".parse().unwrap();
        assert!(!takers.has(&one));
        takers.set(one.clone(), true);
        assert!(takers.has(&one) && !takers.has(&EndpointId::Server));
        takers.set(one.clone(), false);
        assert!(!takers.has(&one));
    }
}
