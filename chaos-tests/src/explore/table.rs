//! The table of states and inputs: what a session makes of everything that it may be told, in every state that small worlds
//! lead it to. It is made by trying, never written by hand.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write as _};
use std::hash::{DefaultHasher, Hash, Hasher};

use journal::{Change, Direction, Row};
use link::session::{Effects, Fault, Freeze, Published, Rewound, Session};
use messages::{Envelope, decode};

use super::check::Ends;
use super::scope::{Budget, Scope, Side, TIMERS, id};
use super::search::visit_each;
use super::stimulus::{Response, Stimulus};

/// How far the stream that an endpoint sends has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Sending {
    Nothing,
    Unpublished,
    Unreceived,
    Unsettled,
}

/// How far the stream that it receives has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Receiving {
    Unheard,
    NotAgreed,
    Nothing,
    ToApply,
    Held,
}

/// What people distinguish.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum State {
    Runs { side: Role, connected: bool, heard: bool, sending: Sending, receiving: Receiving },
    Stopped { side: Role, connected: bool, diverged: bool },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Role {
    Server,
    Agent,
}

type Facts = BTreeSet<String>;

/// What was seen of one state and one stimulus: what always came of it, and what came of it at all.
struct Cell {
    always: Facts,
    ever: Facts,
}

/// The worlds that are walked through.
fn scopes() -> [Scope; 2] {
    let calm =
        Scope { messages: 2, budget: Budget::default(), statuses: 1, short_reads: false, patient: true, plain: false };
    let restored = Budget { rollbacks: 1, ..Budget::default() };
    let died = Budget { crashes: 1, ..Budget::default() };
    [Scope { messages: 1, budget: restored, ..calm }, Scope { budget: died, ..calm }]
}

/// The table, as a page.
#[must_use]
pub fn table() -> String {
    let mut cells = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for scope in scopes() {
        visit_each(&scope, &mut |world| {
            for side in Side::BOTH {
                if seen.insert(fingerprint(world, side)) {
                    try_all(world, side, &world.end(side).session, &mut cells);
                    // Nothing stops streams in these worlds, so they are stopped by what no correct peer says.
                    for cause in [Stimulus::WrongMessage, Stimulus::ShowsBehind] {
                        let mut stopped = world.end(side).session.clone();
                        let _ = cause.given(world, side, &mut stopped);
                        if stopped.frozen(&id(side.other())).is_some() {
                            try_all(world, side, &stopped, &mut cells);
                        }
                    }
                }
            }
        });
    }
    page(&cells)
}

/// All that an answer to a stimulus depends on.
fn fingerprint(world: Ends<'_>, side: Side) -> u64 {
    let mut hasher = DefaultHasher::new();
    let (end, other) = (world.end(side), world.end(side.other()));
    (&end.session, &end.disk, &end.loads, &end.held, &other.session).hash(&mut hasher);
    hasher.finish()
}

fn try_all(world: Ends<'_>, side: Side, session: &Session, cells: &mut BTreeMap<(Stimulus, State), Cell>) {
    for stimulus in Stimulus::ALL {
        let mut after = session.clone();
        let Some(response) = stimulus.given(world, side, &mut after) else { continue };
        let facts = facts(side, session, &after, response);
        let cell = cells.entry((stimulus, state(world, side, session)));
        cell.and_modify(|cell| {
            cell.always = cell.always.intersection(&facts).cloned().collect();
            cell.ever.extend(facts.iter().cloned());
        })
        .or_insert_with(|| Cell { always: facts.clone(), ever: facts.clone() });
    }
}

