//! A server that was put back to an older copy, and what its application had in hand.

use link::session::{Applied, Disposition, Fault, Input, Transaction};

use crate::identity::pair_with;
use crate::pair::Side;
use crate::script::seq;

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
