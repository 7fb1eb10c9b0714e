//! Envelopes of somebody unknown, and of somebody who is not known any more: nothing is journaled, nothing is lost.

use link::session::{Config, Fault};

use crate::pair::{End, Pair, Side};
use crate::script::is_message;

#[test]
fn a_stranger_is_not_journaled() {
    let mut pair = Pair::new(&Config::default());
    let mut other = Pair::new(&Config::default());
    other.agent = End::new("intruder", "server", Config::default());
    other.server = End::new("server", "intruder", Config::default());
    other.connect();
    other.settle(false);
    other.submit(Side::Agent);
    let before = pair.server.session.state().clone();
    let frames = other.archive[Side::Server.inbox()].clone();
    for frame in &frames {
        pair.deliver(Side::Server, frame);
    }
    assert_eq!(*pair.server.session.state(), before);
    let messages = frames.iter().filter(|frame| is_message(frame)).count();
    assert_eq!((messages, pair.server.discarded), (1, 1), "its message, and nothing else, is dead-lettered");
    assert!(pair.server.faults.iter().any(|fault| matches!(fault, Fault::Stranger { .. })));
}

#[test]
fn a_peer_that_is_no_longer_known_loses_nothing_until_it_is_known_again() {
    let mut pair = Pair::new(&Config::default());
    pair.connect();
    pair.submit(Side::Server);
    pair.settle(false);
    pair.server.forget_peer();
    pair.submit(Side::Agent);
    let before = pair.server.session.state().clone();
    pair.settle_some(5);
    assert_eq!(*pair.server.session.state(), before, "nothing of a stranger is journaled");
    pair.restart(Side::Server);
    pair.settle(false);
    assert_eq!(pair.server.taken.len(), 1);
}

/// The same server speaks to both, so that all but the address is right.
#[test]
fn what_is_addressed_to_another_agent_is_not_taken() {
    let mut pair = Pair::new(&Config::default());
    let mut other = Pair::new(&Config::default());
    other.agent = End::new("web-02", "server", Config::default());
    other.server = End::new("server", "web-02", Config::default());
    other.connect();
    other.settle(false);
    other.submit(Side::Server);
    let frames = other.archive[Side::Agent.inbox()].clone();
    assert!(frames.len() >= 2);
    let before = pair.agent.session.clone();
    for frame in &frames {
        pair.deliver(Side::Agent, frame);
    }
    assert_eq!(pair.agent.session, before, "neither what it says nor what it asks");
    assert_eq!(pair.agent.faults.len(), frames.len());
    let to_other = |fault: &Fault| matches!(fault, Fault::Stranger { to, .. } if *to == other.agent.id);
    assert!(pair.agent.faults.iter().all(to_other), "{:?}", pair.agent.faults);
}
