//! Who speaks: strangers, old and cloned processes, restored and reinstalled journals. Each story ends with the streams
//! stopped before anything took effect twice.

use link::session::{Config, Fault, Freeze, Input};

use crate::pair::{End, Pair, Side};
use crate::script::{is_message, seq};

#[test]
fn a_stranger_is_not_journaled() {
    let mut pair = Pair::new(&Config::default());
    let mut other = Pair::new(&Config::default());
    other.agent = End::new("intruder", "server", Config::default());
    // It has met a server of its own.
    other.server = End::new("server", "intruder", Config::default());
    other.connect();
    other.settle(false);
    other.submit(Side::Agent);
    let before = pair.server.session.state().clone();
    let frames = std::mem::take(&mut other.queues[Side::Server.inbox()]);
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

#[test]
fn a_new_journal_takes_nothing_that_waited_for_an_older_one() {
    let mut pair = Pair::new(&Config::default());
    pair.connect();
    pair.submit(Side::Server);
    let waiting: Vec<_> = pair.queues[Side::Agent.inbox()].iter().filter(|frame| is_message(frame)).cloned().collect();
    pair.settle(false);
    assert_eq!(pair.agent.taken.len(), 1);
    // The agent did it and died before it told the broker; its journal is lost; the broker delivers it again.
    pair.agent = End::reinstalled(&pair.agent);
    pair.input(Side::Agent, Input::Connected);
    for frame in &waiting {
        pair.deliver(Side::Agent, frame);
    }
    pair.settle_some(20);
    assert!(pair.agent.taken.is_empty(), "it would have taken effect twice");
    assert!(matches!(frozen(&pair.agent), Some(Freeze::Replaced { .. })), "{}", pair.describe());
}

#[test]
fn an_older_process_of_a_journal_learns_that_it_is_old() {
    let mut pair = Pair::new(&Config::default());
    pair.connect();
    pair.settle(false);
    let mut old = End::cloned(&pair.agent);
    pair.restart(Side::Agent);
    pair.settle(false);
    std::mem::swap(&mut pair.agent, &mut old);
    pair.input(Side::Agent, Input::Connected);
    pair.settle_some(20);
    assert!(matches!(frozen(&pair.agent), Some(Freeze::Superseded { .. })), "{}", pair.describe());
    assert_eq!(frozen(&pair.server), None, "the newer process is not disturbed");
}

fn frozen(end: &End) -> Option<Freeze> {
    end.faults.iter().find_map(|fault| match fault {
        Fault::Frozen { freeze, .. } => Some(freeze.clone()),
        Fault::Garbled { .. }
        | Fault::Stranger { .. }
        | Fault::OutsideWindow { .. }
        | Fault::Unreadable { .. }
        | Fault::Stale { .. } => None,
    })
}

#[test]
fn a_restored_snapshot_is_noticed_before_it_does_harm() {
    let mut pair = Pair::new(&Config::default());
    pair.connect();
    for _ in 0..3 {
        pair.submit(Side::Agent);
    }
    pair.settle(false);
    let (snapshot, epoch) = (pair.agent.disk.clone(), pair.agent.epoch);
    pair.restart(Side::Agent);
    for _ in 0..4 {
        pair.submit(Side::Agent);
    }
    pair.settle(false);
    pair.agent.disk = snapshot;
    pair.agent.epoch = epoch;
    pair.restart(Side::Agent);
    pair.submit(Side::Agent);
    pair.settle_some(50);
    assert!(
        matches!(frozen(&pair.agent), Some(Freeze::RolledBack { .. } | Freeze::Superseded { .. })),
        "{}",
        pair.describe()
    );
    assert_eq!(pair.server.taken.len(), 7, "nothing of the second history took effect");
}

#[test]
fn a_peer_that_lost_part_of_its_journal_is_noticed() {
    let mut pair = Pair::new(&Config::default());
    pair.connect();
    for _ in 0..3 {
        pair.submit(Side::Server);
    }
    pair.settle(false);
    let snapshot = pair.agent.disk.clone();
    for _ in 0..2 {
        pair.submit(Side::Server);
    }
    pair.settle(false);
    pair.agent.disk = snapshot;
    pair.restart(Side::Agent);
    pair.submit(Side::Server);
    pair.settle_some(50);
    let lost = Freeze::PeerLostPart { received: Some(seq(5)), found: Some(seq(3)) };
    assert_eq!(frozen(&pair.server), Some(lost), "{}", pair.describe());
}

#[test]
fn a_stream_with_two_histories_is_noticed() {
    let mut pair = Pair::new(&Config::default());
    pair.connect();
    pair.submit(Side::Server);
    pair.settle(false);
    let snapshot = pair.server.disk.clone();
    pair.submit(Side::Server);
    pair.settle(false);
    // The server comes back from an old copy, and numbers another message like one that the agent has.
    pair.server.disk = snapshot;
    pair.server.restart();
    pair.submit(Side::Server);
    pair.connect();
    pair.settle_some(50);
    assert_eq!(frozen(&pair.server), Some(Freeze::Diverged { at: seq(2) }), "{}", pair.describe());
    assert_eq!(pair.agent.taken.len(), 2, "nothing of the second history took effect");
}

#[test]
fn a_reinstalled_agent_is_not_taken_for_the_old_one() {
    let mut pair = Pair::new(&Config::default());
    pair.connect();
    pair.submit(Side::Server);
    pair.submit(Side::Agent);
    pair.settle(false);
    let mut fresh = Pair::new(&Config::default());
    std::mem::swap(&mut pair.agent, &mut fresh.agent);
    pair.agent = End::reinstalled(&fresh.agent);
    pair.input(Side::Agent, Input::Connected);
    // It has nothing to send, so it asks only this once.
    pair.settle_some(2);
    assert!(matches!(frozen(&pair.agent), Some(Freeze::Replaced { .. })), "{}", pair.describe());
    pair.submit(Side::Agent);
    pair.settle_some(50);
    assert!(matches!(frozen(&pair.server), Some(Freeze::PeerReplaced { .. })), "{}", pair.describe());
    assert!(matches!(frozen(&pair.agent), Some(Freeze::Replaced { .. })), "{}", pair.describe());
    assert_eq!(pair.server.taken.len(), 1);
}

#[test]
fn two_processes_of_one_journal_are_noticed() {
    let mut pair = Pair::new(&Config::default());
    pair.connect();
    pair.settle(false);
    let mut clone = End::cloned(&pair.agent);
    pair.submit(Side::Agent);
    pair.settle(false);
    std::mem::swap(&mut pair.agent, &mut clone);
    pair.input(Side::Agent, Input::Connected);
    pair.settle_some(50);
    assert_eq!(frozen(&pair.server), Some(Freeze::Cloned), "{}", pair.describe());
}

/// A frozen peer answers, but takes nothing: what it misses must not be sent to it in a circle.
#[test]
fn a_peer_that_answers_but_takes_nothing_is_sent_the_same_ever_more_seldom() {
    let mut pair = Pair::new(&Config::default());
    pair.connect();
    pair.submit(Side::Server);
    pair.settle(false);
    pair.server = End::cloned(&pair.server);
    pair.submit(Side::Server);
    pair.input(Side::Server, Input::Connected);
    pair.settle_some(2);
    assert!(matches!(pair.agent.faults.as_slice(), [Fault::Frozen { .. }]), "{}", pair.describe());
    pair.settle_some(120);
    assert!((1..=10).contains(&pair.server.resent), "resent {} times", pair.server.resent);
    assert!(pair.agent.statuses.len() < 40, "{} statuses", pair.agent.statuses.len());
}

/// The one question that an agent with nothing to send asks over a new connection may be lost like anything else.
#[test]
fn a_peer_that_lost_what_it_had_is_noticed_although_the_first_question_is_lost() {
    let mut pair = Pair::new(&Config::default());
    pair.connect();
    pair.submit(Side::Agent);
    pair.settle(false);
    let snapshot = pair.server.disk.clone();
    pair.submit(Side::Agent);
    pair.settle(false);
    pair.disconnect();
    pair.server.disk = snapshot;
    pair.server.restart();
    pair.connect();
    assert!(!pair.queues[Side::Server.inbox()].is_empty(), "the agent has asked");
    pair.queues[Side::Server.inbox()].clear();
    pair.settle_some(5);
    let lost = Freeze::PeerLostPart { received: Some(seq(2)), found: Some(seq(1)) };
    assert_eq!(frozen(&pair.agent), Some(lost), "{}", pair.describe());
}

#[test]
fn an_agent_that_was_answered_asks_no_more() {
    let mut pair = Pair::new(&Config::default());
    pair.connect();
    pair.submit(Side::Agent);
    pair.settle(false);
    let before = pair.server.statuses.len();
    pair.settle_some(25);
    // Only heartbeats came since, and those are not answered.
    assert_eq!(pair.server.statuses.len(), before);
}

/// Nobody could know that the old journal's work was done, if not a word of it had been heard.
#[test]
fn nothing_is_published_to_a_journal_of_which_nothing_was_heard() {
    let mut pair = Pair::new(&Config::default());
    pair.connect();
    pair.submit(Side::Server);
    for _ in 0..6 {
        for frame in std::mem::take(&mut pair.queues[Side::Agent.inbox()]) {
            pair.deliver(Side::Agent, &frame);
        }
        // Every word of the agent is lost.
        pair.queues[Side::Server.inbox()].clear();
        let now = pair.now();
        while let Some(write) = pair.agent.application(now, false) {
            pair.commit(Side::Agent, write);
        }
        pair.now += 1_000;
        for side in Side::BOTH {
            pair.input(side, Input::TimedOut);
        }
    }
    let before = pair.agent.taken.len();
    pair.agent = End::reinstalled(&pair.agent);
    pair.input(Side::Agent, Input::Connected);
    pair.settle(false);
    assert_eq!((before, pair.agent.taken.len()), (0, 1), "{}", pair.describe());
}

#[test]
fn a_peer_that_lost_what_it_had_is_noticed_over_a_connection_that_stays() {
    let mut pair = Pair::new(&Config::default());
    pair.connect();
    pair.submit(Side::Agent);
    pair.settle(false);
    let snapshot = pair.server.disk.clone();
    pair.submit(Side::Agent);
    pair.settle(false);
    pair.server.disk = snapshot;
    pair.restart(Side::Server);
    pair.settle_some(5);
    let lost = Freeze::PeerLostPart { received: Some(seq(2)), found: Some(seq(1)) };
    assert_eq!(frozen(&pair.agent), Some(lost), "{}", pair.describe());
}

#[test]
fn two_ends_that_were_both_put_back_to_older_copies_notice_it() {
    let mut pair = Pair::new(&Config::default());
    pair.connect();
    pair.submit(Side::Server);
    pair.submit(Side::Agent);
    pair.settle(false);
    let old = (pair.server.disk.clone(), pair.server.epoch);
    for _ in 0..3 {
        pair.restart(Side::Server);
        pair.settle(false);
    }
    // Each remembers openings of the other that the other no longer knows of.
    let copy = (pair.agent.disk.clone(), pair.agent.epoch);
    (pair.server.disk, pair.server.epoch) = old;
    for _ in 0..3 {
        pair.agent.restart();
    }
    pair.server.restart();
    let heard = std::mem::take(&mut pair.queues);
    assert!(heard.iter().all(|queue| queue.is_empty()));
    pair.input(Side::Agent, Input::Connected);
    let later: Vec<_> = pair.queues[Side::Server.inbox()].drain(..).collect();
    for frame in &later {
        pair.deliver(Side::Server, frame);
    }
    (pair.agent.disk, pair.agent.epoch) = copy;
    pair.agent.restart();
    pair.connect();
    pair.settle_some(20);
    for end in [&pair.server, &pair.agent] {
        assert!(matches!(frozen(end), Some(Freeze::Superseded { .. })), "{}", pair.describe());
    }
}
