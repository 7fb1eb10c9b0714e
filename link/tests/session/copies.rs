//! Two copies of a machine that both lived, and what each of them wrote.

use link::session::{Freeze, Input};

use crate::identity::{frozen, pair_with, superseded};
use crate::pair::{End, Side};
use crate::script::{is_message, seq};

/// Both were heard, one after the other, so both went on in the same part of the stream. Under another name, what only the first one
/// has would lie where the peer has something else, and count as received.
#[test]
fn what_two_copies_wrote_in_the_same_place_is_not_taken_for_one_message() {
    let mut pair = pair_with(Side::Agent, 1);
    let mut first = pair.agent.clone();
    pair.restart(Side::Agent);
    pair.settle(false);
    pair.agent.mark_bodies(" of the copy");
    pair.submit(Side::Agent);
    pair.settle(false);
    assert_eq!(pair.server.taken.len(), 2);
    first.nonces += 5;
    pair.agent = first;
    pair.submit(Side::Agent);
    pair.queues = Default::default();
    pair.restart(Side::Agent);
    pair.settle_some(5);
    assert_eq!(frozen(&pair.agent), Some(Freeze::Diverged { at: seq(2) }), "{}", pair.describe());
    assert_eq!(superseded(&pair.agent), None);
    let peer = &pair.agent.peer;
    assert_eq!(pair.agent.session.state().peers[peer].outgoing.received, Some(seq(1)));
    assert!(pair.agent.disk.sent(peer, seq(2)).is_some(), "it is kept");
}

/// Whichever comes first, the other one does not fit it: a message is held against what lies behind it, too.
#[test]
fn a_message_that_does_not_fit_the_one_behind_it_stops_the_stream() {
    let mut pair = pair_with(Side::Server, 1);
    let original = pair.server.clone();
    pair.server.mark_bodies(" of the copy");
    pair.submit(Side::Server);
    let other = pair.queues[Side::Agent.inbox()].drain(..).find(is_message).unwrap();
    pair.server = original;
    pair.submit(Side::Server);
    pair.submit(Side::Server);
    let frames: Vec<_> = pair.queues[Side::Agent.inbox()].drain(..).filter(is_message).collect();
    pair.deliver(Side::Agent, &frames[1]);
    assert_eq!(frozen(&pair.agent), None, "a gap is no contradiction");
    pair.deliver(Side::Agent, &other);
    assert_eq!(frozen(&pair.agent), Some(Freeze::Diverged { at: seq(2) }), "{}", pair.describe());
    assert!(pair.agent.disk.received(&pair.agent.peer, seq(2)).is_none(), "it is not taken");
}

/// Of two processes that were heard, the first may be long gone, and what it had said still come.
#[test]
fn a_kept_word_of_a_process_that_is_gone_does_not_stop_the_streams_of_its_copy() {
    let mut pair = pair_with(Side::Agent, 1);
    let kept = pair.archive[Side::Server.inbox()].iter().rev().find(|frame| !is_message(frame)).cloned().unwrap();
    pair.agent = End::cloned(&pair.agent);
    pair.input(Side::Agent, Input::Connected);
    for frame in std::mem::take(&mut pair.queues[Side::Server.inbox()]) {
        pair.deliver(Side::Server, &frame);
    }
    pair.deliver(Side::Server, &kept);
    assert_eq!(frozen(&pair.server), None, "{}", pair.describe());
    pair.settle_some(20);
    assert_eq!((frozen(&pair.server), frozen(&pair.agent)), (None, None), "{}", pair.describe());
    pair.submit(Side::Server);
    pair.settle(false);
    assert_eq!(pair.agent.taken.len(), 1, "{}", pair.describe());
}
