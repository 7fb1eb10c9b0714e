//! How fast agents end runs: counted as they report it, and told when the dispatcher looks at them. It is lost with the process, and
//! decides nothing: the scheduler does.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use messages::AgentId;

/// How long a report and the next order are on their way at most, as a rule: an agent with much to do keeps its reports for up to 20 ms, and two
/// commits and two messages take as long again on a busy machine.
const TO_AND_FRO: Duration = Duration::from_millis(50);

/// Runs that agents ended since somebody asked.
#[derive(Debug)]
pub(crate) struct Pace(Mutex<Counting>);

#[derive(Debug)]
struct Counting {
    since: Instant,
    ended: BTreeMap<AgentId, u32>,
}

impl Pace {
    /// Counts from now on.
    pub(crate) fn new(now: Instant) -> Self {
        Self(Mutex::new(Counting { since: now, ended: BTreeMap::new() }))
    }

    /// Notes that an agent ended another run.
    pub(crate) fn ended(&self, agent: &AgentId) {
        let mut counting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match counting.ended.get_mut(agent) {
            Some(runs) => *runs = runs.saturating_add(1),
            None => drop(counting.ended.insert(agent.clone(), 1)),
        }
    }

    /// How many runs each agent ends while messages go to and fro, from what it ended since this was asked last. Those that ended none are not
    /// among them.
    pub(crate) fn take(&self, now: Instant) -> BTreeMap<AgentId, usize> {
        // Each change of it is complete before anything can panic.
        let mut counting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let since = std::mem::replace(&mut counting.since, now);
        let ended = std::mem::take(&mut counting.ended);
        drop(counting);
        // Whoever asks twice in a moment learns what was in that moment, not more.
        let counted = now.saturating_duration_since(since).max(TO_AND_FRO);
        let share = |runs: u32| TO_AND_FRO.saturating_mul(runs).as_nanos() / counted.as_nanos();
        ended.into_iter().map(|(agent, runs)| (agent, usize::try_from(share(runs)).unwrap_or(usize::MAX))).collect()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_that_ends_many_runs_in_a_short_time_has_more_ahead_and_one_that_takes_long_has_none() {
        let start = Instant::now();
        let pace = Pace::new(start);
        let [quick, slow]: [AgentId; 2] = ["quick", "slow"].map(|name| name.parse().unwrap());
        (0..80).for_each(|_| pace.ended(&quick));
        pace.ended(&slow);
        let later = start + 2 * TO_AND_FRO;
        assert_eq!(pace.take(later), BTreeMap::from([(quick.clone(), 40), (slow, 0)]));
        // What was told is not told again.
        assert_eq!(pace.take(later), BTreeMap::new());
        (0..3).for_each(|_| pace.ended(&quick));
        assert_eq!(pace.take(later), BTreeMap::from([(quick, 3)]));
    }
}
