//! A script instead of chance: an agent has runs of several steps in hand and is cut off from broker and server for a day of virtual
//! time. Its steps go on and end, the others go on, jobs for it wait at the server. Then everything must be reported, in order and
//! once, and resending must have cost what was lost. What happens besides (processes that die, a broker that is wiped) follows from
//! the seed.

use std::collections::BTreeMap;

use journal::PeerState;
use messages::{EndpointId, Seq};

use super::application::{JobState, STEPS_MAX, Say, Stage};
use super::checkers::{Promise, Violation};
use super::node::Node;
use super::rng::Rng;
use super::scenario::Scenario;
use super::world::{Asked, AskedState, Step, World};
use super::{Options, Outcome, judged};

/// Virtual milliseconds for which the agent is cut off.
pub const CUT_OFF_MS: u64 = 24 * 3_600_000;
/// The agent that is.
const AGENT: usize = 1;
/// Moves of the world within which the agent must have its runs in hand.
const IN_HAND_MOVES_MAX: u64 = 20_000;
/// Moves of the world within which the day must have passed.
const DAY_MOVES_MAX: u64 = 400_000;

/// What came of it.
#[derive(Debug, Clone)]
pub struct CutOff {
    /// The run of the world as a whole.
    pub outcome: Outcome,
    /// Runs that the agent had in hand when it was cut off.
    pub in_hand: u64,
    /// Their steps that ended while it was.
    pub steps_ended: u64,
    /// Steps that other agents did meanwhile.
    pub steps_of_others: u64,
    /// Messages of the agent that waited for the server, at most.
    pub reports_waiting: u64,
    /// Messages of the server that waited for the agent, at most.
    pub orders_waiting: u64,
    /// Messages that the broker lost.
    pub lost: u64,
}

/// Cuts an agent off, as that seed has it.
#[must_use]
pub fn cut_off(seed: u64, options: Options) -> CutOff {
    let mut rng = Rng::new(seed, 2);
    let scenario = Scenario::scripted(&mut rng);
    let mut world = World::of(scenario, rng, options);
    let mut script = Script::default();
    let violation = judged(&mut world, |world| script.play(world));
    let (lost, outcome) = (world.counts.lost, Outcome::of(seed, world, violation));
    let Script { in_hand, steps_ended, steps_of_others, reports_waiting, orders_waiting, .. } = script;
    let in_hand = in_hand.len() as u64;
    CutOff { outcome, in_hand, steps_ended, steps_of_others, reports_waiting, orders_waiting, lost }
}

/// What is noted while it is played.
#[derive(Debug, Default)]
struct Script {
    /// The runs that the agent had when it was cut off, and how many steps each has.
    in_hand: BTreeMap<u64, u8>,
    steps_ended: u64,
    steps_of_others: u64,
    reports_waiting: u64,
    orders_waiting: u64,
}

impl Script {
    fn play(&mut self, world: &mut World) -> Step {
        // Nothing is left to chance but the order of things that can happen now.
        world.calm();
        self.get_in_hand(world)?;
        self.cut(world)?;
        world.note(usize::MAX, || "the agent can reach the broker again".to_owned());
        world.cut.clear();
        world.come_to_rest()?;
        self.judge(world)
    }

    /// Gives the agent some runs, and waits until it has begun some of them and holds the others.
    fn get_in_hand(&mut self, world: &mut World) -> Step {
        let runs = world.rng.within(2, 6);
        self.submit(world, runs, |_| AGENT);
        let others = world.rng.within(1, 4);
        self.submit(world, others, |world| world.rng.within(2, world.scenario.agents as u64) as usize);
        for _ in 0..IN_HAND_MOVES_MAX {
            world.advance()?;
            let Some(agent) = &world.nodes[AGENT].process else { continue };
            let open = agent.app.runs.values().filter(|run| run.is_open()).count() as u64;
            let begun = agent.app.runs.values().filter(|run| run.stage == Stage::Begun).count() as u64;
            let told = |job: &u64| world.reports.values().any(|say| *say == Say::Began { job: *job });
            if open == runs && begun >= runs.min(4) && agent.app.runs.keys().any(told) {
                self.in_hand = agent.app.runs.iter().map(|(job, run)| (*job, run.steps)).collect();
                return Ok(());
            }
        }
        Err(broken(world, "the agent did not come to have its runs in hand"))
    }

    /// Lets the day pass.
    fn cut(&mut self, world: &mut World) -> Step {
        world.note(AGENT, || "is cut off from broker and server".to_owned());
        world.cut.insert(AGENT);
        if let Some(connection) = world.nodes[AGENT].process.as_ref().and_then(|agent| agent.connection) {
            world.broker.disconnect(AGENT, connection);
        }
        // More than the outbox takes: what is too much is refused, and asked for again now and then.
        let late = world.scenario.config.outbox_max + world.rng.within(1, 5);
        self.submit(world, late, |_| AGENT);
        let others = world.rng.within(5, 20);
        self.submit(world, others, |world| world.rng.within(2, world.scenario.agents as u64) as usize);
        let heard = |world: &World| world.reports.keys().filter(|(agent, _)| *agent == AGENT).count();
        let (from, reports) = (world.at, heard(world));
        let mut incidents = Incident::draw(&mut world.rng, from);
        let before = self.steps_done(world);
        let mut moves = 0;
        while world.at < from + CUT_OFF_MS {
            moves += 1;
            if moves > DAY_MOVES_MAX {
                return Err(broken(world, "the day does not pass"));
            }
            if let Some(at) = incidents.iter().position(|(at, _)| *at <= world.at) {
                incidents.swap_remove(at).1.happen(world)?;
            }
            world.counts.steps += 1;
            world.advance()?;
            self.note_waiting(world);
        }
        let after = self.steps_done(world);
        self.steps_ended = after.0 - before.0;
        self.steps_of_others = after.1 - before.1;
        // What was on its way when it was cut off may still have arrived.
        let heard = heard(world) - reports;
        let under_way = usize::try_from(world.scenario.config.window).unwrap_or(usize::MAX);
        if heard > under_way.min(self.in_hand.len() * usize::from(STEPS_MAX)) {
            return Err(broken(world, &format!("the server heard {heard} reports of an agent that was cut off")));
        }
        Ok(())
    }