fn state(world: Ends<'_>, side: Side, session: &Session) -> State {
    let peer = id(side.other());
    let streams = session.state().peers.get(&peer).cloned().unwrap_or_default();
    let (out, last) = (&streams.outgoing, streams.outgoing.next.previous());
    let connected = world.end(side).connected;
    let role = if side == Side::Server { Role::Server } else { Role::Agent };
    if let Some(freeze) = session.frozen(&peer) {
        return State::Stopped { side: role, connected, diverged: matches!(freeze, Freeze::Diverged { .. }) };
    }
    let published = session.under_way(&peer).map_or(0, |way| way.published);
    let sending = if out.settled == last {
        Sending::Nothing
    } else if out.received == last {
        Sending::Unsettled
    } else if published < messages::Seq::count(last) {
        Sending::Unpublished
    } else {
        Sending::Unreceived
    };
    let receiving = match &streams.incoming {
        None => Receiving::Unheard,
        Some(row) if row.own.is_none() => Receiving::NotAgreed,
        Some(row) if row.applied < row.through => Receiving::ToApply,
        Some(_) if !streams.work.is_empty() => Receiving::Held,
        Some(_) => Receiving::Nothing,
    };
    State::Runs { side: role, connected, heard: session.heard(&peer), sending, receiving }
}

fn facts(side: Side, before: &Session, after: &Session, response: Response) -> Facts {
    let peer = id(side.other());
    let (changes, effects) = match response {
        Ok(done) => done,
        Err(why) => return [format!("refused: {}", without_numbers(&why))].into(),
    };
    let mut facts = Facts::new();
    facts.extend(changes.iter().map(|change| change_fact(change).to_owned()));
    effect_facts(&effects, &mut facts);
    let mut became = |fact: &str, was: bool, is: bool| {
        if is && !was {
            facts.insert(fact.to_owned());
        }
    };
    became("**stopped**", before.frozen(&peer).is_some(), after.frozen(&peer).is_some());
    became("goes on", before.frozen(&peer).is_none(), after.frozen(&peer).is_none());
    became("known to be heard", before.heard(&peer), after.heard(&peer));
    let due = |session: &Session| {
        let (status, probe) = session.timers(&peer);
        (status.is_some_and(|at| at <= TIMERS.status), probe.is_some_and(|at| at < TIMERS.probe))
    };
    became("status due", due(before).0, due(after).0);
    became("question due", due(before).1, due(after).1);
    facts
}

/// Words in which nothing depends on the world.
fn without_numbers(words: &str) -> String {
    words.split(' ').map(|word| if word.parse::<u64>().is_ok() { "…" } else { word }).collect::<Vec<_>>().join(" ")
}

const fn change_fact(change: &Change) -> &'static str {
    match change {
        Change::Put(Row::Header(..) | Row::Body(..)) => "journals the message",
        Change::Put(Row::Outgoing(..)) => "journals the sending row",
        Change::Put(Row::Incoming(..)) => "journals the receiving row",
        Change::Put(Row::Work(..)) => "journals work",
        Change::DeleteWork(..) => "ends work",
        Change::DropBodies(Direction::Out, ..) | Change::DropHeaders(Direction::Out, ..) => "drops what it sent",
        Change::DropBodies(Direction::In, ..) | Change::DropHeaders(Direction::In, ..) => "drops what it received",
        Change::Put(Row::Meta(_) | Row::Totals(_) | Row::App(..)) | Change::DeleteApp(_) => "journals something else",
    }
}

fn effect_facts(effects: &Effects, facts: &mut Facts) {
    for publish in &effects.publish {
        facts.insert(match publish.what {
            Published::Message(_) => "publishes".to_owned(),
            Published::Resent(_) => "publishes again".to_owned(),
            Published::Log => "publishes a log".to_owned(),
            Published::Status => match decode(publish.frame.bytes().to_vec()) {
                Ok(Envelope::Status(status)) if status.probe.is_some() => "asks".to_owned(),
                _ => "says a status".to_owned(),
            },
        });
    }
    let mut when = |fact: &str, is: bool| {
        if is {
            facts.insert(fact.to_owned());
        }
    };
    when("reads its journal", !effects.load.is_empty());
    when("acknowledged to the broker", !effects.acknowledge.is_empty());
    when("dead-lettered", !effects.discard.is_empty());
    when("hands the log on", !effects.logs.is_empty());
    when("offers", !effects.offer.is_empty());
    for rewound in &effects.rewound {
        when("this journal lost something", matches!(rewound, Rewound::Own(_)));
        when("the peer's journal lost something", matches!(rewound, Rewound::Peers(_)));
    }
    for fault in effects.faults.iter().filter(|fault| !matches!(fault, Fault::Frozen { .. })) {
        let words = format!("{fault:?}");
        let name = words.split([' ', '{', '(']).next().unwrap_or_default();
        when(&format!("`{name}`"), true);
    }
}

