//! Who speaks: old and copied processes, restored and reinstalled journals. Whatever was lost, nothing takes effect twice
//! unseen, nothing that was received is sent away, and the two ends agree again by themselves, unless two copies of a journal run.

use link::session::{Config, Fault, Freeze, Input, ResolveError};
use messages::Nonce;

use crate::pair::{End, Pair, Side};
use crate::script::{is_message, seq};

pub(crate) fn frozen(end: &End) -> Option<Freeze> {
    end.faults
        .iter()
        .find_map(|fault| if let Fault::Frozen { freeze, .. } = fault { Some(freeze.clone()) } else { None })
}

pub(crate) fn superseded(end: &End) -> Option<Freeze> {
    end.faults
        .iter()
        .find_map(|fault| if let Fault::Superseding { behind, .. } = fault { Some(behind.clone()) } else { None })
}

pub(crate) fn bodies(end: &End) -> Vec<String> {
    end.taken.iter().map(|(_, body)| String::from_utf8(body.clone()).unwrap()).collect()
}

pub(crate) fn doubted(end: &End) -> Vec<String> {
    end.doubted.iter().map(|body| String::from_utf8(body.clone()).unwrap()).collect()
}

pub(crate) fn pair_with(side: Side, submitted: usize) -> Pair {
    let mut pair = Pair::new(&Config::default());
    pair.connect();
    pair.settle(false);
    for _ in 0..submitted {
        pair.submit(side);
    }
    pair.settle(false);
    pair
}

/// Row: the peer has more than this journal ever sent.
#[test]
fn a_restored_sender_goes_on_under_another_name_and_loses_nothing() {
    let mut pair = pair_with(Side::Agent, 3);
    let copy = pair.agent.clone();
    for _ in 0..4 {
        pair.submit(Side::Agent);
    }
    pair.settle(false);
    pair.agent.restored(&copy);
    pair.restart(Side::Agent);
    pair.settle(false);
    let reason = superseded(&pair.agent).expect("it was found out");
    assert_eq!(reason, Freeze::RolledBack { sent: Some(seq(3)), received: Some(seq(7)) });
    assert_eq!(pair.server.taken.len(), 7, "what only the server knows of still counts");
    pair.submit(Side::Agent);
    pair.settle(false);
    assert_eq!(pair.server.taken.len(), 8, "{}", pair.describe());
    assert_eq!(pair.agent.resent, 0);
    assert!(pair.converged());
}

/// The same, but it writes before it hears of anybody: what it writes is not taken for what the server has in those places.
#[test]
fn what_a_restored_sender_writes_before_it_knows_is_not_mistaken() {
    let mut pair = pair_with(Side::Agent, 3);
    let copy = pair.agent.clone();
    for _ in 0..4 {
        pair.submit(Side::Agent);
    }
    pair.settle(false);
    pair.agent.restored(&copy);
    pair.forget_process(Side::Agent);
    pair.agent.mark_bodies("second life");
    for _ in 0..4 {
        pair.submit(Side::Agent);
    }
    pair.input(Side::Agent, Input::Connected);
    pair.settle(false);
    let taken = bodies(&pair.server);
    assert_eq!(taken.len(), 11, "{}", pair.describe());
    assert!(taken[7..].iter().all(|body| body.contains("second life")), "{taken:?}");
    assert!(pair.server.faults.iter().any(|fault| matches!(fault, Fault::PeerSuperseded { .. })));
}

