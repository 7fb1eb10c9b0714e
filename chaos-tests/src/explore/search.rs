//! The search: breadth first over every world that can be reached, so that the path to what is wrong is a shortest one. Of a
//! world that was seen only its fingerprint is kept.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use super::action::Action;
use super::plant::Plant;
use super::violation::Violation;
use super::world::{Scope, World};

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

struct Search<'a> {
    scope: &'a Scope,
    plant: Option<Plant>,
    known: HashMap<u128, u32>,
    /// How each world was first reached.
    from: Vec<(u32, Option<Action>)>,
    /// Ways without a fault, from and to.
    ways: Vec<(u32, u32)>,
    ends: Vec<bool>,
    found: Exploration,
    visitor: Option<&'a mut dyn FnMut(&World)>,
}

/// Visits every world of that scope, or as many as `states_max`.
#[must_use]
pub fn explore(scope: &Scope, plant: Option<Plant>, states_max: usize) -> Exploration {
    let found =
        Exploration { states: 0, transitions: 0, depth: 0, ends: 0, healed: 0, complete: true, counterexample: None };
    let (known, from, ways, ends) = (HashMap::new(), Vec::new(), Vec::new(), Vec::new());
    let mut search = Search { scope, plant, known, from, ways, ends, found, visitor: None };
    search.run(states_max);
    search.found
}

/// Shows every world of that scope to a visitor, which must be one without a counterexample, nearest first.
pub(super) fn visit_each(scope: &Scope, visitor: &mut dyn FnMut(&World)) {
    let found =
        Exploration { states: 0, transitions: 0, depth: 0, ends: 0, healed: 0, complete: true, counterexample: None };
    let (known, from, ways, ends) = (HashMap::new(), Vec::new(), Vec::new(), Vec::new());
    let mut search = Search { scope, plant: None, known, from, ways, ends, found, visitor: Some(visitor) };
    search.run(VISITED_MAX);
}

impl Search<'_> {
    fn run(&mut self, states_max: usize) {
        // Which endpoint each fault is for is decided at the beginning, so that the two have nothing in common but the queues.
        let mut layer = Vec::new();
        for budget in self.scope.budget.shares() {
            let first = World::new(budget);
            layer.extend(self.visit(&first, (0, None)).map(|at| (at, first)));
        }
        while !layer.is_empty() {
            self.found.depth += 1;
            let mut next = Vec::new();
            for (at, world) in layer {
                if let Err((action, violation)) = self.expand(at, &world, &mut next) {
                    self.counterexample(at, action, violation);
                    return;
                }
                if self.from.len() > states_max {
                    self.found.complete = false;
                    return;
                }
            }
            layer = next;
        }
        // Only a search that came to its end knows what can be reached from where.
        if let Some(stuck) = self.stuck() {
            self.counterexample(stuck, None, Violation::Stuck);
        }
    }

    fn expand(
        &mut self,
        at: u32,
        world: &World,
        next: &mut Vec<(u32, World)>,
    ) -> Result<(), (Option<Action>, Violation)> {
        for action in world.actions(self.scope) {
            let after = world.after(action, self.scope, self.plant).map_err(|wrong| (Some(action), wrong))?;
            self.found.transitions += 1;
            let print = after.fingerprint();
            let to = match self.known.entry(print) {
                Entry::Occupied(known) => *known.get(),
                Entry::Vacant(_) => {
                    after.check().map_err(|wrong| (Some(action), wrong))?;
                    let to = self.visit(&after, (at, Some(action))).unwrap_or(at);
                    next.push((to, after));
                    to
                }
            };
            if !action.is_fault() {
                self.ways.push((at, to));
            }
        }
        Ok(())
    }

    /// Notes a world that was not seen before.
    fn visit(&mut self, world: &World, from: (u32, Option<Action>)) -> Option<u32> {
        let at = u32::try_from(self.from.len()).ok()?;
        self.known.insert(world.fingerprint(), at);
        self.from.push(from);
        if let Some(visitor) = &mut self.visitor {
            visitor(world);
        }
        let end = world.is_at_its_end(self.scope);
        self.ends.push(end);
        self.found.states += 1;
        self.found.ends += usize::from(end);
        self.found.healed += usize::from(end && world.is_healed());
        Some(at)
    }

    /// A world that is nearest to the beginning and from which no way without a fault leads to an end.
    fn stuck(&self) -> Option<u32> {
        let mut saved = self.ends.clone();
        let mut ways = self.ways.clone();
        ways.sort_unstable_by_key(|(_, to)| *to);
        let mut open: Vec<u32> = (0..).zip(&saved).filter(|(_, end)| **end).map(|(at, _)| at).collect();
        while let Some(at) = open.pop() {
            let first = ways.partition_point(|(_, to)| *to < at);
            for (from, _) in ways[first..].iter().take_while(|(_, to)| *to == at) {
                if !std::mem::replace(&mut saved[*from as usize], true) {
                    open.push(*from);
                }
            }
        }
        (0..).zip(&saved).find(|(_, saved)| !**saved).map(|(at, _)| at)
    }

    fn counterexample(&mut self, mut at: u32, last: Option<Action>, violation: Violation) {
        let mut actions = Vec::from_iter(last);
        while let (before, Some(action)) = self.from[at as usize] {
            actions.push(action);
            at = before;
        }
        actions.reverse();
        // The worlds of the beginning come first, in the order of the shares.
        let mut world = self.scope.budget.shares().get(at as usize).map(|budget| World::new(*budget));
        for action in &actions {
            let next = world.as_ref().and_then(|world| world.after(*action, self.scope, self.plant).ok());
            world = next.or(world);
        }
        let last = world.map(|world| world.describe()).unwrap_or_default();
        self.found.counterexample = Some(Counterexample { actions, violation, last });
    }
}