fn page(cells: &BTreeMap<(Stimulus, State), Cell>) -> String {
    let states: BTreeSet<State> = cells.keys().map(|(_, state)| *state).collect();
    let number = |state: &State| states.range(..=*state).count();
    let mut page = String::from(HEAD);
    // Writing to a string cannot fail.
    for state in &states {
        let _ = writeln!(page, "| {} | {state} |", number(state));
    }
    for stimulus in Stimulus::ALL {
        let mut rows: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for ((_, state), cell) in cells.iter().filter(|((of, _), _)| *of == stimulus) {
            rows.entry(cell.to_string()).or_default().push(number(state));
        }
        let missing = states.iter().filter(|state| !cells.contains_key(&(stimulus, **state)));
        let missing: Vec<usize> = missing.map(number).collect();
        if !missing.is_empty() {
            rows.entry("*(does not come about)*".to_owned()).or_default().extend(missing);
        }
        let mut rows: Vec<_> = rows.into_iter().collect();
        rows.sort_by_key(|(_, states)| states.first().copied());
        let _ = writeln!(page, "\n### {}\n\n| In states | What comes of it |\n|---|---|", stimulus.title());
        for (outcome, states) in rows {
            let _ = writeln!(page, "| {} | {outcome} |", spans(&states));
        }
    }
    page
}

/// Numbers in order, with runs drawn together.
fn spans(numbers: &[usize]) -> String {
    let mut spans: Vec<(usize, usize)> = Vec::new();
    for number in numbers {
        match spans.last_mut() {
            Some((_, last)) if *last + 1 == *number => *last = *number,
            _ => spans.push((*number, *number)),
        }
    }
    let text = |(from, to): &(usize, usize)| if from == to { from.to_string() } else { format!("{from}-{to}") };
    spans.iter().map(text).collect::<Vec<_>>().join(", ")
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sure = self.always.iter().cloned();
        let words: Vec<_> =
            sure.chain(self.ever.difference(&self.always).map(|fact| format!("perhaps: {fact}"))).collect();
        f.write_str(if words.is_empty() { "nothing" } else { "" })?;
        f.write_str(&words.join("; "))
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let link = |connected| if connected { "connected" } else { "not connected" };
        match *self {
            Self::Stopped { side, connected, diverged } => {
                let why = if diverged { "the chain is contradicted" } else { "this journal is an old copy" };
                write!(f, "{side:?} | {} | | **stopped** | {why}", link(connected))
            }
            Self::Runs { side, connected, heard, sending, receiving } => {
                let heard = if heard { "yes" } else { "no" };
                let sending = match sending {
                    Sending::Nothing => "nothing open",
                    Sending::Unpublished => "something to publish",
                    Sending::Unreceived => "something not known to be received",
                    Sending::Unsettled => "something received, not settled",
                };
                let receiving = match receiving {
                    Receiving::Unheard => "the peer was never heard",
                    Receiving::NotAgreed => "not agreed yet",
                    Receiving::Nothing => "nothing open",
                    Receiving::ToApply => "something to apply",
                    Receiving::Held => "work held",
                };
                write!(f, "{side:?} | {} | {heard} | {sending} | {receiving}", link(connected))
            }
        }
    }
}

const HEAD: &str = "\
# What a session makes of everything, in every state

Made by `longshore-chaos table > docs/session-table.md`; a test compares. Do not edit.

Every state in which two small worlds leave a session is tried with every input, every kind of message and status that makes a
difference, `transact` and `resolve`. The worlds: two messages and a process that dies; one message and a journal that is restored.
A state here stands for many real ones, so an outcome may be one that comes *perhaps*. A status that is *due* follows within
20 ms, a question at once. Nothing stops the streams in these worlds, so stopped states are made: by a
message that contradicts the chain, and by a status that has more of this journal than its own process knows of.

## States

*Heard*: the peer is known to have heard this process.

| State | Whose | Broker | Heard | Sending | Receiving |
|---|---|---|---|---|---|
";
