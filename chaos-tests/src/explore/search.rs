//! The search: breadth first over every world that can be reached, so that the path to what is wrong is a shortest one. Of a
//! world that was seen only its fingerprint is kept; one that is needed again is led to anew from the beginning.

use std::collections::HashMap;
use std::io;

use super::action::{Action, Step};
use super::check::Ends;
use super::parts::Parts;
use super::plant::Plant;
use super::scope::{Budget, Scope};
use super::spool::Spool;
use super::violation::Violation;
use super::visited::{At, Visited};
use super::world::{World, fingerprint};

/// What a search found.
#[derive(Debug, Clone, Default)]
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
    /// Different journals.
    pub journals: usize,
    /// Whether everything was visited.
    pub complete: bool,
    /// What is wrong, with a shortest way to it.
    pub counterexample: Option<Counterexample>,
    /// What the system says of a temporary file without which it could not go on.
    pub unread: Option<String>,
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

/// Worlds that a search makes room for at first, unless it is told better.
pub const ROOM: usize = 1 << 20;
/// How many times as much room the next search has when one was too small.
const MORE_ROOM: usize = 4;

/// How much is searched.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Worlds after which the search is given up.
    pub states_max: usize,
    /// Worlds for which room is made at first, 9 bytes each and 13 at the end. A search that needs more is begun again with four times as much.
    pub room: usize,
    /// The one share of the faults that is searched, from 1; otherwise all are. One that does not exist is not complete.
    pub share: Option<usize>,
}

/// Shown every world, nearest first.
type Visitor<'a> = &'a mut dyn FnMut(Ends<'_>);

/// How far a search has come.
#[derive(Debug, Clone, Copy)]
pub struct Progress {
    /// Which share of the faults is searched, from 1, and of how many.
    pub share: [usize; 2],
    /// Different worlds so far.
    pub states: usize,
    /// Ways from one to another so far.
    pub transitions: usize,
    /// How far from the beginning.
    pub depth: usize,
    /// Different endpoints, envelopes, and steps that were worked out in this share.
    pub parts: [usize; 3],
}

/// Told of progress now and then.
pub type Watcher<'a> = &'a mut dyn FnMut(Progress);

/// After how many worlds a watcher is told.
const TOLD_EVERY: usize = 1 << 18;

struct Search<'a> {
    parts: Parts<'a>,
    visited: Visited,
    /// For each world, in the order of visits, from which one it was first reached.
    ways: Spool,
    /// For each world one way on without a fault; for one in which nothing is left to wish for, and first, itself.
    on: Spool,
    /// Whether it needed more room than it had.
    is_full: bool,
    found: Exploration,
    visitor: Option<Visitor<'a>>,
    /// Worlds in which fewer losses of everything are still to come than in those that are looked at now, by how many.
    later: Vec<Spool>,
    /// How many are still to come in the worlds that are looked at now.
    wipes: u8,
    /// How often a watcher was told.
    told: usize,
}

/// Worlds to be looked at, in as few words as they take: of each its number, and the world.
#[derive(Default)]
struct Layer {
    words: Vec<u32>,
}

/// Visits every world of that scope, or as many as `states_max`.
#[must_use]
pub fn explore(scope: &Scope, plant: Option<Plant>, states_max: usize) -> Exploration {
    explore_watched(scope, plant, Limits { states_max, room: ROOM, share: None }, &mut |_| {})
}