/// Rows: the peer lost part of its journal; what is settled is gone for good, what is not is sent again.
#[test]
fn a_restored_receiver_gets_again_what_is_open_and_never_what_is_settled() {
    let mut pair = pair_with(Side::Server, 3);
    let copy = pair.agent.clone();
    for _ in 0..2 {
        pair.submit(Side::Server);
    }
    pair.settle(false);
    // Two more reach the agent, which does them and dies before it can say so to the server.
    for _ in 0..2 {
        pair.submit(Side::Server);
    }
    for frame in std::mem::take(&mut pair.queues[Side::Agent.inbox()]) {
        pair.deliver(Side::Agent, &frame);
    }
    let now = pair.now();
    while let Some(write) = pair.agent.application(now, true) {
        pair.commit(Side::Agent, write);
        if pair.agent.held.len() == 2 {
            break;
        }
    }
    pair.now += 1_000;
    pair.input(Side::Agent, Input::TimedOut);
    for frame in std::mem::take(&mut pair.queues[Side::Server.inbox()]) {
        pair.deliver(Side::Server, &frame);
    }
    pair.agent.restored(&copy);
    pair.restart(Side::Agent);
    pair.settle(false);
    assert!(matches!(superseded(&pair.agent), Some(Freeze::Forgetful { .. })), "{}", pair.describe());
    assert_eq!(bodies(&pair.agent), ["server-1", "server-2", "server-3", "server-6", "server-7"]);
    assert_eq!(doubted(&pair.agent), ["server-6", "server-7"], "its lost self may have done them");
    let hole =
        |fault: &Fault| matches!(fault, Fault::Truncated { from, over, .. } if (*from, *over) == (seq(4), seq(5)));
    assert!(pair.agent.faults.iter().any(hole), "{}", pair.describe());
    pair.submit(Side::Server);
    pair.settle(false);
    assert_eq!(doubted(&pair.agent).len(), 2, "what came later is in no doubt");
    assert_eq!(pair.agent.taken.len(), 6);
}

/// Work that was open in the copy and is over by now is not work any more.
#[test]
fn work_that_was_open_in_the_copy_and_is_settled_since_is_over() {
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
    let copy = pair.agent.clone();
    pair.settle(true);
    assert_eq!(pair.server.taken.len(), 1);
    pair.agent.restored(&copy);
    pair.restart(Side::Agent);
    assert_eq!(pair.agent.held.len(), 1, "as the copy says");
    // It hears of that before the application goes on with it.
    for _ in 0..8 {
        for side in [Side::Agent, Side::Server] {
            pair.input(side, Input::TimedOut);
            for frame in std::mem::take(&mut pair.queues[side.inbox()]) {
                pair.deliver(side, &frame);
            }
        }
        pair.now += 1_000;
    }
    assert!(pair.agent.held.is_empty(), "{}", pair.describe());
    assert!(pair.agent.session.state().peers[&pair.agent.peer].work.is_empty());
    pair.settle(true);
    assert_eq!(pair.server.taken.len(), 1, "it is not answered again");
}

/// Row: the peer knows nothing of me.
#[test]
fn a_reinstalled_agent_gets_what_is_open_marked_and_nothing_that_waited_for_the_old_one() {
    let mut pair = pair_with(Side::Server, 2);
    pair.submit(Side::Agent);
    pair.submit(Side::Server);
    let waiting: Vec<_> = pair.queues[Side::Agent.inbox()].iter().filter(|frame| is_message(frame)).cloned().collect();
    assert_eq!(waiting.len(), 1);
    pair.agent = End::reinstalled(&pair.agent);
    pair.input(Side::Agent, Input::Connected);
    for frame in &waiting {
        pair.deliver(Side::Agent, frame);
    }
    assert!(pair.agent.taken.is_empty(), "nobody has said yet what it may be");
    pair.submit(Side::Agent);
    pair.settle(false);
    assert_eq!((bodies(&pair.agent), doubted(&pair.agent)), (vec!["server-3".to_owned()], vec!["server-3".to_owned()]));
    assert_eq!(pair.server.taken.len(), 2, "one of the old journal, one of the new one");
    assert_eq!((frozen(&pair.server), frozen(&pair.agent)), (None, None));
    pair.restart(Side::Server);
    pair.restart(Side::Agent);
    pair.submit(Side::Server);
    pair.submit(Side::Agent);
    pair.settle(true);
    assert_eq!((pair.agent.taken.len(), pair.agent.doubted.len()), (2, 1), "{}", pair.describe());
}

