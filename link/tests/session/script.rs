//! Scripts: one story each.

use link::session::{Config, Fault, Input, Published, TransactError, Transaction};
use messages::{Envelope, Seq, decode};

use crate::pair::{End, Pair, Side};

pub(crate) fn seq(value: u64) -> Seq {
    Seq::new(value).unwrap()
}

#[test]
fn a_message_goes_from_submitted_to_settled_on_both_sides() {
    let mut pair = Pair::new(&Config::default());
    pair.connect();
    pair.submit(Side::Server);
    pair.settle(true);
    assert_eq!(pair.agent.taken, [(seq(1), b"server-1".to_vec())]);
    assert_eq!(pair.server.taken, [(seq(1), b"web-01-1".to_vec())]);
    for (end, peer) in [(&pair.server, &pair.server.peer), (&pair.agent, &pair.agent.peer)] {
        let streams = &end.session.state().peers[peer];
        assert_eq!(streams.outgoing.received, Some(seq(1)));
        assert_eq!(streams.outgoing.settled, Some(seq(1)));
        assert_eq!(streams.incoming.as_ref().unwrap().settled, Some(seq(1)));
        assert!(streams.work.is_empty());
        assert_eq!(end.disk.sent(peer, seq(1)), None, "the body of a settled message is dropped");
    }
    assert_eq!(pair.server.resent + pair.agent.resent, 0);
}

#[test]
fn held_work_is_not_settled_before_its_answer_has_arrived() {
    let mut pair = Pair::new(&Config::default());
    pair.connect();
    pair.settle(false);
    pair.submit(Side::Server);
    for frame in std::mem::take(&mut pair.queues[Side::Agent.inbox()]) {
        pair.deliver(Side::Agent, &frame);
    }
    let now = pair.now();
    let write = pair.agent.application(now, true).unwrap();
    pair.commit(Side::Agent, write);
    let streams = &pair.agent.session.state().peers[&pair.agent.peer];
    assert_eq!(streams.incoming.as_ref().unwrap().applied, Some(seq(1)));
    assert_eq!(streams.incoming.as_ref().unwrap().settled, None);
    let write = pair.agent.application(now, true).unwrap();
    pair.commit(Side::Agent, write);
    let streams = &pair.agent.session.state().peers[&pair.agent.peer];
    assert_eq!(streams.incoming.as_ref().unwrap().settled, None, "answered, but the server may not have it");
    pair.now += 1_000;
    pair.input(Side::Agent, Input::TimedOut);
    let status = pair.queues[Side::Server.inbox()].pop_back().unwrap();
    pair.deliver(Side::Server, &status);
    let streams = &pair.server.session.state().peers[&pair.server.peer];
    assert_eq!((streams.outgoing.received, streams.outgoing.settled), (Some(seq(1)), None));
    assert!(pair.server.disk.sent(&pair.server.peer, seq(1)).is_some(), "received is not settled: the body is kept");
    pair.settle(true);
    let streams = &pair.agent.session.state().peers[&pair.agent.peer];
    assert_eq!(streams.incoming.as_ref().unwrap().settled, Some(seq(1)));
}

/// Two answers are given, and the peer says that it has the first one: that says nothing of the second.
#[test]
fn an_answer_that_arrived_does_not_settle_the_work_of_one_that_did_not() {
    let mut pair = Pair::new(&Config::default());
    pair.connect();
    pair.settle(false);
    pair.submit(Side::Server);
    pair.submit(Side::Server);
    for frame in std::mem::take(&mut pair.queues[Side::Agent.inbox()]) {
        pair.deliver(Side::Agent, &frame);
    }
    let now = pair.now();
    // Both are taken, then both are answered.
    for _ in 0..4 {
        let write = pair.agent.application(now, true).unwrap();
        pair.commit(Side::Agent, write);
    }
    let answers: Vec<_> = pair.queues[Side::Server.inbox()].drain(..).filter(is_message).collect();
    assert_eq!(answers.len(), 2);
    pair.deliver(Side::Server, &answers[0]);
    pair.now += 1_000;
    pair.input(Side::Server, Input::TimedOut);
    for frame in std::mem::take(&mut pair.queues[Side::Agent.inbox()]) {
        pair.deliver(Side::Agent, &frame);
    }
    let streams = &pair.agent.session.state().peers[&pair.agent.peer];
    assert_eq!(streams.outgoing.received, Some(seq(1)));
    assert_eq!(streams.incoming.as_ref().unwrap().settled, Some(seq(1)), "the second answer was lost");
    assert_eq!(streams.work.keys().copied().collect::<Vec<_>>(), [seq(2)]);
    assert!(pair.agent.disk.received(&pair.agent.peer, seq(2)).is_some(), "it is kept as long as it is open");
    pair.settle(true);
    assert!(pair.agent.session.state().peers[&pair.agent.peer].work.is_empty());
    assert_eq!(pair.server.taken.len(), 2);
}

pub(crate) fn is_message(frame: &messages::Frame) -> bool {
    matches!(decode(frame.bytes().to_vec()).unwrap(), Envelope::Message(_))
}

