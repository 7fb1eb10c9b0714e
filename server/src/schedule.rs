//! Who gets which run, and why the others wait. Pure: it looks at the books and at what is known of the agents, and names the next
//! run to give out. What it says of a run that waits is the very condition that keeps it back.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use messages::{AgentFacts, AgentId, JobId, RefusalCode, RunId};

use crate::books::Books;
use crate::job_file::{Target, Who};
use crate::pace::EndedLately;
use crate::records::{AgentRow, Policy};
use crate::tally::Counts;
use crate::views::counted;

/// Runs given to an agent for each of its slots, so that it has the next one when a run ends; of jobs that are quick more ([`AgentNow::lately`]). A
/// run that any agent may do waits at the server instead.
const RUNS_FOR_A_SLOT: usize = 2;

/// What is known of an agent at the moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct AgentNow {
    /// It was heard from lately.
    pub(crate) online: bool,
    /// Its streams are stopped.
    pub(crate) frozen: bool,
    /// Runs that it does at once; 0 until it has said so.
    pub(crate) slots: u16,
    /// It takes nothing new.
    pub(crate) draining: bool,
    /// Why it takes nothing now.
    pub(crate) refusing: Option<RefusalCode>,
    /// The server's own disk is too full to give anything to anybody.
    pub(crate) server_short: bool,
    /// Runs that it ended lately in as long as its reports and the next orders may be on their way, by the name of their job: without so many
    /// more of these it would wait for those.
    pub(crate) lately: EndedLately,
}

/// What is known of all agents at the moment.
pub(crate) type Fleet = BTreeMap<AgentId, AgentNow>;

/// A run to be given out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Assignment {
    /// The job.
    pub(crate) job: JobId,
    /// The run that waits for this agent; nothing for one that has still to be made.
    pub(crate) run: Option<RunId>,
    /// The agent.
    pub(crate) agent: AgentId,
}

/// What keeps a run back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Hold {
    /// The server's own disk is too full.
    Disk,
    /// Its job is being ended.
    Cancelled,
    /// Another job holds the group.
    Group { group: String, holder: JobId },
    /// Too many runs of the job did not succeed.
    Failed,
    /// As many runs of the job are under way as may be.
    Parallel { limit: usize },
    /// The server does not know the agent any more.
    Unknown(AgentId),
    /// An operator gives it nothing.
    Paused(AgentId, String),
    /// It is to finish what it has, and take nothing new.
    Drained(AgentId, String),
    /// It takes nothing new, by itself.
    Draining(AgentId),
    /// Its streams are stopped.
    Frozen(AgentId),
    /// It refuses work at the moment.
    Refusing(AgentId, RefusalCode),
    /// It does one run only, and had it.
    Once(AgentId),
    /// It has as many runs as it is given.
    Busy { agent: AgentId, load: usize, slots: usize, online: bool },
    /// Nobody is like that.
    NoMatch { of: usize },
    /// Nobody who is like that can take it now; why, of one of them.
    NoneFree { matching: usize, example: Box<Self> },
    /// Who could do it cannot be reached.
    Offline(AgentId),
}