#[test]
fn a_reinstalled_server_is_taken_over_and_what_its_agent_holds_goes_on() {
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
    pair.server = End::reinstalled(&pair.server);
    pair.submit(Side::Server);
    pair.input(Side::Server, Input::Connected);
    pair.settle(true);
    assert_eq!(pair.server.taken.len(), 2, "the answer to what its lost self had asked, too: {}", pair.describe());
    assert_eq!(pair.agent.taken.len(), 2);
    let places: Vec<u64> = pair.agent.taken.iter().map(|(place, _)| place.value()).collect();
    assert_eq!(places, [1, 1_000_000_000_001], "no place is used twice");
}

/// Row: a superseding incarnation, many times over, with restarts and both sides.
#[test]
fn journals_that_are_restored_again_and_again_never_repeat_and_never_lose() {
    let mut pair = pair_with(Side::Agent, 1);
    for round in 0..30 {
        let side = if round % 3 == 0 { Side::Server } else { Side::Agent };
        let copy = pair.end(side).clone();
        for _ in 0..round % 4 {
            pair.submit(Side::Agent);
            pair.submit(Side::Server);
        }
        pair.settle(round % 2 == 0);
        let others = pair.end(if side == Side::Server { Side::Agent } else { Side::Server }).taken.len();
        pair.end(side).restored(&copy);
        pair.restart(side);
        if round % 5 == 0 {
            pair.restart(Side::Server);
            pair.restart(Side::Agent);
        }
        pair.settle(false);
        let other = pair.end(if side == Side::Server { Side::Agent } else { Side::Server });
        assert!(other.taken.len() >= others, "round {round}");
        assert!(other.taken.windows(2).all(|two| two[0].0 < two[1].0), "round {round}");
        assert_eq!(other.disk.fold(), *other.session.state());
        pair.submit(side);
        let before = pair.end(if side == Side::Server { Side::Agent } else { Side::Server }).taken.len();
        pair.settle(false);
        let after = pair.end(if side == Side::Server { Side::Agent } else { Side::Server }).taken.len();
        assert!(after > before, "round {round}: {}", pair.describe());
    }
}

/// Row: two nonces alternate.
#[test]
fn two_living_copies_of_a_journal_stop_the_streams_until_a_person_decides() {
    let mut pair = pair_with(Side::Agent, 1);
    let mut copy = End::cloned(&pair.agent);
    // Both speak and both hear: whatever reaches one of them is answered by it.
    for round in 0..40 {
        std::mem::swap(&mut pair.agent, &mut copy);
        if round == 0 {
            pair.input(Side::Agent, Input::Connected);
            // The first word of the copy is heard, and the question that follows reaches the original.
            for frame in std::mem::take(&mut pair.queues[Side::Server.inbox()]) {
                pair.deliver(Side::Server, &frame);
            }
            std::mem::swap(&mut pair.agent, &mut copy);
        }
        pair.settle_some(1);
        if frozen(&pair.server).is_some() {
            break;
        }
    }
    assert_eq!(frozen(&pair.server), Some(Freeze::Cloned), "{}", pair.describe());
    pair.submit(Side::Server);
    pair.settle_some(5);
    assert_eq!(pair.agent.taken.len() + copy.taken.len(), 0, "nothing is handed to either");
    // A person decides that this one is it; the other is switched off.
    let (now, peer) = (pair.now(), pair.server.peer.clone());
    let write = pair.server.session.resolve(now, &peer, Nonce::new(4_711)).expect("the streams are stopped");
    pair.server.faults.clear();
    pair.agent.faults.clear();
    pair.commit(Side::Server, write);
    pair.settle(false);
    assert_eq!(pair.agent.taken.len(), 1, "{}", pair.describe());
}

