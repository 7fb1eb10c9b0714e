//! The names under which a journal writes: none is forgotten, and none stays unknown. Both were found by exhaustive search.

use link::session::{Config, Fault, Freeze, Input};

use crate::identity::{frozen, pair_with, superseded};
use crate::pair::{Pair, Side};

/// It wrote in a part of its own from the first place on, so that nothing is left of the name that the copy has.
#[test]
fn the_first_name_of_a_journal_is_not_forgotten_when_a_part_takes_all_its_places() {
    let mut pair = Pair::new(&Config::default());
    pair.connect();
    pair.settle(false);
    pair.restart(Side::Server);
    let copy = pair.server.clone();
    pair.submit(Side::Server);
    pair.settle(false);
    assert_eq!(pair.agent.taken.len(), 1);
    pair.server.restored(&copy);
    pair.restart(Side::Server);
    pair.settle(false);
    assert!(matches!(superseded(&pair.server), Some(Freeze::Replaced { .. })), "{}", pair.describe());
    pair.submit(Side::Server);
    pair.settle(false);
    assert_eq!(pair.agent.taken.len(), 2, "{}", pair.describe());
}

/// A server with nothing to send has no other reason to speak, and its agent resends nothing to a name that it does not know.
#[test]
fn a_restored_server_whose_new_name_was_lost_says_it_again_when_its_agent_speaks_to_the_old_one() {
    let mut pair = pair_with(Side::Agent, 1);
    let copy = pair.server.clone();
    pair.submit(Side::Agent);
    pair.settle(false);
    pair.server.restored(&copy);
    pair.restart(Side::Server);
    for round in 0..20 {
        let side = if round % 2 == 0 { Side::Agent } else { Side::Server };
        pair.input(side, Input::TimedOut);
        for frame in std::mem::take(&mut pair.queues[side.inbox()]) {
            pair.deliver(side, &frame);
        }
        pair.now += 1_000;
        if superseded(&pair.server).is_some() {
            break;
        }
    }
    assert!(superseded(&pair.server).is_some(), "{}", pair.describe());
    pair.queues[Side::Agent.inbox()].clear();
    assert!(!pair.agent.faults.iter().any(|fault| matches!(fault, Fault::PeerSuperseded { .. })));
    pair.settle_some(60);
    let taken_over = |fault: &Fault| matches!(fault, Fault::PeerSuperseded { .. });
    assert!(pair.agent.faults.iter().any(taken_over), "{}", pair.describe());
    assert_eq!(frozen(&pair.server), None);
}