impl fmt::Display for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disk => f.write_str("the server's disk is too full to give out more work"),
            Self::Cancelled => f.write_str("its job is being cancelled"),
            Self::Group { group, holder } => write!(f, "the group `{group}` is held by job {holder}"),
            Self::Failed => f.write_str("too many other runs of the job did not succeed"),
            Self::Parallel { limit: 1 } => f.write_str("a run of the job is under way, and no more may be at once"),
            Self::Parallel { limit } => write!(f, "{limit} runs of the job are under way, and no more may be at once"),
            Self::Unknown(agent) => write!(f, "the server's configuration does not name agent {agent} any more"),
            Self::Paused(agent, note) if note.is_empty() => write!(f, "agent {agent} is paused"),
            Self::Paused(agent, note) => write!(f, "agent {agent} is paused: {note}"),
            Self::Drained(agent, note) if note.is_empty() => write!(f, "agent {agent} is drained"),
            Self::Drained(agent, note) => write!(f, "agent {agent} is drained: {note}"),
            Self::Draining(agent) => write!(f, "agent {agent} is draining"),
            Self::Frozen(agent) => {
                write!(f, "the streams with agent {agent} are stopped; see `longshore reconcile show {agent}`")
            }
            Self::Refusing(agent, code) => write!(f, "agent {agent} takes no work now: {}", word(*code)),
            Self::Once(agent) => write!(f, "agent {agent} does one run only, and had it"),
            Self::Busy { agent, load, slots, online } => {
                let there = if *online { "" } else { " and cannot be reached" };
                write!(f, "agent {agent} has {} for {}{there}", counted(*load, "run"), counted(*slots, "slot"))
            }
            Self::NoMatch { of } => write!(f, "0 of {of} agents match"),
            Self::NoneFree { matching: 1, example } => write!(f, "{example}"),
            Self::NoneFree { matching, example } => {
                write!(f, "none of the {matching} agents that match is free: {example}")
            }
            Self::Offline(agent) => write!(f, "agent {agent} cannot be reached"),
        }
    }
}

pub(crate) const fn word(code: RefusalCode) -> &'static str {
    match code {
        RefusalCode::Message => "it cannot act on such messages",
        RefusalCode::Draining => "it is draining",
        RefusalCode::Full => "it has as many runs as it takes",
        RefusalCode::Disk => "its disk is too full",
        RefusalCode::OneRunOnly => "it does one run only",
    }
}

/// Whether an agent is one of those that a job is for.
#[must_use]
pub(crate) fn matches(target: &Target, agent: &AgentId, facts: Option<&AgentFacts>) -> bool {
    match &target.who {
        Who::All => true,
        Who::Agents(agents) => agents.contains(agent),
        Who::Matching { pool, labels } => facts.is_some_and(|facts| {
            pool.as_ref().is_none_or(|pool| facts.pool.as_ref() == Some(pool)) && labels.matches(&facts.labels)
        }),
    }
}

fn slots(now: &AgentNow, row: Option<&AgentRow>) -> usize {
    let told = row.and_then(|row| row.facts.as_ref()).map_or(0, |facts| facts.slots);
    usize::from(now.slots.max(told).max(1))
}

/// Whether an agent does one run in its life.
fn does_one(row: Option<&AgentRow>) -> bool {
    row.is_some_and(|row| row.facts.as_ref().is_some_and(|facts| facts.once))
}

/// Why an agent is given nothing more. `any` speaks of a run that other agents could do as well.
pub(crate) fn agent_hold(books: &Books, fleet: &Fleet, agent: &AgentId, any: bool) -> Option<Hold> {
    let Some(now) = fleet.get(agent) else { return Some(Hold::Unknown(agent.clone())) };
    let row = books.agent(agent);
    let name = || agent.clone();
    if now.server_short {
        return Some(Hold::Disk);
    }
    if now.frozen {
        return Some(Hold::Frozen(name()));
    }
    if let Some(note) = row.and_then(|row| row.draining.as_ref()) {
        return Some(Hold::Drained(name(), note.clone()));
    }
    if let Some(note) = row.and_then(|row| row.paused.as_ref()) {
        return Some(Hold::Paused(name(), note.clone()));
    }
    if now.draining {
        return Some(Hold::Draining(name()));
    }
    if let Some(code) = now.refusing {
        return Some(Hold::Refusing(name(), code));
    }
    let once = does_one(row);
    if once && row.is_some_and(|row| row.once.is_some()) {
        return Some(Hold::Once(name()));
    }
    if any && !now.online {
        return Some(Hold::Offline(name()));
    }
    let (slots, load) = (slots(now, row), books.tally().load(agent));
    let most = if once { 1 } else { slots * if any { 1 } else { RUNS_FOR_A_SLOT } };
    (load >= most).then(|| Hold::Busy { agent: name(), load, slots, online: now.online })
}

