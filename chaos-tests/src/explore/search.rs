//! The search: breadth first over every world that can be reached, so that the path to what is wrong is a shortest one. Of a
//! world that was seen only its fingerprint is kept; one that is needed again is led to anew from the beginning.

use super::action::{Action, Step};
use super::check::Ends;
use super::parts::Parts;
use super::plant::Plant;
use super::scope::Scope;
use super::violation::Violation;
use super::visited::{At, Visited};
use super::world::{World, fingerprint};

/// What a search found.
#[derive(Debug, Clone)]
pub struct Exploration {
    /// Different worlds.
    pub states: usize,
    /// Ways from one to another, those that lead back to a known one included.
    pub transitions: usize,
    /// Actions from the beginning to the farthest world.
    pub depth: usize,
    /// Worlds in which everything is received and settled and both ends agree about it.
    pub ends: usize,
    /// Ends in which a restored journal goes on under another name.
    pub healed: usize,
    /// Different endpoints, envelopes, and steps that were worked out.
    pub parts: [usize; 3],
    /// Whether everything was visited.
    pub complete: bool,
    /// What is wrong, with a shortest way to it.
    pub counterexample: Option<Counterexample>,
}

/// A shortest way to what is wrong.
#[derive(Debug, Clone)]
pub struct Counterexample {
    /// What happens.
    pub actions: Vec<Action>,
    /// What is wrong then.
    pub violation: Violation,
    /// The last world before that, for people.
    pub last: String,
}

/// More than the worlds of a visit have, so that one that grew without bound ends.
const VISITED_MAX: usize = 500_000;

/// Shown every world, nearest first.
type Visitor<'a> = &'a mut dyn FnMut(Ends<'_>);

struct Search<'a> {
    parts: Parts<'a>,
    visited: Visited,
    found: Exploration,
    visitor: Option<Visitor<'a>>,
}

/// Worlds to be looked at, in as few words as they take.
#[derive(Default)]
struct Layer {
    words: Vec<u32>,
}

/// Visits every world of that scope, or as many as `states_max`.
#[must_use]
pub fn explore(scope: &Scope, plant: Option<Plant>, states_max: usize) -> Exploration {
    let mut search = Search::new(scope, plant, None);
    search.run(states_max);
    search.found
}

/// Shows the endpoints of every world of that scope to a visitor, which must be one without a counterexample, nearest first.
pub(super) fn visit_each(scope: &Scope, visitor: Visitor<'_>) {
    Search::new(scope, None, Some(visitor)).run(VISITED_MAX);
}

impl<'a> Search<'a> {
    fn new(scope: &'a Scope, plant: Option<Plant>, visitor: Option<Visitor<'a>>) -> Self {
        let found = Exploration {
            states: 0,
            transitions: 0,
            depth: 0,
            ends: 0,
            healed: 0,
            parts: [0; 3],
            complete: true,
            counterexample: None,
        };
        Self { parts: Parts::new(scope, plant), visited: Visited::new(), found, visitor }
    }

    fn run(&mut self, states_max: usize) {
        self.search(states_max);
        self.found.parts = self.parts.counts();
    }

    fn search(&mut self, states_max: usize) {
        // Which endpoint each fault is for is decided at the beginning, so that the two have nothing in common but the queues.
        let mut layer = Layer::default();
        for left in self.parts.scope.budget.shares() {
            let first = self.parts.first(left);
            let print = print(&first, &mut Vec::new());
            if let Err(slot) = self.visited.find(print) {
                self.visit(slot, print, &first, At::NOWHERE);
                first.write(&mut layer.words);
            }
        }
        let (mut world, mut next, mut at) = (self.parts.first(Default::default()), Layer::default(), At(0));
        while !layer.words.is_empty() {
            self.found.depth += 1;
            let mut begin = 0;
            while begin < layer.words.len() {
                begin += world.read(&layer.words[begin..]);
                if let Err((action, violation)) = self.expand(at, &world, &mut next) {
                    self.counterexample(at, Some(action), violation);
                    return;
                }
                if self.visited.len() > states_max {
                    self.found.complete = false;
                    return;
                }
                at = At(at.0 + 1);
            }
            std::mem::swap(&mut layer, &mut next);
            next.words.clear();
        }
        // Only a search that came to its end knows what can be reached from where.
        if let Some(stuck) = self.stuck() {
            self.counterexample(stuck, None, Violation::Stuck);
        }
    }

    fn expand(&mut self, at: At, world: &World, next: &mut Layer) -> Result<(), (Action, Violation)> {
        let (mut actions, mut after, mut words) = (Vec::new(), world.clone(), Vec::new());
        let mut best = None;
        self.parts.actions(world, &mut actions);
        for action in actions {
            if !self.parts.after(world, action, &mut after).map_err(|wrong| (action, wrong))? {
                continue;
            }
            self.found.transitions += 1;
            let print = print(&after, &mut words);
            let to = match self.visited.find(print) {
                Ok(known) => known,
                Err(slot) => {
                    let ledgers = self.parts.ledgers(after.ledgers);
                    self.parts.ends(&after).check(ledgers).map_err(|wrong| (action, wrong))?;
                    next.words.extend_from_slice(&words);
                    self.visit(slot, print, &after, at)
                }
            };
            if !action.is_fault() && to != at {
                let rank = (rank(action), to);
                best = Some(best.map_or(rank, |best: (u8, At)| best.min(rank)));
            }
        }
        if let Some((_, to)) = best.filter(|_| !self.visited.is_end(at)) {
            self.visited.go_on(at, to);
        }
        Ok(())
    }