/// The same, and says now and then how far it has come.
///
/// Each way to share the faults between the two endpoints is searched by itself. A world knows which faults are left for whom, so
/// no two of these searches have a world in common, and together they are the search of all. With a share one of them is made:
/// each can then have a process, and the memory of a machine, to itself.
#[must_use]
pub fn explore_watched(scope: &Scope, plant: Option<Plant>, limits: Limits, watcher: Watcher<'_>) -> Exploration {
    let (shares, only) = (scope.budget.shares(), limits.share);
    let exists = only.is_none_or(|only| (1..=shares.len()).contains(&only));
    let mut all = Exploration { complete: exists, ..Exploration::default() };
    for (number, share) in (1..).zip(&shares).filter(|(number, _)| only.is_none_or(|only| only == *number)) {
        let before = all.clone();
        let states_max = limits.states_max.saturating_sub(before.states);
        let mut tell = |found: &Exploration| {
            let states = before.states + found.states;
            let transitions = before.transitions + found.transitions;
            let (share, depth, parts) = ([number, shares.len()], found.depth, found.parts);
            watcher(Progress { share, states, transitions, depth, parts });
        };
        let mut room = limits.room.clamp(1, states_max.max(1));
        all.add(loop {
            let mut search = Search::new(scope, plant, room, None);
            search.run(*share, &mut tell);
            if !search.is_full || room >= states_max {
                break search.found;
            }
            room = room.saturating_mul(MORE_ROOM).min(states_max);
        });
        if !all.complete || all.counterexample.is_some() {
            break;
        }
    }
    all
}

/// Shows the endpoints of every world of that scope to a visitor, which must be one without a counterexample, nearest first.
pub(super) fn visit_each(scope: &Scope, visitor: Visitor<'_>) {
    for share in scope.budget.shares() {
        let mut search = Search::new(scope, None, VISITED_MAX, Some(&mut *visitor));
        search.run(share, &mut |_| {});
        assert!(search.found.complete, "a world that is visited is small, and its temporary files can be written");
    }
}

impl Exploration {
    fn add(&mut self, other: Self) {
        self.states += other.states;
        self.transitions += other.transitions;
        self.depth = self.depth.max(other.depth);
        self.ends += other.ends;
        self.healed += other.healed;
        self.parts.iter_mut().zip(other.parts).for_each(|(part, more)| *part += more);
        self.journals += other.journals;
        self.complete &= other.complete;
        self.counterexample = self.counterexample.take().or(other.counterexample);
        self.unread = self.unread.take().or(other.unread);
    }
}

impl<'a> Search<'a> {
    fn new(scope: &'a Scope, plant: Option<Plant>, room: usize, visitor: Option<Visitor<'a>>) -> Self {
        let found = Exploration { complete: true, ..Exploration::default() };
        let wipes = scope.budget.wipes;
        let later = (0..wipes).map(|_| Spool::new()).collect();
        let (parts, visited, ways, on) = (Parts::new(scope, plant), Visited::new(room), Spool::new(), Spool::new());
        Self { parts, visited, ways, on, is_full: false, found, visitor, later, wipes, told: 0 }
    }

    fn run(&mut self, share: [Budget; 2], tell: &mut dyn FnMut(&Exploration)) {
        // Only a search that came to its end knows what can be reached from where.
        if self.search(share, tell) {
            self.look_for_stuck(share);
        }
        (self.found.parts, self.found.journals) = (self.parts.counts(), self.parts.journals_count());
    }

    /// Returns whether it came to its end and found nothing.
    fn search(&mut self, share: [Budget; 2], tell: &mut dyn FnMut(&Exploration)) -> bool {
        let mut layer = Layer::default();
        let first = self.parts.first(share);
        let print = print(&first, &mut Vec::new());
        if let Err(place) = self.visited.find(print) {
            let at = self.visit(place, print, &first, At::NOWHERE);
            layer.add(at, &first);
        }
        let (mut world, mut next) = (first, Layer::default());
        loop {
            self.found.depth += 1;
            let mut begin = 0;
            while begin < layer.words.len() {
                let at = At(layer.words[begin]);
                begin += 1;
                begin += world.read(&layer.words[begin..]);
                if let Err((action, violation)) = self.expand(at, &world, &mut next) {
                    self.counterexample(share, at, Some(action), violation);
                    return false;
                }
                if self.is_full || self.is_unwritable() {
                    return false;
                }
                if self.found.states / TOLD_EVERY > self.told {
                    self.told = self.found.states / TOLD_EVERY;
                    self.found.parts = self.parts.counts();
                    tell(&self.found);
                }
            }
            std::mem::swap(&mut layer, &mut next);
            next.words.clear();
            while layer.words.is_empty() {
                let Some(mut later) = self.later.pop() else { return true };
                self.wipes -= 1;
                if let Err(error) = later.read(|[word]| layer.words.push(word)) {
                    self.unread(&error);
                    return false;
                }
            }
        }
    }

