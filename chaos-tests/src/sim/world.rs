//! The world: machines, processes, a broker, a client and time, all moved by one thread and one seed. Each step does one thing that
//! could happen now. First faults are among them; then they cease, and everything must come to rest.

use std::collections::{BTreeMap, BTreeSet};

use journal::Incoming;
use messages::{EndpointId, ProbeId, Seq};

use super::Options;
use super::application::{Run, Say, Stage};
use super::broker::{Broker, CopyId, Fate};
use super::checkers::{Checkers, Observation, Promise, Stream, Violation};
use super::disk::SimDisk;
use super::node::{Machine, Node, Process};
use super::planted::Planted;
use super::rng::Rng;
use super::scenario::{Expectation, FaultClass, Scenario};
use super::trace::Trace;
use std::sync::Arc;

/// Milliseconds since 1970 when a world begins.
const WALL_MS: u64 = 1_700_000_000_000;
/// Steps after the faults within which everything must have come to rest. A run that needs more is a failure, not a pass.
const REST_STEPS_MAX: u64 = 60_000;
/// Commits under way in one process.
const PENDING_MAX: usize = 12;

/// What a step may turn out to have broken.
pub(crate) type Step = Result<(), Violation>;

/// One thing that can happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    Deliver(usize),
    Commit(usize),
    Perform(usize),
    Send(usize),
    Load(usize),
    Timeout(usize),
    Offer(usize, usize),
    Take(usize, usize),
    Work(usize, u64),
    Connect(usize),
    Notice(usize),
    Start(usize),
    Resume(usize),
    Mend(usize),
    Declare,
    BrokerUp,
    Unblock,
    Ask,
    Pass,
}

/// A job as its client sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) agent: usize,
    pub(crate) once: bool,
    pub(crate) refuse: bool,
    pub(crate) steps: u8,
    pub(crate) state: AskedState,
}

/// How far a client is with a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AskedState {
    /// To be submitted, or to be submitted again.
    Unsent,
    /// Submitted; the server has not answered.
    Waiting,
    Acknowledged,
    /// It was acknowledged by a journal that was then replaced by an older copy.
    Void,
}

/// What a run amounted to.
#[derive(Debug, Clone, Default)]
pub(crate) struct Counts {
    pub(crate) steps: u64,
    pub(crate) messages: u64,
    pub(crate) resent: u64,
    /// Messages that the broker lost before they were received.
    pub(crate) lost: u64,
    pub(crate) executed: u64,
    pub(crate) stopped: u64,
    pub(crate) faults: BTreeMap<FaultClass, u64>,
}

/// Everything.
pub(crate) struct World {
    pub(crate) at: u64,
    pub(crate) rng: Rng,
    pub(crate) scenario: Scenario,
    pub(crate) nodes: Vec<Node>,
    /// How far each node's wall clock is off.
    pub(crate) clocks: Vec<i64>,
    pub(crate) broker: Broker,
    pub(crate) client: BTreeMap<u64, Asked>,
    /// When the client tries again after it was told that there is no room.
    pub(crate) ask_again_at: u64,
    pub(crate) checkers: Checkers,
    pub(crate) trace: Trace,
    pub(crate) counts: Counts,
    pub(crate) planted: Option<Planted>,
    /// What each copy is of.
    pub(crate) copies: BTreeMap<CopyId, (Stream, Seq)>,
    /// What was handed to the broker at least once.
    pub(crate) handed: BTreeSet<(Stream, Seq)>,
    /// Whether wall clocks jump where the scenario says so.
    pub(crate) jumps: bool,
    /// Faults have ceased.
    pub(crate) calm: bool,
    /// Steps of a thousand that are faults.
    fault_rate: u64,
    pub(crate) ids: u128,
    /// Seats whose streams may end stopped, by what happened to them.
    pub(crate) may_stop: BTreeSet<usize>,
    /// Endpoints that are not, or not only, who they were.
    pub(crate) changed: BTreeSet<usize>,
    /// Seats of which there is more than one machine.
    pub(crate) cloned: Vec<usize>,
    /// Seats that cannot reach the broker.
    pub(crate) cut: BTreeSet<usize>,
    /// What the server was told of jobs, by the agent's seat and the place in its stream.
    pub(crate) reports: BTreeMap<(usize, Seq), Say>,
    /// For planted faults: the newest wall clock seen by each node, and the last probe that it sent to each peer.
    pub(crate) latest_wall: BTreeMap<usize, u64>,
    pub(crate) last_probe: BTreeMap<(usize, EndpointId), ProbeId>,
    choices: Vec<(Action, u64)>,
}