#[test]
fn any_message_redelivered_any_number_of_times_takes_effect_once() {
    let mut pair = Pair::new(&Config::default());
    pair.connect();
    pair.settle(false);
    for _ in 0..20 {
        pair.submit(Side::Server);
    }
    let all: Vec<_> = pair.queues[Side::Agent.inbox()].iter().cloned().collect();
    pair.settle(false);
    let after = pair.agent.session.state().clone();
    // Long after everything was settled, and after a restart, the whole stream comes again, backwards too.
    pair.now += 365 * 24 * 3_600_000;
    pair.agent.restart();
    pair.input(Side::Agent, Input::Connected);
    for frame in all.iter().chain(all.iter().rev()) {
        pair.deliver(Side::Agent, frame);
    }
    pair.settle(false);
    assert_eq!(pair.agent.taken.len(), 20);
    assert_eq!(pair.agent.session.state().peers[&pair.agent.peer].work, after.peers[&pair.agent.peer].work);
    assert!(pair.agent.session.view(&pair.agent.peer, link::session::Millis(0)).unwrap().duplicates >= 40);
}

/// P3: reconciling costs what was lost, not what was sent.
#[test]
fn one_hundred_thousand_messages_with_three_gaps_cost_one_exchange_and_three_messages() {
    let config = Config { window: 1 << 20, status_every: u32::MAX, ..Config::default() };
    let mut pair = Pair::new(&config);
    pair.connect();
    pair.settle(false);
    for _ in 0..100_000 {
        pair.submit(Side::Server);
    }
    let lost = [5_000, 50_000, 99_999];
    let inbox = Side::Agent.inbox();
    for (index, frame) in std::mem::take(&mut pair.queues[inbox]).into_iter().enumerate() {
        if !lost.contains(&(index + 1)) {
            pair.deliver(Side::Agent, &frame);
        }
    }
    pair.disconnect();
    pair.queues[Side::Server.inbox()].clear();
    let (server_said, agent_said) = (pair.server.statuses.len(), pair.agent.statuses.len());

    pair.input(Side::Server, Input::Connected);
    assert_eq!(pair.server.statuses.len(), server_said + 1, "one probe");
    let probe = pair.queues[inbox].pop_back().unwrap();
    assert!(pair.queues[inbox].is_empty(), "nothing is resent blindly");
    pair.agent.session.handle(pair.now(), Input::Connected).committed_elsewhere();
    pair.deliver(Side::Agent, &probe);
    pair.input(Side::Agent, Input::TimedOut);
    assert_eq!(pair.agent.statuses.len(), agent_said + 1, "one answer");
    let answer = pair.queues[Side::Server.inbox()].pop_back().unwrap();
    assert!(probe.bytes().len() + answer.bytes().len() < 2_048, "{} bytes", probe.bytes().len() + answer.bytes().len());

    pair.published[Side::Server.outbox()].clear();
    pair.deliver(Side::Server, &answer);
    let resent: Vec<_> = pair.published[Side::Server.outbox()]
        .iter()
        .filter(|what| !matches!(what, Published::Status))
        .copied()
        .collect();
    assert_eq!(resent, lost.map(|lost| Published::Resent(seq(lost as u64))));
    pair.settle(false);
    assert_eq!(pair.agent.taken.len(), 100_000);
    assert_eq!(pair.server.resent, 3);
}

#[test]
fn a_wiped_broker_costs_exactly_what_was_in_it() {
    let mut pair = Pair::new(&Config::default());
    pair.connect();
    for _ in 0..50 {
        pair.submit(Side::Server);
    }
    pair.settle(false);
    for _ in 0..7 {
        pair.submit(Side::Server);
    }
    pair.disconnect();
    pair.queues.iter_mut().for_each(std::collections::VecDeque::clear);
    for _ in 0..5 {
        pair.submit(Side::Server);
    }
    pair.connect();
    pair.settle(false);
    assert_eq!(pair.agent.taken.len(), 62);
    assert_eq!(pair.server.resent, 7, "what was journaled during the outage was never sent before");
}

#[test]
fn a_silent_purge_is_found_without_a_disconnect() {
    let mut pair = Pair::new(&Config::default());
    pair.connect();
    pair.settle(false);
    for _ in 0..9 {
        pair.submit(Side::Agent);
    }
    pair.queues[Side::Server.inbox()].clear();
    pair.settle(false);
    assert_eq!(pair.server.taken.len(), 9);
    assert_eq!(pair.agent.resent, 9);
}

#[test]
fn a_backlog_that_still_sits_in_the_broker_is_not_sent_again() {
    let mut pair = Pair::new(&Config::default());
    pair.connect();
    pair.settle(false);
    for _ in 0..100 {
        pair.submit(Side::Server);
    }
    // Both ends die and come back while the broker keeps the queue.
    pair.restart(Side::Server);
    pair.restart(Side::Agent);
    pair.settle(false);
    assert_eq!(pair.agent.taken.len(), 100);
    assert_eq!(pair.server.resent, 0);
}

