//! What a journal that was lost or put back leaves to those that go on: reports in hand, work that was perhaps done.

use link::session::{Applied, Disposition, Fault, Freeze, Input, Transaction};
use messages::limits::RANGES_MAX;
use messages::{Epoch, Incarnation};

use crate::identity::{bodies, doubted, pair_with, superseded};
use crate::pair::{Disk, End, Side};
use crate::script::{is_message, seq};

/// Reports are true whenever they come, and the application may have taken them up before it was known that the journal is a copy.
#[test]
fn a_report_that_a_restored_server_has_in_hand_is_still_taken() {
    let mut pair = pair_with(Side::Agent, 1);
    pair.submit(Side::Agent);
    for frame in std::mem::take(&mut pair.queues[Side::Server.inbox()]) {
        pair.deliver(Side::Server, &frame);
    }
    let copy = pair.server.clone();
    let peer = copy.peer.clone();
    assert_eq!(copy.session.unapplied(&peer), Some((seq(2), seq(2))));
    pair.settle(false);
    pair.submit(Side::Agent);
    pair.settle(false);
    assert_eq!(pair.agent.session.state().peers[&pair.agent.peer].outgoing.settled, Some(seq(3)));
    pair.server.restored(&copy);
    pair.restart(Side::Server);
    for _ in 0..5 {
        for side in Side::BOTH {
            for frame in std::mem::take(&mut pair.queues[side.inbox()]) {
                pair.deliver(side, &frame);
            }
            pair.now += 1_000;
            pair.input(side, Input::TimedOut);
        }
    }
    assert!(pair.server.session.is_heard(&peer), "{}", pair.describe());
    assert!(pair.server.faults.iter().any(|fault| matches!(fault, Fault::Truncated { .. })));
    let apply = vec![Applied { peer, seq: seq(2), disposition: Disposition::Settle }];
    let (now, transaction) = (pair.now(), Transaction { apply, ..Transaction::default() });
    let write = pair.server.session.transact(now, transaction).expect("it is the next one");
    pair.commit(Side::Server, write);
    pair.submit(Side::Agent);
    pair.settle(false);
    assert!(pair.converged(), "{}", pair.describe());
}

#[test]
fn what_was_perhaps_done_stays_so_when_the_peer_loses_its_journal_again() {
    let mut pair = pair_with(Side::Server, 0);
    for _ in 0..6 {
        pair.submit(Side::Server);
    }
    pair.queues = Default::default();
    // The server starts with a smaller window each time, and no word of what arrived has come.
    for name in [77, 78] {
        pair.agent = End::reinstalled(&pair.agent);
        pair.agent.incarnation = Incarnation::from_u128(name);
        (pair.agent.disk, pair.agent.epoch) = (Disk::default(), Epoch::new(0));
        pair.restart(Side::Agent);
        for side in [Side::Server, Side::Agent, Side::Server, Side::Agent, Side::Server] {
            for frame in std::mem::take(&mut pair.queues[side.inbox()]) {
                pair.deliver(side, &frame);
            }
            pair.now += 1_000;
            pair.input(side, Input::TimedOut);
        }
        let outgoing = &pair.server.session.state().peers[&pair.server.peer].outgoing;
        assert_eq!(outgoing.peer, Some(pair.agent.incarnation), "{}", pair.describe());
        assert_eq!(outgoing.doubtful, Some(seq(6)), "{}", pair.describe());
        pair.queues = Default::default();
        pair.server.config.window = 5;
        pair.restart(Side::Server);
    }
}

/// What the copy holds and its application never saw is over all the same, if the journal that was lost had settled it.
#[test]
fn what_a_restored_agent_holds_and_its_lost_self_had_settled_is_not_taken_again() {
    let mut pair = pair_with(Side::Server, 1);
    pair.submit(Side::Server);
    for frame in std::mem::take(&mut pair.queues[Side::Agent.inbox()]) {
        pair.deliver(Side::Agent, &frame);
    }
    let copy = pair.agent.clone();
    assert_eq!(copy.session.unapplied(&copy.peer), Some((seq(2), seq(2))));
    pair.settle(false);
    pair.submit(Side::Server);
    pair.settle(false);
    assert_eq!(bodies(&pair.agent), ["server-1", "server-2", "server-3"]);
    assert_eq!(pair.server.session.state().peers[&pair.server.peer].outgoing.settled, Some(seq(3)));
    pair.agent.restored(&copy);
    pair.restart(Side::Agent);
    pair.submit(Side::Server);
    pair.settle(false);
    assert_eq!(bodies(&pair.agent), ["server-1", "server-4"], "the copy forgot what was done, the world did not");
    assert!(pair.converged(), "{}", pair.describe());
}