impl World {
    pub(crate) fn new(seed: u64, options: Options) -> Self {
        let mut rng = Rng::new(seed, 0);
        let scenario = Scenario::draw(&mut rng);
        Self::of(scenario, rng, options)
    }

    /// A world with that scenario.
    pub(crate) fn of(scenario: Scenario, mut rng: Rng, options: Options) -> Self {
        let agents: Vec<EndpointId> = (1..=scenario.agents)
            .map(|n| format!("a{n}").parse().expect("a letter and a digit name an agent"))
            .collect();
        let ids = std::iter::once(EndpointId::Server).chain(agents.iter().cloned());
        let nodes: Vec<Node> = ids
            .enumerate()
            .map(|(seat, id)| Node {
                peers: if seat == 0 { agents.clone() } else { vec![EndpointId::Server] },
                id,
                seat,
                machine: Machine {
                    disk: Arc::new(SimDisk::default()),
                    mark: None,
                    attempts: Default::default(),
                    shims: scenario.step_ms.map(|_| BTreeMap::new()),
                },
                config: scenario.config.clone(),
                process: None,
                lives: 0,
                saved: None,
                last: None,
            })
            .collect();
        let mut client = BTreeMap::new();
        for job in 1..=scenario.jobs {
            let agent = 1 + rng.index(scenario.agents);
            let asked = Asked {
                agent,
                once: rng.percent(scenario.once),
                refuse: rng.percent(8),
                steps: 1,
                state: AskedState::Unsent,
            };
            client.insert(job, asked);
        }
        let fault_rate = rng.pick(&[4, 12, 40, 90]);
        Self {
            at: 0,
            clocks: vec![0; nodes.len()],
            broker: Broker::new(nodes.len()),
            nodes,
            client,
            ask_again_at: 0,
            checkers: Checkers::new(),
            trace: Trace::new(options.trace),
            counts: Counts::default(),
            planted: options.planted,
            copies: BTreeMap::new(),
            handed: BTreeSet::new(),
            jumps: options.jumps,
            calm: false,
            fault_rate,
            ids: 0,
            may_stop: BTreeSet::new(),
            changed: BTreeSet::new(),
            cloned: Vec::new(),
            cut: BTreeSet::new(),
            reports: BTreeMap::new(),
            latest_wall: BTreeMap::new(),
            last_probe: BTreeMap::new(),
            choices: Vec::new(),
            scenario,
            rng,
        }
    }

    /// Runs both phases.
    pub(crate) fn run(&mut self) -> Step {
        while self.counts.steps < self.scenario.steps {
            self.counts.steps += 1;
            if !self.scenario.faults.is_empty() && self.rng.below(1_000) < self.fault_rate {
                self.inject()?;
            } else {
                self.advance()?;
            }
        }
        self.note(usize::MAX, || "the faults cease".to_owned());
        self.calm();
        self.come_to_rest()
    }

    /// Goes on without faults until everything is at rest.
    pub(crate) fn come_to_rest(&mut self) -> Step {
        for _ in 0..REST_STEPS_MAX {
            self.counts.steps += 1;
            if self.advance()? {
                return self.rested();
            }
        }
        Err(self.violation(
            Promise::P1,
            "comes-to-rest",
            format!("not at rest after {REST_STEPS_MAX} steps without faults: {}", self.unrest()),
        ))
    }

    /// Does one thing that could happen now. True when nothing is left to happen.
    pub(crate) fn advance(&mut self) -> Result<bool, Violation> {
        self.flush_fates()?;
        let mut choices = std::mem::take(&mut self.choices);
        choices.clear();
        self.possible(&mut choices);
        if choices.is_empty() || !self.calm {
            if choices.is_empty() && self.calm && self.is_at_rest() {
                return Ok(true);
            }
            choices.push((Action::Pass, 3));
        }
        let total = choices.iter().map(|(_, weight)| weight).sum();
        let mut drawn = self.rng.below(total);
        let chosen = choices.iter().find(|(_, weight)| {
            let here = drawn < *weight;
            drawn = drawn.saturating_sub(*weight);
            here
        });
        let action = chosen.map_or(Action::Pass, |(action, _)| *action);
        self.choices = choices;
        self.act(action)?;
        Ok(false)
    }