    fn expand(&mut self, at: At, world: &World, next: &mut Layer) -> Result<(), (Action, Violation)> {
        let (mut actions, mut after, mut words) = (Vec::new(), world.clone(), Vec::new());
        let mut spare = world.clone();
        if let Some(twin) = self.twin(world, &mut spare, &mut words) {
            // It was found before its twin was.
            self.on.add(&[at.0, twin.0]);
            return Ok(());
        }
        let mut best = None;
        self.parts.actions(world, &mut actions);
        for action in actions {
            if !self.parts.after(world, action, &mut after).map_err(|wrong| (action, wrong))? {
                continue;
            }
            self.found.transitions += 1;
            let to = self.reach(at, &after, next, (&mut spare, &mut words)).map_err(|wrong| (action, wrong))?;
            if !action.is_fault() && to != at {
                let rank = (rank(action), to);
                best = Some(best.map_or(rank, |best: (u8, At)| best.min(rank)));
            }
        }
        if let Some((_, to)) = best {
            self.on.add(&[at.0, to.0]);
        }
        Ok(())
    }

    /// The number of that world, which is looked at later if it was not seen before.
    fn reach(
        &mut self,
        from: At,
        world: &World,
        next: &mut Layer,
        (twin, words): (&mut World, &mut Vec<u32>),
    ) -> Result<At, Violation> {
        let print = print(world, words);
        let slot = match self.visited.find(print) {
            Ok(known) => return Ok(known),
            Err(slot) => slot,
        };
        // Those with fewer losses of everything to come are looked at when all with more were.
        let wipes = Some(world.wipes()).filter(|wipes| *wipes < self.wipes);
        if wipes.is_none()
            && let Some(twin) = self.twin(world, twin, words)
        {
            return Ok(twin);
        }
        self.parts.check(world)?;
        let to = self.visit(slot, print, world, from);
        match wipes.and_then(|wipes| self.later.get_mut(usize::from(wipes))) {
            Some(later) => {
                words.clear();
                words.push(to.0);
                world.write(words);
                later.add(words);
            }
            None => next.add(to, world),
        }
        Ok(to)
    }

    /// A world that was seen and differs from that one only in that the broker may lose everything more often. Nobody makes it do so,
    /// so whatever can happen in the one can happen in the other.
    fn twin(&self, world: &World, twin: &mut World, words: &mut Vec<u32>) -> Option<At> {
        let scope = self.parts.scope;
        if scope.plain {
            return None;
        }
        twin.become_like(world);
        (world.wipes() + 1..=scope.budget.wipes).find_map(|wipes| {
            twin.left.iter_mut().for_each(|left| left.wipes = wipes);
            self.visited.find(print(twin, words)).ok()
        })
    }

    /// Notes a world that was not seen before.
    fn visit(&mut self, place: usize, print: [u64; 2], world: &World, from: At) -> At {
        let Some(at) = self.visited.add(place, print) else {
            (self.is_full, self.found.complete) = (true, false);
            return from;
        };
        self.ways.add(&[at.0, from.0]);
        if let Some(visitor) = &mut self.visitor {
            let [server, agent] = &self.parts.both(world);
            visitor(Ends([server, agent]));
        }
        self.found.states += 1;
        if let Some(healed) = self.parts.end_of(world) {
            self.on.add(&[at.0, at.0]);
            self.found.ends += 1;
            self.found.healed += usize::from(healed);
        }
        at
    }

