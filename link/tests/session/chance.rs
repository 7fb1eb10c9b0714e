//! Chance: random losses, repetitions, reorderings, disconnections, wipes and crashes at every point of a commit; then the
//! faults stop and everything must converge, with every message taken exactly once and in order.

use journal::WriteAhead;
use link::session::{Config, Effects, Fault, Input};
use messages::Presence;
use proptest::prelude::*;

use crate::pair::{Pair, Side};

#[derive(Debug, Clone)]
enum Act {
    Submit(Side, u8),
    Deliver(Side),
    DeliverAgain(Side, u8),
    Swap(Side, u8),
    Lose(Side, u8),
    Wipe,
    Application(Side),
    Pass(u16),
    Disconnect,
    Connect,
    Crash(Side),
    /// Dies after the commit of what the application does, before any effect.
    CrashAfterCommit(Side),
    /// Dies before the commit.
    CrashBeforeCommit(Side),
    /// The oldest read of a journal comes back, with at most that many messages.
    Load(Side, u8),
    /// Something of the past arrives again.
    Past(Side, u16),
    /// The whole past arrives again.
    WholePast(Side),
    /// The broker refused something.
    Trouble(Side),
    /// Word of a connection comes twice.
    ConnectAgain(Side),
    /// What an end says of itself changes.
    Present(Side, u16),
    /// Starts again with another window.
    Window(Side, u32),
}

fn side() -> impl Strategy<Value = Side> {
    prop_oneof![Just(Side::Server), Just(Side::Agent)]
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => (side(), 1_u8..6).prop_map(|(side, count)| Act::Submit(side, count)),
        8 => side().prop_map(Act::Deliver),
        2 => (side(), any::<u8>()).prop_map(|(side, at)| Act::DeliverAgain(side, at)),
        2 => (side(), any::<u8>()).prop_map(|(side, at)| Act::Swap(side, at)),
        2 => (side(), any::<u8>()).prop_map(|(side, at)| Act::Lose(side, at)),
        1 => Just(Act::Wipe),
        6 => side().prop_map(Act::Application),
        4 => (1_u16..3_000).prop_map(Act::Pass),
        1 => Just(Act::Disconnect),
        2 => Just(Act::Connect),
        1 => side().prop_map(Act::Crash),
        1 => side().prop_map(Act::CrashAfterCommit),
        1 => side().prop_map(Act::CrashBeforeCommit),
        5 => (side(), 1_u8..9).prop_map(|(side, most)| Act::Load(side, most)),
        2 => (side(), any::<u16>()).prop_map(|(side, at)| Act::Past(side, at)),
        1 => side().prop_map(Act::WholePast),
        1 => side().prop_map(Act::Trouble),
        1 => side().prop_map(Act::ConnectAgain),
        1 => (side(), 0_u16..4).prop_map(|(side, free)| Act::Present(side, free)),
        1 => (side(), prop_oneof![Just(2_u32), Just(16), Just(4_096)]).prop_map(|(side, window)| Act::Window(side, window)),
    ]
}

struct World {
    pair: Pair,
    submitted: [u64; 2],
    connected: bool,
    disturbed: bool,
    lost: u64,
}

impl World {
    fn new(window: u32) -> Self {
        let config = Config { window, history: 3, ..Config::default() };
        let mut pair = Pair::new(&config);
        pair.loads_wait = true;
        pair.connect();
        // Both have heard of each other; what comes before that is not taken, and its repetition is no reconciliation.
        pair.settle(false);
        Self { pair, submitted: [0; 2], connected: true, disturbed: false, lost: 0 }
    }

    fn crash(&mut self, side: Side) {
        self.disturbed = true;
        self.pair.forget_process(side);
        if self.connected {
            self.pair.input(side, Input::Connected);
        }
    }

    fn act(&mut self, act: Act) {
        match act {
            Act::Submit(side, count) => {
                for _ in 0..count {
                    self.pair.submit(side);
                    self.submitted[side.inbox()] += 1;
                }
            }
            Act::Application(side) => {
                if let Some(write) = self.application(side) {
                    self.pair.commit(side, write);
                }
            }
            Act::Pass(milliseconds) => {
                self.pair.now += u64::from(milliseconds);
                for side in Side::BOTH {
                    self.pair.input(side, Input::TimedOut);
                }
            }
            Act::Disconnect => {
                self.connected = false;
                self.pair.disconnect();
            }
            Act::Connect if !self.connected => {
                self.connected = true;
                self.pair.connect();
            }
            Act::Deliver(side) if self.connected => {
                if let Some(frame) = self.pair.queues[side.inbox()].pop_front() {
                    self.pair.deliver(side, &frame);
                }
            }
            Act::DeliverAgain(side, at) if self.connected => self.deliver_again(side, usize::from(at)),
            Act::Swap(side, at) => self.swap(side, usize::from(at)),
            Act::Lose(side, at) => {
                let queue = &mut self.pair.queues[side.inbox()];
                let length = queue.len().max(1);
                if let Some(frame) = queue.remove(usize::from(at) % length) {
                    self.lost += u64::from(frame.bytes()[1] == 1);
                }
            }
            Act::Wipe => {
                for queue in &mut self.pair.queues {
                    self.lost += queue.iter().filter(|frame| frame.bytes()[1] == 1).count() as u64;
                    queue.clear();
                }
            }
            Act::Crash(side) => self.crash(side),
            Act::CrashAfterCommit(side) if self.connected => {
                if let Some(write) = self.application(side) {
                    self.disturbed = true;
                    self.pair.commit_and_die(side, write);
                }
            }
            Act::CrashBeforeCommit(side) => {
                let _never_written = self.application(side);
                self.crash(side);
            }
            act @ (Act::Load(..)
            | Act::Past(..)
            | Act::WholePast(_)
            | Act::Trouble(_)
            | Act::ConnectAgain(_)
            | Act::Present(..)
            | Act::Window(..)) => self.unusual(act),
            Act::Deliver(_) | Act::DeliverAgain(..) | Act::Connect | Act::CrashAfterCommit(_) => {}
        }
    }

