//! How fast agents end runs: counted as they report it, for as long as that says anything. It is lost with the process, and decides
//! nothing: the scheduler does.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use messages::AgentId;

/// How long a report and the next order are on their way at most, as a rule: an agent with much to do keeps its reports for up to 20 ms, and two
/// commits and two messages take as long again on a busy machine.
const TO_AND_FRO: Duration = Duration::from_millis(50);

/// Runs of one agent that are counted at most, which bounds what is remembered. No agent needs more ahead.
const RUNS_MAX: usize = 1_000;

/// When agents ended runs lately.
#[derive(Debug, Default)]
pub(crate) struct Pace(Mutex<BTreeMap<AgentId, VecDeque<Instant>>>);

impl Pace {
    /// Notes that an agent ended another run.
    pub(crate) fn ended(&self, agent: &AgentId, now: Instant) {
        // Each change of it is complete before anything can panic.
        let mut ends = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let ends = match ends.get_mut(agent) {
            Some(ends) => ends,
            None => ends.entry(agent.clone()).or_default(),
        };
        if ends.len() == RUNS_MAX {
            ends.pop_front();
        }
        ends.push_back(now);
    }

    /// How many runs each agent ended in as long as messages go to and fro. Those that ended none for a while are not among them.
    pub(crate) fn lately(&self, now: Instant) -> Vec<(AgentId, usize)> {
        let mut ends = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut lately = Vec::new();
        ends.retain(|agent, ends| {
            let over = ends.iter().take_while(|at| now.saturating_duration_since(**at) >= TO_AND_FRO).count();
            ends.drain(..over);
            // Once more when it has none left, so that nobody goes on with an earlier number.
            lately.push((agent.clone(), ends.len()));
            !ends.is_empty()
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
        pace.ended(&slow, start);
        (0..40).for_each(|_| pace.ended(&quick, start + TO_AND_FRO / 2));
        let lately = |at| pace.lately(start + at);
        assert_eq!(lately(TO_AND_FRO / 2), [(quick.clone(), 40), (slow.clone(), 1)]);
        assert_eq!(lately(TO_AND_FRO), [(quick.clone(), 40), (slow, 0)]);
        assert_eq!(lately(TO_AND_FRO), [(quick.clone(), 40)]);
        assert_eq!(lately(2 * TO_AND_FRO), [(quick.clone(), 0)]);
        assert_eq!(lately(2 * TO_AND_FRO), []);
        (0..2 * RUNS_MAX).for_each(|_| pace.ended(&quick, start));
        assert_eq!(lately(Duration::ZERO), [(quick, RUNS_MAX)]);
    }
}