    /// Looks for a world from which no way without a fault leads to an end.
    fn look_for_stuck(&mut self, share: [Budget; 2]) {
        // Those whose one noted way on goes round in a circle, 8 million of 1,149 in the largest share. Of them every way is looked at.
        let lost = match by_place(&mut self.on, self.visited.places()) {
            Ok(on) => self.visited.lost(on),
            Err(error) => return self.unread(&error),
        };
        if lost.is_empty() {
            return;
        }
        let from = match by_place(&mut self.ways, self.visited.places()) {
            Ok(from) => from,
            Err(error) => return self.unread(&error),
        };
        let mut open: HashMap<At, usize> = HashMap::new();
        let mut ways = Vec::new();
        for at in lost {
            let (world, before) = self.way_to(share, at, &from);
            open.insert(at, before.len());
            for action in self.actions(&world).into_iter().filter(|action| !action.is_fault()) {
                let mut after = world.clone();
                if let Ok(true) = self.parts.after(&world, action, &mut after) {
                    let to = self.visited.find(print(&after, &mut Vec::new())).ok();
                    let to = to.or_else(|| self.twin(&after, &mut world.clone(), &mut Vec::new()));
                    ways.extend(to.map(|to| (at, to)));
                }
            }
        }
        loop {
            let before = ways.len();
            ways.retain(|(from, to)| {
                if !open.contains_key(to) {
                    open.remove(from);
                }
                open.contains_key(from)
            });
            if ways.len() == before {
                break;
            }
        }
        if let Some((stuck, _)) = open.into_iter().min_by_key(|(at, far)| (*far, *at)) {
            self.counterexample(share, stuck, None, Violation::Stuck);
        }
    }

    /// Whether something that it needs later was not written.
    fn is_unwritable(&mut self) -> bool {
        let spools = self.later.iter().chain([&self.on, &self.ways]);
        let failed = spools.filter_map(Spool::failed).next().map(ToString::to_string);
        self.found.complete &= failed.is_none();
        self.found.unread = failed.or_else(|| self.found.unread.take());
        self.found.unread.is_some()
    }

    fn unread(&mut self, error: &io::Error) {
        self.found.unread = Some(error.to_string());
        self.found.complete = false;
    }

    fn actions(&self, world: &World) -> Vec<Action> {
        let mut actions = Vec::new();
        self.parts.actions(world, &mut actions);
        actions
    }

    /// The actions from the beginning to that world, and that world.
    fn way_to(&mut self, share: [Budget; 2], at: At, from: &[At]) -> (World, Vec<Action>) {
        let mut way = vec![at];
        while let Some(from) = way.last().map(|at| from[at.0 as usize]).filter(|from| *from != At::NOWHERE) {
            way.push(from);
        }
        let (mut words, mut world, mut actions) = (Vec::new(), self.parts.first(share), Vec::new());
        for wanted in way.into_iter().rev().skip(1) {
            let mut after = world.clone();
            let mut actions_here = self.actions(&world).into_iter();
            let action = actions_here.find(|action| {
                let done = self.parts.after(&world, *action, &mut after);
                done == Ok(true) && self.visited.is(wanted, print(&after, &mut words))
            });
            actions
                .push(action.expect("each visited world was reached by an action from the one that is noted for it"));
            world = after;
        }
        (world, actions)
    }

    fn counterexample(&mut self, share: [Budget; 2], at: At, last: Option<Action>, violation: Violation) {
        let (mut actions, last_world) = match by_place(&mut self.ways, self.visited.places()) {
            Ok(from) => {
                let (world, actions) = self.way_to(share, at, &from);
                (actions, self.parts.describe(&world))
            }
            Err(error) => (Vec::new(), format!("the way to it cannot be shown, its notes cannot be read: {error}")),
        };
        actions.extend(last);
        self.found.counterexample = Some(Counterexample { actions, violation, last: last_world });
    }
}

impl Layer {
    fn add(&mut self, at: At, world: &World) {
        self.words.push(at.0);
        world.write(&mut self.words);
    }
}

/// For each place what was first noted for it.
fn by_place(notes: &mut Spool, places: usize) -> io::Result<Vec<At>> {
    let mut noted = vec![At::NOWHERE; places];
    notes.read(|[at, to]| {
        let first = &mut noted[at as usize];
        if *first == At::NOWHERE {
            *first = At(to);
        }
    })?;
    Ok(noted)
}

fn print(world: &World, words: &mut Vec<u32>) -> [u64; 2] {
    words.clear();
    world.write(words);
    fingerprint(words)
}

/// Which way on is noted: one that takes what is there before one that says something more.
const fn rank(action: Action) -> u8 {
    match action {
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