/// Whether an agent is given more runs, be it of some jobs only.
fn takes_some(books: &Books, fleet: &Fleet, agent: &AgentId) -> bool {
    match agent_hold(books, fleet, agent, false) {
        None => true,
        Some(Hold::Busy { .. }) => fleet.get(agent).is_some_and(|now| !now.lately.is_empty()),
        Some(_) => false,
    }
}

/// Why an agent is given no more runs of jobs of that name that only it can do. It is given more of quick ones than of others: as many as it has
/// ended lately beyond one for each slot, which it could have ended in any time. So a run that takes long is bound to it no earlier.
pub(crate) fn bound_hold(books: &Books, fleet: &Fleet, agent: &AgentId, name: &str) -> Option<Hold> {
    let hold = agent_hold(books, fleet, agent, false)?;
    let Hold::Busy { load, slots, .. } = &hold else { return Some(hold) };
    let ended = fleet.get(agent).and_then(|now| now.lately.get(name)).copied().unwrap_or(0);
    let most = slots * RUNS_FOR_A_SLOT + ended.saturating_sub(*slots);
    (does_one(books.agent(agent)) || *load >= most).then_some(hold)
}

/// Whether so many runs of a job ended badly that no more are begun.
#[must_use]
pub(crate) fn too_many_failed(policy: &Policy, counts: Counts) -> bool {
    policy.target.max_failed.is_some_and(|most| counts.badly > usize::try_from(most).unwrap_or(usize::MAX))
}

/// Why nothing more of a job is given out.
pub(crate) fn job_hold(books: &Books, job: JobId) -> Option<Hold> {
    let row = books.job(job)?;
    if row.cancelled.is_some() {
        return Some(Hold::Cancelled);
    }
    let policy = row.policy.as_ref()?;
    if let Some(concurrency) = &policy.concurrency {
        let holder = books.tally().holder(&concurrency.group).filter(|holder| *holder != job);
        if let Some(holder) = holder {
            return Some(Hold::Group { group: concurrency.group.clone(), holder });
        }
    }
    let counts = books.counts(job);
    if too_many_failed(policy, counts) {
        return Some(Hold::Failed);
    }
    let limit = policy.at_once(counts.runs());
    (counts.under_way() >= limit).then_some(Hold::Parallel { limit })
}

/// Why the run that has still to be made for a job is not made.
pub(crate) fn unassigned_hold(books: &Books, fleet: &Fleet, job: JobId) -> Option<Hold> {
    if let Some(hold) = job_hold(books, job) {
        return Some(hold);
    }
    let policy = books.job(job)?.policy.as_ref()?;
    let facts = |agent: &AgentId| books.agent(agent).and_then(|row| row.facts.as_ref());
    let matching: Vec<&AgentId> = fleet.keys().filter(|agent| matches(&policy.target, agent, facts(agent))).collect();
    let holds: Option<Vec<Hold>> = matching.iter().map(|agent| agent_hold(books, fleet, agent, true)).collect();
    match holds?.into_iter().next() {
        None => Some(Hold::NoMatch { of: fleet.len() }),
        Some(example) => Some(Hold::NoneFree { matching: matching.len(), example: Box::new(example) }),
    }
}

/// The next run to give out, to the least busy of those agents that take one; nothing when there is none. `open` holds the agents
/// still to be looked at: one that has nothing to wait for is taken out.
pub(crate) fn next(books: &Books, fleet: &Fleet, open: &mut BTreeSet<AgentId>) -> Option<Assignment> {
    let share = |agent: &AgentId| {
        let now = fleet.get(agent).cloned().unwrap_or_default();
        // Parts of ten thousand, to compare without fractions.
        (books.tally().load(agent) * 10_000 / slots(&now, books.agent(agent)), agent.clone())
    };
    let mut agents: Vec<(usize, AgentId)> = open.iter().map(share).collect();
    agents.sort();
    for (_, agent) in agents {
        if takes_some(books, fleet, &agent)
            && let Some((job, run)) = choose(books, fleet, &agent)
        {
            return Some(Assignment { job, run, agent });
        }
        open.remove(&agent);
    }
    None
}