    /// What happens seldom, but may.
    fn unusual(&mut self, act: Act) {
        match act {
            Act::Load(side, most) => drop(self.pair.load(side, usize::from(most))),
            Act::Past(side, at) if self.connected => {
                let past = &self.pair.archive[side.inbox()];
                if let Some(frame) = past.get(usize::from(at) % past.len().max(1)).cloned() {
                    self.disturbed = true;
                    self.pair.deliver(side, &frame);
                }
            }
            Act::WholePast(side) if self.connected => {
                self.disturbed = true;
                for frame in self.pair.archive[side.inbox()].clone() {
                    self.pair.deliver(side, &frame);
                }
            }
            Act::Trouble(side) => {
                let peer = self.pair.end(side).peer.clone();
                self.pair.input(side, Input::Trouble(peer));
            }
            Act::ConnectAgain(side) if self.connected => self.pair.input(side, Input::Connected),
            Act::Present(side, slots_free) => {
                let presence =
                    Presence { slots_free, slots: 4, draining: false, version: "1".to_owned(), refusing: None };
                self.pair.input(side, Input::Present(presence));
            }
            Act::Window(side, window) => {
                self.pair.end(side).config.window = window;
                self.crash(side);
            }
            // The others are handled where this is called.
            _ => {}
        }
    }

    /// What the application of this side wants written next. The agent's holds its work back, as work takes time.
    fn application(&mut self, side: Side) -> Option<WriteAhead<Effects>> {
        let now = self.pair.now();
        self.pair.end(side).application(now, side == Side::Agent)
    }

    fn deliver_again(&mut self, side: Side, at: usize) {
        let queue = &self.pair.queues[side.inbox()];
        if let Some(frame) = queue.get(at % queue.len().max(1)).cloned() {
            self.disturbed = true;
            self.pair.deliver(side, &frame);
        }
    }

    fn swap(&mut self, side: Side, at: usize) {
        let queue = &mut self.pair.queues[side.inbox()];
        if queue.len() > 1 {
            self.disturbed = true;
            let at = at % (queue.len() - 1);
            queue.swap(at, at + 1);
        }
    }

    fn check(&mut self) {
        if !self.connected {
            self.pair.connect();
        }
        self.pair.settle(true);
        let pair = &self.pair;
        // Envelopes of an earlier process, from far ahead and of a part that is still to be agreed are normal here; nothing else is.
        let normal =
            |fault: &Fault| matches!(fault, Fault::Stale { .. } | Fault::OutsideWindow { .. } | Fault::Unproven { .. });
        let mut faults = pair.server.faults.iter().chain(&pair.agent.faults);
        assert!(faults.all(normal), "{}", pair.describe());
        for (end, other) in [(&pair.server, &pair.agent), (&pair.agent, &pair.server)] {
            // P1, P2: everything that was numbered was taken once, in order.
            let sent = other.session.state().peers.get(&other.peer).map_or(0, |s| s.outgoing.next.value() - 1);
            let taken: Vec<u64> = end.taken.iter().map(|(seq, _)| seq.value()).collect();
            assert_eq!(taken, (1..=sent).collect::<Vec<_>>(), "{}", pair.describe());
            // The marks agree, and nothing stays unsettled.
            if let Some(streams) = end.session.state().peers.get(&end.peer) {
                assert_eq!(streams.outgoing.settled, streams.outgoing.next.previous(), "{}", pair.describe());
                assert!(streams.work.is_empty() && streams.beyond.is_empty(), "{}", pair.describe());
            }
            // The journal replayed is the state.
            assert_eq!(end.disk.fold(), *end.session.state());
        }
        let answers = pair.agent.taken.len() as u64;
        assert!(answers >= self.submitted[Side::Server.inbox()]);
        // P3: what is resent is what was lost.
        let resent = pair.server.resent + pair.agent.resent;
        if !self.disturbed {
            assert!(resent <= self.lost, "resent {resent}, lost {}", self.lost);
        }
    }
}

fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(2_000)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), max_shrink_iters: 20_000, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_every_message_is_taken_once_and_in_order(
        acts in prop::collection::vec(act(), 1..120),
        window in prop_oneof![Just(4_u32), Just(64), Just(4_096)],
    ) {
        let mut world = World::new(window);
        for act in acts {
            world.act(act);
        }
        world.check();
    }
}