    fn possible(&self, choices: &mut Vec<(Action, u64)>) {
        for (n, node) in self.nodes.iter().enumerate() {
            match &node.process {
                None => choices.push((Action::Start(n), 6)),
                Some(process) if process.paused => choices.push((Action::Resume(n), 2)),
                Some(process) => self.possible_at(n, node, process, choices),
            }
            if !self.calm && node.machine.disk.fault().is_some() {
                choices.push((Action::Mend(n), 1));
            }
        }
        if !self.broker.up {
            choices.push((Action::BrokerUp, 2));
        }
        if self.broker.blocked {
            choices.push((Action::Unblock, 2));
        }
        let server = self.nodes[0].process.as_ref();
        if server.is_some_and(|server| !server.paused && server.pending.len() < PENDING_MAX)
            && self.ask_again_at <= self.at
            && self.client.values().any(|asked| asked.state == AskedState::Unsent)
        {
            choices.push((Action::Ask, 4));
        }
    }

    fn possible_at(&self, n: usize, node: &Node, process: &Process, choices: &mut Vec<(Action, u64)>) {
        let mut add = |possible: bool, action, weight| {
            if possible {
                choices.push((action, weight));
            }
        };
        let room = process.pending.len() < PENDING_MAX;
        let alive = process.connection.is_some_and(|connection| self.broker.is_connected(node.seat, connection));
        add(room && alive && self.broker.may_deliver(n, node.seat, self.scenario.prefetch), Action::Deliver(n), 12);
        add(!process.pending.is_empty(), Action::Commit(n), 14);
        add(!process.done.is_empty(), Action::Perform(n), 14);
        let blocked = alive && self.broker.blocked;
        add(!process.backlog.is_empty() && !blocked, Action::Send(n), 14);
        add(room && !process.loads.is_empty(), Action::Load(n), 8);
        add(room && process.next_timeout().is_some_and(|due| due <= self.at), Action::Timeout(n), 8);
        add(process.connection.is_some() && !alive, Action::Notice(n), 6);
        let declared = self.broker.queues[node.seat].declared || node.seat == 0;
        let reachable = self.broker.up && declared && !self.cut.contains(&node.seat);
        add(process.connection.is_none() && reachable, Action::Connect(n), 6);
        let undeclared = self.broker.queues.iter().any(|queue| !queue.declared);
        add(node.seat == 0 && alive && undeclared, Action::Declare, 6);
        for (at, peer) in node.peers.iter().enumerate() {
            let waits = process.inbox.get(peer).is_some_and(|inbox| !inbox.is_empty());
            add(room && waits, Action::Take(n, at), 6);
            let offered =
                process.session.unapplied(peer).is_some_and(|(from, _)| process.durable.get(peer) >= Some(&from));
            add(!waits && offered, Action::Offer(n, at), 6);
        }
        if room {
            // The first few runs only, as an agent with slots would.
            let open = process.app.runs.iter().filter(|(_, run)| run.is_open()).take(4);
            // A step that takes its time needs nothing until it ends.
            let waits = |job: &u64, run: &Run| {
                let shim = node.machine.shims.as_ref().and_then(|shims| shims.get(&(*job, run.step)));
                run.stage == Stage::Begun && shim.is_some_and(|shim| !shim.over && shim.due > self.at)
            };
            let open = open.filter(|(job, run)| !waits(job, run));
            choices.extend(open.map(|(job, _)| (Action::Work(n, *job), 3)));
        }
    }

    fn act(&mut self, action: Action) -> Step {
        match action {
            Action::Deliver(n) => self.deliver(n),
            Action::Commit(n) => self.commit(n),
            Action::Perform(n) => self.perform(n),
            Action::Send(n) => self.send(n),
            Action::Load(n) => self.load(n),
            Action::Timeout(n) => self.timeout(n),
            Action::Offer(n, peer) => self.offer(n, peer),
            Action::Take(n, peer) => self.take(n, peer),
            Action::Work(n, job) => self.work(n, job),
            Action::Connect(n) => self.connect(n),
            Action::Notice(n) => self.notice(n),
            Action::Start(n) => self.start(n, None),
            Action::Resume(n) => {
                self.note(n, || "goes on after a pause".to_owned());
                if let Some(process) = &mut self.nodes[n].process {
                    process.paused = false;
                }
                Ok(())
            }
            Action::Mend(n) => {
                self.note(n, || "its disk is mended".to_owned());
                self.nodes[n].machine.disk.mend();
                Ok(())
            }
            Action::Declare => {
                self.note(0, || "declares the queues".to_owned());
                for queue in &mut self.broker.queues {
                    queue.declared = true;
                }
                Ok(())
            }
            Action::BrokerUp => {
                self.note(usize::MAX, || "the broker is back".to_owned());
                self.broker.up = true;
                Ok(())
            }
            Action::Unblock => {
                self.note(usize::MAX, || "the broker takes publishes again".to_owned());
                self.broker.blocked = false;
                Ok(())
            }
            Action::Ask => self.ask(),
            Action::Pass => {
                self.pass();
                Ok(())
            }
        }
    }