/// The same, and nothing that the lost self sent or received would show it: only that it had said that the work was over.
#[test]
fn what_a_lost_self_settled_in_silence_is_not_taken_again() {
    let mut pair = pair_with(Side::Server, 1);
    pair.submit(Side::Server);
    for frame in std::mem::take(&mut pair.queues[Side::Agent.inbox()]) {
        pair.deliver(Side::Agent, &frame);
    }
    let copy = pair.agent.clone();
    pair.settle(false);
    assert_eq!(bodies(&pair.agent), ["server-1", "server-2"]);
    assert_eq!(pair.server.session.state().peers[&pair.server.peer].outgoing.settled, Some(seq(2)));
    pair.agent.restored(&copy);
    pair.restart(Side::Agent);
    pair.settle(false);
    assert_eq!(bodies(&pair.agent), ["server-1"], "the copy had not taken it, and its lost self had settled it");
    assert_eq!(superseded(&pair.agent), Some(Freeze::Forgetful { said: Some(seq(2)), found: Some(seq(1)) }));
    assert!(pair.converged(), "{}", pair.describe());
}

/// All that the peer ever heard of what the copy lacks is that something had come beyond a gap.
#[test]
fn what_a_lost_self_received_beyond_a_gap_shows_that_its_journal_was_restored() {
    let mut pair = pair_with(Side::Server, 1);
    pair.submit(Side::Server);
    pair.submit(Side::Server);
    let copy = pair.agent.clone();
    let inbox = Side::Agent.inbox();
    drop(pair.queues[inbox].pop_front());
    // The question, its answer, and what was missing with the next question; the agent does both and dies before it can say so.
    pair.now += 1_000;
    pair.input(Side::Server, Input::TimedOut);
    for (side, waiting) in [(Side::Agent, 2), (Side::Server, 1), (Side::Agent, 2)] {
        let frames = std::mem::take(&mut pair.queues[side.inbox()]);
        assert_eq!(frames.len(), waiting, "{}", pair.describe());
        for frame in frames {
            pair.deliver(side, &frame);
        }
        pair.input(side, Input::TimedOut);
    }
    let now = pair.now();
    while let Some(write) = pair.agent.application(now, false) {
        pair.commit(Side::Agent, write);
    }
    assert_eq!(bodies(&pair.agent), ["server-1", "server-2", "server-3"]);
    pair.queues = Default::default();
    pair.agent.restored(&copy);
    pair.restart(Side::Agent);
    pair.settle(false);
    assert_eq!(superseded(&pair.agent), Some(Freeze::Forgetful { said: Some(seq(3)), found: Some(seq(1)) }));
    assert_eq!(bodies(&pair.agent), ["server-1", "server-2", "server-3"]);
    assert_eq!(doubted(&pair.agent), ["server-2", "server-3"], "its lost self had done both");
    assert!(pair.converged(), "{}", pair.describe());
}

/// A message that lay in the broker comes to the copy before anybody has heard it. Then its marks are again those that its lost self had
/// reported, and only what they were at the beginning shows that something is missing.
#[test]
fn what_the_broker_gives_a_copy_again_does_not_hide_that_it_is_one() {
    let mut pair = pair_with(Side::Server, 0);
    pair.submit(Side::Server);
    pair.submit(Side::Server);
    let frames: Vec<_> = std::mem::take(&mut pair.queues[Side::Agent.inbox()]).into();
    let messages: Vec<_> = frames.iter().filter(|frame| is_message(frame)).cloned().collect();
    assert_eq!(messages.len(), 2);
    pair.deliver(Side::Agent, &messages[0]);
    let copy = pair.agent.clone();
    // It begins the first, has the second, and dies; the next process says that both are there.
    let now = pair.now();
    let write = pair.agent.application(now, true).expect("the first is offered");
    pair.commit(Side::Agent, write);
    pair.deliver(Side::Agent, &messages[1]);
    pair.queues = Default::default();
    pair.restart(Side::Agent);
    for frame in std::mem::take(&mut pair.queues[Side::Server.inbox()]) {
        pair.deliver(Side::Server, &frame);
    }
    assert_eq!(pair.server.session.state().peers[&pair.server.peer].outgoing.received, Some(seq(2)));
    // Put back. The second message was never acknowledged to the broker, and comes before any word of the server.
    pair.agent.restored(&copy);
    pair.restart(Side::Agent);
    pair.deliver(Side::Agent, &messages[1]);
    pair.settle(false);
    assert_eq!(doubted(&pair.agent), ["server-1", "server-2"], "{}", pair.describe());
    assert!(pair.converged(), "{}", pair.describe());
}

/// What a receiver has reported it keeps, also when it must note where a superseded journal of its peer ends.
#[test]
fn a_receiver_with_many_gaps_keeps_one_range_free_and_gives_up_nothing_that_it_reported() {
    let mut pair = pair_with(Side::Server, 1);
    for _ in 0..2 * RANGES_MAX {
        pair.submit(Side::Server);
    }
    let frames = std::mem::take(&mut pair.queues[Side::Agent.inbox()]);
    for frame in frames.iter().filter(|frame| is_message(frame)).skip(1).step_by(2) {
        pair.deliver(Side::Agent, frame);
    }
    let peer = pair.agent.peer.clone();
    let incoming = pair.agent.session.state().peers[&peer].incoming.clone().expect("it has heard of the stream");
    assert_eq!(incoming.ranges.iter().count(), RANGES_MAX - 1);
    pair.settle(false);
    assert!(pair.converged(), "{}", pair.describe());
    assert_eq!(pair.agent.taken.len(), 1 + 2 * RANGES_MAX);
}