    fn submit(&self, world: &mut World, count: u64, agent: impl Fn(&mut World) -> usize) {
        let first = world.client.keys().last().map_or(1, |last| last + 1);
        for job in first..first + count {
            let (agent, steps) = (agent(world), u8::try_from(world.rng.within(3, 8)).unwrap_or(STEPS_MAX));
            let once = world.rng.percent(world.scenario.once);
            world.client.insert(job, Asked { agent, once, refuse: false, steps, state: AskedState::Unsent });
        }
    }

    /// Steps that have ended at the agent, and at all others.
    fn steps_done(&self, world: &World) -> (u64, u64) {
        let over =
            |node: &Node| node.machine.shims.iter().flat_map(BTreeMap::values).filter(|shim| shim.over).count() as u64;
        let others = world.nodes.iter().filter(|node| node.seat != AGENT).map(over).sum();
        (over(&world.nodes[AGENT]), others)
    }

    fn note_waiting(&mut self, world: &World) {
        let waiting = |n: usize, peer: &EndpointId| {
            let process = world.nodes[n].process.as_ref();
            process.and_then(|process| process.session.state().peers.get(peer)).map_or(0, unreceived)
        };
        self.reports_waiting = self.reports_waiting.max(waiting(AGENT, &EndpointId::Server));
        self.orders_waiting = self.orders_waiting.max(waiting(0, &world.nodes[AGENT].id));
    }

    /// What must be true in the end, beside what the checkers hold everything to.
    fn judge(&self, world: &World) -> Step {
        let steps: u64 = self.in_hand.values().map(|steps| u64::from(*steps)).sum();
        // That a run begins, and the end of each step, the last of which ends the run.
        let reports_max = steps + self.in_hand.len() as u64;
        if self.reports_waiting > reports_max {
            return Err(broken(
                world,
                &format!("{} reports waited, of {reports_max} that there are", self.reports_waiting),
            ));
        }
        let outbox_max = world.scenario.config.outbox_max;
        if self.orders_waiting > outbox_max {
            return Err(broken(world, &format!("{} orders waited, {outbox_max} may", self.orders_waiting)));
        }
        // That every copy beyond the first is paid for by a loss is held by the checker of P3, which knows what was turned away.
        let jobs = world.nodes[0].process.as_ref().map(|server| server.app.jobs.clone()).unwrap_or_default();
        for (job, asked) in &world.client {
            if jobs.get(job).map(|job| job.state) != Some(JobState::Done) {
                return Err(broken(world, &format!("job {job} is {:?} at the server", jobs.get(job))));
            }
            let told: Vec<Say> = world.reports.values().copied().filter(|say| job_of(*say) == *job).collect();
            let job = *job;
            let ends = (0..asked.steps - 1).map(|step| Say::Ended { job, step });
            let wanted: Vec<Say> = std::iter::once(Say::Began { job }).chain(ends).chain([Say::Done { job }]).collect();
            if told != wanted {
                return Err(broken(world, &format!("of job {job} the server was told {told:?}")));
            }
        }
        Ok(())
    }
}

/// What happens besides, while the agent is cut off.
#[derive(Debug, Clone, Copy)]
enum Incident {
    AgentDies,
    ServerDies,
    BrokerWiped,
}

impl Incident {
    fn draw(rng: &mut Rng, from: u64) -> Vec<(u64, Self)> {
        let mut drawn = Vec::new();
        for incident in [Self::AgentDies, Self::ServerDies, Self::BrokerWiped] {
            if rng.percent(40) {
                drawn.push((from + rng.below(CUT_OFF_MS), incident));
            }
        }
        drawn
    }

    fn happen(self, world: &mut World) -> Step {
        match self {
            Self::AgentDies => world.crash(AGENT, "while it is cut off"),
            Self::ServerDies => world.crash(0, "while an agent is cut off"),
            Self::BrokerWiped => {
                world.note(usize::MAX, || "the broker loses everything".to_owned());
                world.broker.wipe();
                world.flush_fates()
            }
        }
    }
}

fn unreceived(streams: &PeerState) -> u64 {
    let outgoing = &streams.outgoing;
    Seq::count(outgoing.next.previous()) - Seq::count(outgoing.received)
}

fn job_of(say: Say) -> u64 {
    match say {
        Say::Do { job, .. } | Say::Began { job } | Say::Ended { job, .. } => job,
        Say::Done { job } | Say::Unknown { job } | Say::Refused { job } => job,
    }
}

fn broken(world: &World, what: &str) -> Violation {
    world.violation(Promise::P1, "cut-off", what.to_owned())
}
