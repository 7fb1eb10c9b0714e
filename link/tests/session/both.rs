//! Both ends were put back to older copies, and none of what one of them says is believed by the other. Each finds out all the same.

use crate::identity::{pair_with, superseded};
use crate::pair::{Pair, Side};

/// Everything that was lost is found out, and the streams go on.
fn find_each_other(pair: &mut Pair) {
    pair.connect();
    pair.settle_some(20);
    for end in [&pair.server, &pair.agent] {
        assert!(superseded(end).is_some(), "{}", pair.describe());
    }
    let taken = (pair.server.taken.len(), pair.agent.taken.len());
    pair.submit(Side::Server);
    pair.submit(Side::Agent);
    pair.settle(false);
    assert_eq!((pair.server.taken.len(), pair.agent.taken.len()), (taken.0 + 1, taken.1 + 1), "{}", pair.describe());
}

#[test]
fn two_ends_that_have_each_heard_a_lost_process_of_the_other_do_not_wait_for_it() {
    let mut pair = pair_with(Side::Server, 1);
    let (server, agent) = (pair.server.clone(), pair.agent.clone());
    // In each opening a process speaks that is then lost with its journal.
    let words = Side::BOTH.map(|side| {
        pair.restart(side);
        pair.queues[side.outbox()].pop_back().unwrap()
    });
    pair.queues = Default::default();
    pair.server.restored(&server);
    pair.agent.restored(&agent);
    for (side, word) in Side::BOTH.into_iter().zip(words.into_iter().rev()) {
        pair.forget_process(side);
        pair.deliver(side, &word);
    }
    find_each_other(&mut pair);
}

#[test]
fn two_ends_that_have_each_given_the_other_up_hear_it() {
    let mut pair = pair_with(Side::Server, 1);
    let (server, agent) = (pair.server.clone(), pair.agent.clone());
    let mut copies = Vec::new();
    for side in Side::BOTH {
        pair.queues = Default::default();
        (pair.server, pair.agent) = (server.clone(), agent.clone());
        pair.submit(side);
        pair.settle(false);
        let copy = if side == Side::Server { &server } else { &agent };
        pair.end(side).restored(copy);
        pair.restart(side);
        pair.settle(false);
        assert!(superseded(pair.end(side)).is_some(), "{}", pair.describe());
        // The other one keeps its name, and knows the new one.
        copies.push(if side == Side::Server { pair.agent.clone() } else { pair.server.clone() });
    }
    pair.queues = Default::default();
    pair.agent.restored(&copies[0]);
    pair.server.restored(&copies[1]);
    for side in Side::BOTH {
        pair.end(side).faults.clear();
        pair.forget_process(side);
    }
    find_each_other(&mut pair);
}
