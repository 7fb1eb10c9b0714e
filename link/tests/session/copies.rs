//! Two copies of a machine that both lived, and what each of them wrote.

use link::session::Freeze;

use crate::identity::{frozen, pair_with, superseded};
use crate::pair::Side;
use crate::script::seq;

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
