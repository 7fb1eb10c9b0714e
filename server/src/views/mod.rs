//! What the API says, as data: shared by the server that answers and the command line that asks. Times are milliseconds since
//! 1970 by the clock of whoever saw the event; they are shown to people and decide nothing. Nothing here is ever localised.
//!
//! Every top-level answer is an [`Answer`]: the fields of a view, and `schema`, which names the view and its version. A field may
//! be added under the same version; a change of meaning raises it.

mod error;
mod fleet;
mod job;
mod link;
mod orders;

use std::fmt;

use serde::{Deserialize, Serialize};

pub use error::{ErrorView, Position, ProblemView};
pub use fleet::{AgentCounts, AgentState, AgentView, AgentsView, BrokerView, JobCounts, ServerView};
pub use job::{
    JobLink, JobState, JobSummary, JobView, JobsView, LogView, RunState, RunView, StepState, StepView, SubmitJob,
    UnknownState,
};
pub use link::{DirectionView, LinkView, OutageView};
pub use orders::{AgentOrderWord, CancelJob, OrderAgent, ResolveJob, RetryJob};

/// A number with its noun: `1 run`, `2 runs`.
#[must_use]
pub fn counted<N: fmt::Display + PartialEq + From<u8>>(number: N, noun: &str) -> String {
    let plural = if number == N::from(1) { "" } else { "s" };
    format!("{number} {noun}{plural}")
}

/// A view that can be the whole of an answer.
pub trait Schema {
    /// The view's name and version.
    const SCHEMA: &'static str;
}

/// A view with its schema's name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Answer<T> {
    /// The view's name and version, for example `longshore.job/1`.
    pub schema: String,
    /// The view.
    #[serde(flatten)]
    pub view: T,
}

impl<T: Schema> Answer<T> {
    /// An answer with that view.
    #[must_use]
    pub fn new(view: T) -> Self {
        Self { schema: T::SCHEMA.to_owned(), view }
    }
}

macro_rules! schemas {
    ($($view:ty => $schema:literal),* $(,)?) => { $(impl Schema for $view { const SCHEMA: &'static str = $schema; })* };
}

schemas! {
    JobView => "longshore.job/1",
    JobsView => "longshore.jobs/1",
    LogView => "longshore.log/1",
    AgentView => "longshore.agent/1",
    AgentsView => "longshore.agents/1",
    LinkView => "longshore.link/1",
    ServerView => "longshore.server/1",
    ErrorView => "longshore.error/1",
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use messages::{Incarnation, JobId, RunId};

    use super::*;

    fn round<T: Schema + Serialize + for<'de> Deserialize<'de> + PartialEq + fmt::Debug>(view: T) -> String {
        let answer = Answer::new(view);
        let text = serde_json::to_string(&answer).unwrap();
        assert_eq!(serde_json::from_str::<Answer<T>>(&text).unwrap(), answer);
        text
    }

    #[test]
    fn a_job_has_the_names_that_scripts_rely_on() {
        let step = StepView {
            id: "build".parse().unwrap(),
            effect: "once".into(),
            state: StepState::NeedsDecision,
            attempt: 1,
            detail: None,
            started_ms: Some(5),
            ended_ms: None,
            usage: None,
            outputs: [("version".to_owned(), "1".to_owned())].into(),
            note: None,
            earlier: None,
        };
        let run = RunView {
            id: RunId::from_u128(2),
            agent: "a1".parse().unwrap(),
            state: RunState::NeedsDecision,
            reason: Some("power loss".into()),
            retried: None,
            steps: vec![step],
        };
        let job = JobView {
            id: JobId::from_u128(1),
            name: "x".into(),
            state: JobState::NeedsDecision,
            created_ms: 3,
            ended_ms: None,
            waiting: None,
            cancelled: None,
            retry_of: None,
            chain: Vec::new(),
            runs: vec![run],
        };
        assert_eq!(
            round(job),
            concat!(
                r#"{"schema":"longshore.job/1","id":"00000000-0000-0000-0000-000000000001","name":"x","#,
                r#""state":"needs-decision","created_ms":3,"ended_ms":null,"waiting":null,"cancelled":null,"retry_of":null,"chain":[],"#,
                r#""runs":[{"#,
                r#""id":"00000000-0000-0000-0000-000000000002","agent":"a1","state":"needs-decision","#,
                r#""reason":"power loss","retried":null,"steps":[{"id":"build","effect":"once","state":"needs-decision","attempt":1,"#,
                r#""detail":null,"started_ms":5,"ended_ms":null,"usage":null,"outputs":{"version":"1"},"note":null,"earlier":null}]}]}"#
            )
        );
    }

    #[test]
    fn a_link_survives_the_way_through_json() {
        let direction = DirectionView {
            incarnation: Some(Incarnation::from_u128(u128::MAX)),
            epoch: Some(3),
            last_seq: u64::MAX,
            gaps: vec![(4, 7)],
            ..DirectionView::default()
        };
        round(LinkView {
            peer: "a1".parse().unwrap(),
            outgoing: direction.clone(),
            incoming: direction,
            resent: 17,
            duplicates: 2,
            outages: vec![OutageView { from_ms: 1, to_ms: None, resent: 0 }],
            frozen: None,
            advice: None,
            seen_ms: Some(3),
            broker_connected: true,
        });
    }

    #[test]
    fn an_answer_may_carry_fields_that_this_build_does_not_know() {
        let text = r#"{"schema":"longshore.jobs/1","jobs":[],"more":false,"later":{"a":1}}"#;
        assert!(serde_json::from_str::<Answer<JobsView>>(text).unwrap().view.jobs.is_empty());
    }
}
