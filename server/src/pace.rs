//! How fast agents end the runs of jobs of a name: counted as they report it, for as long as that says anything. It is lost with the process,
//! and decides nothing: the scheduler does.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use messages::AgentId;

/// How long a report and the next order are on their way at most, as a rule: an agent with much to do keeps its reports for up to 20 ms, and two
/// commits and two messages take as long again on a busy machine.
const TO_AND_FRO: Duration = Duration::from_millis(50);

/// Runs of an agent and a name that are counted at most, which bounds what is remembered. Nobody needs more ahead.
const RUNS_MAX: usize = 1_000;

/// How many runs of jobs of each name an agent ended in as long as messages go to and fro.
pub(crate) type EndedLately = BTreeMap<String, usize>;

/// When agents ended runs lately, by the name of the job.
#[derive(Debug, Default)]
pub(crate) struct Pace(Mutex<BTreeMap<AgentId, BTreeMap<String, VecDeque<Instant>>>>);

impl Pace {
    /// Notes that an agent ended another run of a job of that name.
    pub(crate) fn ended(&self, agent: &AgentId, name: &str, now: Instant) {
        // Each change of it is complete before anything can panic.
        let mut agents = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let ends = agents.entry(agent.clone()).or_default().entry(name.to_owned()).or_default();
        if ends.len() == RUNS_MAX {
            ends.pop_front();
        }
        ends.push_back(now);
    }

    /// What each agent ended lately. An agent that ended nothing for a while is not among them.
    pub(crate) fn lately(&self, now: Instant) -> Vec<(AgentId, EndedLately)> {
        let mut agents = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut lately = Vec::new();
        agents.retain(|agent, names| {
            names.retain(|_, ends| {
                let over = ends.iter().take_while(|at| now.saturating_duration_since(**at) >= TO_AND_FRO).count();
                ends.drain(..over);
                !ends.is_empty()
            });
            // Once more when it has none left, so that nobody goes on with earlier numbers.
            lately.push((agent.clone(), names.iter().map(|(name, ends)| (name.clone(), ends.len())).collect()));
            !names.is_empty()
        });
        lately
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_an_agent_ended_counts_until_the_next_orders_could_be_there_and_is_bounded() {
        let (start, pace) = (Instant::now(), Pace::default());
        let [quick, slow]: [AgentId; 2] = ["quick", "slow"].map(|name| name.parse().unwrap());
        pace.ended(&slow, "a", start);
        (0..40).for_each(|_| pace.ended(&quick, "a", start + TO_AND_FRO / 2));
        pace.ended(&quick, "b", start);
        let lately = |at| pace.lately(start + at);
        let of = |names: &[(&str, usize)]| -> EndedLately {
            names.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
        };
        let all = [(quick.clone(), of(&[("a", 40), ("b", 1)])), (slow.clone(), of(&[("a", 1)]))];
        assert_eq!(lately(TO_AND_FRO / 2), all);
        assert_eq!(lately(TO_AND_FRO), [(quick.clone(), of(&[("a", 40)])), (slow, of(&[]))]);
        assert_eq!(lately(TO_AND_FRO), [(quick.clone(), of(&[("a", 40)]))]);
        assert_eq!(lately(2 * TO_AND_FRO), [(quick.clone(), of(&[]))]);
        assert_eq!(lately(2 * TO_AND_FRO), []);
        (0..2 * RUNS_MAX).for_each(|_| pace.ended(&quick, "a", start));
        assert_eq!(lately(Duration::ZERO), [(quick, of(&[("a", RUNS_MAX)]))]);
    }
}