/// What an agent that takes a run is given: of the name whose turn it is the run that has waited longest.
fn choose(books: &Books, fleet: &Fleet, agent: &AgentId) -> Option<(JobId, Option<RunId>)> {
    let tally = books.tally();
    let empty = BTreeMap::new();
    let own = tally.queue(agent).unwrap_or(&empty);
    let takes_any = agent_hold(books, fleet, agent, true).is_none();
    let any = if takes_any { tally.unassigned() } else { const { &BTreeMap::new() } };
    let facts = books.agent(agent).and_then(|row| row.facts.as_ref());
    let mut names: Vec<&String> = own.keys().chain(any.keys()).collect();
    names.sort_by_key(|name| (tally.turn(name), *name));
    names.dedup();
    for name in names {
        let free = |job: JobId| job_hold(books, job).is_none();
        let own = own.get(name).filter(|_| bound_hold(books, fleet, agent, name).is_none());
        let bound = own.and_then(|runs| runs.iter().find(|((_, job), _)| free(*job)));
        let wanted = |job: JobId| {
            let policy = books.job(job).and_then(|row| row.policy.as_ref());
            policy.is_some_and(|policy| matches(&policy.target, agent, facts))
                && free(job)
                && favourite(books, fleet, job).is_none_or(|favourite| favourite == agent)
        };
        let loose = any.get(name).and_then(|places| places.iter().find(|(_, job)| wanted(*job)));
        match (bound, loose) {
            (Some((place, run)), loose) if loose.is_none_or(|other| place <= other) => {
                return Some((place.1, Some(*run)));
            }
            (_, Some((_, job))) => return Some((*job, None)),
            (None, None) | (Some(_), None) => {}
        }
    }
    None
}

/// The agent that a job which is to stay with its agent goes to before all others: the one that had the last of its kind, if that can
/// take it now.
fn favourite<'a>(books: &'a Books, fleet: &Fleet, job: JobId) -> Option<&'a AgentId> {
    let row = books.job(job)?;
    let policy = row.policy.as_ref()?;
    let last = books.tally().last(policy.kin(&row.name)?)?;
    let facts = books.agent(last).and_then(|row| row.facts.as_ref());
    (matches(&policy.target, last, facts) && agent_hold(books, fleet, last, true).is_none()).then_some(last)
}

/// The least busy agent that can have the run of a job for one, if no other job waits for one.
pub(crate) fn least_busy(books: &Books, fleet: &Fleet, job: JobId) -> Option<AgentId> {
    let policy = books.job(job)?.policy.as_ref()?;
    let others = books.tally().unassigned().values().map(BTreeSet::len).sum::<usize>() > 1;
    let facts = |agent: &AgentId| books.agent(agent).and_then(|row| row.facts.as_ref());
    let free = |agent: &&AgentId| {
        matches(&policy.target, agent, facts(agent))
            && books.tally().queue(agent).is_none()
            && agent_hold(books, fleet, agent, true).is_none()
    };
    let share = |agent: &&AgentId| {
        let now = fleet.get(*agent).cloned().unwrap_or_default();
        books.tally().load(agent) * 10_000 / slots(&now, books.agent(agent))
    };
    let mut agents = fleet.keys().filter(|_| !others).filter(free);
    match favourite(books, fleet, job) {
        // If it has others to take first, the run waits for its turn there.
        Some(favourite) => agents.find(|agent| *agent == favourite).cloned(),
        None => agents.min_by_key(share).cloned(),
    }
}

#[cfg(test)]
mod tests;