    /// Notes a world that was not seen before.
    fn visit(&mut self, slot: usize, print: [u64; 2], world: &World, from: At) -> At {
        let Some(at) = self.visited.add(slot, print, from) else {
            self.found.complete = false;
            return from;
        };
        let ends = self.parts.ends(world);
        if let Some(visitor) = &mut self.visitor {
            visitor(ends);
        }
        self.found.states += 1;
        if world.ahead.is_none() && ends.is_at_its_end(self.parts.ledgers(world.ledgers), self.parts.scope) {
            self.visited.go_on(at, at);
            self.found.ends += 1;
            self.found.healed += usize::from(ends.is_healed());
        }
        at
    }

    /// A world that is nearest to the beginning and from which no way without a fault leads to an end.
    fn stuck(&mut self) -> Option<At> {
        let mut saved = self.visited.saved();
        let open: Vec<At> = (0..).zip(&saved).filter(|(_, saved)| !**saved).map(|(at, _)| At(at)).collect();
        // Few: those whose one noted way on goes round in a circle. Of them every way is looked at.
        let mut ways = Vec::new();
        for at in &open {
            let world = self.lead_to(*at)?;
            for action in self.actions(&world).into_iter().filter(|action| !action.is_fault()) {
                let mut after = world.clone();
                if let Ok(true) = self.parts.after(&world, action, &mut after) {
                    ways.extend(self.visited.find(print(&after, &mut Vec::new())).map(|to| (*at, to)));
                }
            }
        }
        loop {
            let before = ways.len();
            ways.retain(|(from, to)| {
                saved[from.0 as usize] |= saved[to.0 as usize];
                !saved[from.0 as usize]
            });
            if ways.len() == before {
                return open.into_iter().find(|at| !saved[at.0 as usize]);
            }
        }
    }

    fn actions(&self, world: &World) -> Vec<Action> {
        let mut actions = Vec::new();
        self.parts.actions(world, &mut actions);
        actions
    }

    /// The actions from the beginning to that world, and the world from which they begin.
    fn way_to(&mut self, at: At) -> Option<(World, Vec<Action>)> {
        let mut way = vec![at];
        while let Some(from) = way.last().map(|at| self.visited.from(*at)).filter(|from| *from != At::NOWHERE) {
            way.push(from);
        }
        let prints: Vec<_> = way.into_iter().rev().map(|at| self.visited.print(at)).collect();
        let mut words = Vec::new();
        let shares = self.parts.scope.budget.shares();
        let mut firsts = shares.into_iter().map(|left| self.parts.first(left)).collect::<Vec<_>>().into_iter();
        let first = firsts.find(|first| print(first, &mut words) == prints[0])?;
        let (mut world, mut actions) = (first.clone(), Vec::new());
        for wanted in &prints[1..] {
            let mut after = world.clone();
            let action = self.actions(&world).into_iter().find(|action| {
                let done = self.parts.after(&world, *action, &mut after);
                done == Ok(true) && print(&after, &mut words) == *wanted
            })?;
            actions.push(action);
            world = after;
        }
        Some((first, actions))
    }

    fn lead_to(&mut self, at: At) -> Option<World> {
        let (mut world, actions) = self.way_to(at)?;
        for action in actions {
            let mut after = world.clone();
            let _ = self.parts.after(&world, action, &mut after);
            world = after;
        }
        Some(world)
    }

    fn counterexample(&mut self, at: At, last: Option<Action>, violation: Violation) {
        let mut actions = self.way_to(at).map(|(_, actions)| actions).unwrap_or_default();
        let world = self.lead_to(at).map(|world| self.parts.describe(&world)).unwrap_or_default();
        actions.extend(last);
        self.found.counterexample = Some(Counterexample { actions, violation, last: world });
    }
}

fn print(world: &World, words: &mut Vec<u32>) -> [u64; 2] {
    words.clear();
    world.write(words);
    fingerprint(words)
}

/// Which way on is noted: one that takes what is there before one that says something more.
const fn rank(action: Action) -> u8 {
    match action {
        Action::Reach { .. } => 0,
        Action::Do { step, .. } => match step {
            Step::Deliver => 1,
            Step::Read => 2,
            Step::Take => 3,
            Step::Answer => 4,
            Step::Submit => 5,
            Step::Connect => 6,
            Step::ReadShort => 7,
            Step::Ask => 8,
            Step::Status => 9,
            Step::Probe => 10,
            Step::Heartbeat => 11,
        },
        Action::Crash { .. }
        | Action::Restore(_)
        | Action::Wipe { .. }
        | Action::Lose(..)
        | Action::Repeat(_)
        | Action::Swap(..)
        | Action::Disconnect(_) => u8::MAX,
    }
}
