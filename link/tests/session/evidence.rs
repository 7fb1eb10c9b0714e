//! What a session does not believe before there is evidence: words of others, old words, and answers that lack something. Nothing here
//! depends on what a broker does to them.

use link::session::{Config, Fault, Input};
use messages::{Envelope, Frame, Ranges, Seq, decode};

use crate::identity::{bodies, doubted, frozen, pair_with, superseded};
use crate::pair::{End, Pair, Side};
use crate::script::{is_message, seq};

/// The newest status that a side has published.
fn last_word(pair: &Pair, side: Side) -> Frame {
    pair.archive[side.outbox()].iter().rev().find(|frame| !is_message(frame)).cloned().unwrap()
}

fn deliver_all(pair: &mut Pair, side: Side) {
    for frame in std::mem::take(&mut pair.queues[side.inbox()]) {
        pair.deliver(side, &frame);
    }
}

/// Its first word may be one that the broker kept from a journal that is gone; only a living one can answer.
#[test]
fn another_journal_is_taken_for_the_peers_only_when_it_has_answered() {
    let mut pair = pair_with(Side::Agent, 2);
    let before = pair.server.session.state().clone();
    pair.agent = End::reinstalled(&pair.agent);
    let found = pair.agent.incarnation;
    pair.input(Side::Agent, Input::Connected);
    deliver_all(&mut pair, Side::Server);
    assert_eq!(pair.server.session.state(), &before, "nobody has asked it yet");
    let unproven = |fault: &Fault| matches!(fault, Fault::Unproven { found: who, .. } if *who == found);
    assert!(pair.server.faults.iter().any(unproven), "{}", pair.describe());
    pair.input(Side::Server, Input::TimedOut);
    pair.settle(false);
    let streams = &pair.server.session.state().peers[&pair.server.peer];
    assert_eq!(streams.incoming.as_ref().unwrap().incarnation, found, "{}", pair.describe());
}

/// The journal that was lost may have done it, and only a status that speaks to the new one says what that one had settled.
#[test]
fn a_new_journal_takes_no_message_before_the_peer_has_spoken_to_it() {
    let mut pair = pair_with(Side::Server, 2);
    let said = last_word(&pair, Side::Server);
    pair.submit(Side::Server);
    let waiting: Vec<_> = pair.queues[Side::Agent.inbox()].drain(..).filter(is_message).collect();
    assert_eq!(waiting.len(), 1);
    pair.agent = End::reinstalled(&pair.agent);
    pair.input(Side::Agent, Input::Connected);
    // What the server had said to the lost journal was kept, too.
    pair.deliver(Side::Agent, &said);
    pair.deliver(Side::Agent, &waiting[0]);
    assert!(pair.agent.disk.received(&pair.agent.peer, seq(3)).is_none(), "{}", pair.describe());
    let outside = |fault: &Fault| matches!(fault, Fault::OutsideWindow { seq: at, .. } if *at == seq(3));
    assert!(pair.agent.faults.iter().any(outside), "{}", pair.describe());
    pair.settle(false);
    assert_eq!((bodies(&pair.agent), doubted(&pair.agent)), (vec!["server-3".to_owned()], vec!["server-3".to_owned()]));
}

/// A peer that has lost what it had finds that out itself. Until it says under which name it goes on, nothing is concluded.
#[test]
fn an_answer_that_lacks_what_the_peer_had_before_it_was_asked_is_not_believed() {
    let mut pair = pair_with(Side::Agent, 2);
    pair.submit(Side::Agent);
    pair.now = pair.agent.session.next_timeout().unwrap().0;
    pair.input(Side::Agent, Input::TimedOut);
    pair.queues[Side::Server.inbox()].retain(|frame| !is_message(frame));
    deliver_all(&mut pair, Side::Server);
    pair.input(Side::Server, Input::TimedOut);
    let answer = pair.queues[Side::Agent.inbox()].pop_back().unwrap();
    let Envelope::Status(mut status) = decode(answer.bytes().to_vec()).unwrap() else { panic!("a status was due") };
    assert!(status.answers.is_some());
    let report = status.receiving.as_mut().unwrap();
    assert_eq!(report.through, Some(seq(2)));
    (report.through, report.settled_through) = (Some(seq(1)), Some(seq(1)));
    (report.ranges, report.unanchored) = (Ranges::default(), true);
    let before = pair.agent.session.state().clone();
    pair.deliver(Side::Agent, &Frame::status(&status).unwrap());
    let behind = |fault: &Fault| matches!(fault, Fault::PeerBehind { received, found, .. } if (*received, *found) == (Some(seq(2)), Some(seq(1))));
    assert!(pair.agent.faults.iter().any(behind), "{}", pair.describe());
    assert_eq!(pair.agent.session.state(), &before);
    assert_eq!(pair.agent.resent, 0, "nothing is sent to a journal that is about to take another name");
    pair.deliver(Side::Agent, &answer);
    assert_eq!(pair.agent.resent, 1, "from what it really has, it is known what was lost");
    pair.settle(false);
    assert_eq!(pair.server.taken.last(), Some(&(Seq::new(3).unwrap(), b"web-01-3".to_vec())));
}

/// The process that said it is gone, and with it the window that it had.
#[test]
fn a_status_of_an_older_opening_is_not_believed() {
    let mut pair = Pair::new(&Config::default());
    pair.agent = End::new("web-01", "server", Config { window: 3, ..Config::default() });
    pair.connect();
    pair.settle(false);
    let old = last_word(&pair, Side::Agent);
    pair.agent.config = Config::default();
    pair.restart(Side::Agent);
    pair.settle(false);
    pair.deliver(Side::Server, &old);
    assert!(pair.server.faults.iter().any(|fault| matches!(fault, Fault::Stale { .. })), "{}", pair.describe());
    for _ in 0..20 {
        pair.submit(Side::Server);
    }
    let under_way = pair.queues[Side::Agent.inbox()].iter().filter(|frame| is_message(frame)).count();
    assert_eq!(under_way, 20, "not the three that the process before it took");
    pair.settle(false);
    assert_eq!((frozen(&pair.server), superseded(&pair.agent)), (None, None));
}