/// An agent that did not take messages yet has turned these away; the broker delivers them again, since it was not told.
#[test]
fn an_answer_owed_over_a_lost_connection_is_not_given_over_the_next_one() {
    let mut pair = Pair::new(&Config::default());
    pair.connect();
    pair.settle(false);
    pair.submit(Side::Server);
    pair.submit(Side::Server);
    pair.now = pair.server.session.next_timeout().unwrap().0;
    pair.input(Side::Server, Input::TimedOut);
    let inbox = Side::Agent.inbox();
    let probe = pair.queues[inbox].back().cloned().unwrap();
    assert!(!is_message(&probe));
    pair.deliver(Side::Agent, &probe);
    pair.input(Side::Agent, Input::Disconnected);
    pair.input(Side::Agent, Input::Connected);
    for said in std::mem::take(&mut pair.queues[Side::Server.inbox()]) {
        pair.deliver(Side::Server, &said);
    }
    pair.settle(false);
    assert_eq!(pair.agent.taken.len(), 2);
    assert_eq!(pair.server.resent, 0);
}

#[test]
fn the_window_bounds_what_is_under_way() {
    let config = Config { window: 10, ..Config::default() };
    let mut pair = Pair::new(&config);
    pair.connect();
    pair.settle(false);
    for _ in 0..100 {
        pair.submit(Side::Server);
    }
    let under_way = pair.queues[Side::Agent.inbox()].iter().filter(|frame| is_message(frame)).count();
    assert_eq!(under_way, 10);
    pair.settle(false);
    assert_eq!(pair.agent.taken.len(), 100);
    assert_eq!(pair.server.resent, 0);
}

#[test]
fn probes_to_a_peer_that_is_away_grow_rare() {
    let mut pair = Pair::new(&Config::default());
    pair.input(Side::Server, Input::Connected);
    pair.submit(Side::Server);
    let mut probes = 0;
    let day = pair.now + 24 * 3_600_000;
    while let Some(due) = pair.server.session.next_timeout().filter(|due| due.0 < day) {
        pair.now = due.0;
        pair.input(Side::Server, Input::TimedOut);
        probes += 1;
    }
    assert!((1_000..2_000).contains(&probes), "{probes} in a day");
    pair.input(Side::Agent, Input::Connected);
    pair.settle(false);
    assert_eq!(pair.agent.taken.len(), 1);
    // All those probes are answered together, not one by one.
    assert!(pair.agent.statuses.len() < 20, "{}", pair.agent.statuses.len());
}

#[test]
fn a_full_outbox_refuses_new_work_and_still_takes_outcomes() {
    let config = Config { outbox_max: 3, ..Config::default() };
    let mut pair = Pair::new(&config);
    for _ in 0..3 {
        pair.submit(Side::Server);
    }
    let now = pair.now();
    let before = pair.server.session.clone();
    let send = vec![pair.server.outbound(None)];
    let refused = pair.server.session.transact(now, Transaction { send, admission: true, ..Transaction::default() });
    assert!(matches!(refused, Err(TransactError::OutboxFull { waiting: 3, .. })));
    assert_eq!(pair.server.session, before, "a refused transaction changes nothing");
    pair.submit(Side::Server);
}

#[test]
fn a_smaller_window_of_the_peer_is_kept_to() {
    let mut pair = Pair::new(&Config::default());
    pair.agent = End::new("web-01", "server", Config { window: 3, ..Config::default() });
    pair.connect();
    pair.settle(false);
    for _ in 0..50 {
        pair.submit(Side::Server);
    }
    let under_way = pair.queues[Side::Agent.inbox()].iter().filter(|frame| is_message(frame)).count();
    assert_eq!(under_way, 3);
    pair.settle(false);
    assert_eq!(pair.agent.taken.len(), 50);
}

/// A process that keeps less in order than the one before it turns away what lies too far ahead; it is sent again later.
#[test]
fn what_lies_beyond_the_own_window_is_turned_away_and_comes_again() {
    let mut pair = Pair::new(&Config::default());
    pair.connect();
    pair.settle(false);
    for _ in 0..6 {
        pair.submit(Side::Server);
    }
    let frames: Vec<_> = pair.queues[Side::Agent.inbox()].drain(..).filter(is_message).collect();
    pair.agent.config.window = 3;
    pair.restart(Side::Agent);
    for place in [4, 3] {
        pair.deliver(Side::Agent, &frames[place - 1]);
    }
    let peer = pair.agent.peer.clone();
    assert!(pair.agent.disk.received(&peer, seq(3)).is_some(), "the last place of the window");
    assert!(pair.agent.disk.received(&peer, seq(4)).is_none(), "the first one beyond it");
    let outside = |fault: &Fault| matches!(fault, Fault::OutsideWindow { seq: at, .. } if *at == seq(4));
    assert!(pair.agent.faults.iter().any(outside), "{}", pair.describe());
    pair.settle(false);
    assert_eq!(pair.agent.taken.len(), 6);
}