/// A process that the peer has heard is no old copy: if the peer knows more, a second one is running.
#[test]
fn a_process_that_was_heard_stops_when_another_one_has_taken_its_place() {
    let mut pair = pair_with(Side::Agent, 1);
    let mut paused = pair.agent.clone();
    pair.restart(Side::Agent);
    pair.submit(Side::Agent);
    pair.settle(false);
    std::mem::swap(&mut pair.agent, &mut paused);
    pair.input(Side::Agent, Input::Connected);
    pair.settle_some(5);
    assert!(frozen(&pair.agent).is_some(), "{}", pair.describe());
    assert_eq!(superseded(&pair.agent), None);
    assert_eq!(frozen(&pair.server), None, "the newer process is not disturbed");
    assert_eq!(pair.server.taken.len(), 2);
}

/// What an old journal said long ago and the broker kept is not taken for a new journal.
#[test]
fn words_of_a_journal_that_is_gone_do_not_bring_it_back() {
    let mut pair = pair_with(Side::Agent, 2);
    let old = pair.archive[Side::Server.inbox()].clone();
    pair.agent = End::reinstalled(&pair.agent);
    pair.input(Side::Agent, Input::Connected);
    pair.submit(Side::Agent);
    pair.settle(false);
    let before = pair.server.session.state().clone();
    for frame in &old {
        pair.deliver(Side::Server, frame);
    }
    assert_eq!(pair.server.session.state(), &before);
    // Nor to a server that never knew it.
    pair.server = End::reinstalled(&pair.server);
    pair.input(Side::Server, Input::Connected);
    for frame in &old {
        pair.deliver(Side::Server, frame);
    }
    pair.submit(Side::Agent);
    pair.settle(false);
    assert_eq!(frozen(&pair.server), None, "{}", pair.describe());
}

/// A frozen peer answers, but takes nothing: what it misses must not be sent to it in a circle.
#[test]
fn a_peer_that_answers_but_takes_nothing_is_sent_the_same_ever_more_seldom() {
    let mut pair = pair_with(Side::Server, 1);
    pair.agent.freeze();
    pair.submit(Side::Server);
    pair.settle_some(120);
    assert!((1..=10).contains(&pair.server.resent), "resent {} times", pair.server.resent);
    assert!(pair.agent.statuses.len() < 60, "{} statuses", pair.agent.statuses.len());
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
    assert!(matches!(superseded(&pair.server), Some(Freeze::Forgetful { .. })), "{}", pair.describe());
    pair.submit(Side::Agent);
    pair.settle(false);
    assert_eq!(pair.server.taken.len(), 2, "what was settled is gone, and declared; what comes later arrives");
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
fn nothing_is_published_before_the_peer_has_heard_this_process() {
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
    assert!(matches!(superseded(&pair.server), Some(Freeze::Forgetful { .. })), "{}", pair.describe());
    pair.submit(Side::Agent);
    pair.settle(false);
    assert_eq!(pair.server.taken.len(), 2, "what was settled is gone, and declared; what comes later arrives");
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
        assert!(superseded(end).is_some(), "{}", pair.describe());
    }
    pair.submit(Side::Server);
    pair.submit(Side::Agent);
    pair.settle(false);
}

/// Row: the chain differs.
#[test]
fn a_stream_with_two_histories_is_stopped_and_no_decision_hides_it() {
    let mut pair = pair_with(Side::Server, 1);
    pair.agent.freeze();
    let (now, peer) = (pair.now(), pair.agent.peer.clone());
    let refused = pair.agent.session.resolve(now, &peer, Nonce::new(1)).map(drop);
    assert_eq!(refused, Err(ResolveError::Diverged { peer: peer.clone(), at: seq(2) }));
    let refused = pair.server.session.resolve(now, &pair.server.peer.clone(), Nonce::new(1)).map(drop);
    assert_eq!(refused, Err(ResolveError::NotStopped { peer: pair.server.peer.clone() }));
    pair.submit(Side::Server);
    pair.settle_some(5);
    assert_eq!(pair.agent.taken.len(), 1, "nothing more is taken");
    // Putting one of the two journals aside is what helps.
    pair.agent = End::reinstalled(&pair.agent);
    pair.input(Side::Agent, Input::Connected);
    pair.settle(false);
    assert_eq!((bodies(&pair.agent), doubted(&pair.agent).len()), (vec!["server-2".to_owned()], 1));
}