    /// Lets time pass: a little, or to the next thing that is due, or hours.
    fn pass(&mut self) {
        let due = self.nodes.iter().filter_map(|node| node.process.as_ref()).filter(|process| !process.paused);
        let due = due.filter_map(Process::next_timeout).chain(self.broker.next_release());
        let shims = self.nodes.iter().flat_map(|node| &node.machine.shims).flat_map(BTreeMap::values);
        let due = due.chain(shims.filter(|shim| !shim.over && shim.due > self.at).map(|shim| shim.due));
        let due = due.chain(Some(self.ask_again_at).filter(|at| *at > self.at)).min();
        let next = due.unwrap_or(self.at + 1_000).max(self.at + 1);
        self.at = if self.calm {
            next
        } else {
            match self.rng.below(100) {
                0..40 => self.at + self.rng.within(1, 60),
                40..92 => next.min(self.at + 90_000),
                92..98 => self.at + self.rng.within(1_000, 90_000),
                _ => self.at + self.rng.within(600_000, 3 * 3_600_000),
            }
        };
        self.broker.release(self.at);
    }

    /// What a machine's wall clock shows.
    pub(crate) fn wall_ms(&self, n: usize) -> u64 {
        (WALL_MS + self.at).saturating_add_signed(self.clocks[n])
    }

    /// Notes an event of a node, or of the world.
    pub(crate) fn note(&mut self, n: usize, what: impl FnOnce() -> String) {
        let Some(node) = self.nodes.get(n) else { return self.trace.line(self.at, "world", what) };
        let who = if self.cloned.contains(&node.seat) { format!("{}#{n}", node.id) } else { node.id.to_string() };
        self.trace.line(self.at, &who, what);
    }

    /// Shows the checkers something.
    pub(crate) fn see(&mut self, seen: &Observation<'_>) -> Step {
        self.checkers.see(self.at, seen)
    }

    pub(crate) fn violation(&self, promise: Promise, checker: &'static str, what: String) -> Violation {
        Violation { promise, checker, at: self.at, what }
    }

    /// From now on an endpoint is not, or not only, who it was.
    pub(crate) fn identity_changed(&mut self, seat: usize, by: FaultClass) {
        self.checkers.identity_changed(seat);
        self.changed.insert(seat);
        match by.expectation(self.scenario.is_in_order()) {
            Expectation::ConvergesOrStops => {
                self.may_stop.insert(seat);
            }
            Expectation::Converges => {}
        }
    }

    /// Tells the checkers what became of copies.
    pub(crate) fn flush_fates(&mut self) -> Step {
        for (copy, fate) in std::mem::take(&mut self.broker.fates) {
            if fate == Fate::Destroyed && self.copies.get(&copy).is_some_and(|(stream, seq)| !self.has(*stream, *seq)) {
                self.counts.lost += 1;
            }
            self.see(&Observation::Copy { copy, fate })?;
        }
        Ok(())
    }

    /// Whether a message is on its receiver's disk.
    pub(crate) fn has(&self, stream: Stream, seq: Seq) -> bool {
        let from = &self.nodes[stream.from].id;
        let incoming = self.incoming(stream.to, from);
        incoming.is_some_and(|row| Some(seq) <= row.mark_there(row.through) || row.ranges_there().contains(seq))
    }

    /// What an endpoint has on disk of the stream of another, as far as anybody could know.
    pub(crate) fn incoming(&self, seat: usize, from: &EndpointId) -> Option<&Incoming> {
        let node = self.nodes.iter().find(|node| node.seat == seat)?;
        let state = node.process.as_ref().map(|process| process.writer.state()).or(node.last.as_ref())?;
        state.peers.get(from)?.incoming.as_ref()
    }
}

/// An error with its causes, in a line.
pub(crate) fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}
