//! Looking at a broker: can it be reached, and is what we need there. Changes nothing on it.

use broker_config::Topology;
use lapin::options::{ExchangeDeclareOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use messages::AgentId;

use super::CALL_LIMIT;
use super::config::AmqpConfig;
use super::dial::{Link, Purpose, dial};
use super::failure::{Failure, within};

/// Why the broker could not be looked at.
#[derive(Debug, thiserror::Error)]
#[error("{reason}")]
pub struct CheckError {
    /// In words, without the password.
    pub reason: String,
}

/// One thing that must be there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What: `exchange longshore.v1.up`, `queue longshore.v1.server`.
    pub what: String,
    /// Why it is not as it should be; nothing when it is.
    pub problem: Option<String>,
    /// Messages that wait in it; nothing for an exchange.
    pub messages: Option<u32>,
    /// Who consumes from it; nothing for an exchange.
    pub consumers: Option<u32>,
}

/// Connects, and asks for every exchange and queue that the server and these agents need.
///
/// # Errors
/// [`CheckError`] when the broker cannot be reached or refuses to be asked.
pub async fn check(config: &AmqpConfig, agents: &[AgentId]) -> Result<Vec<Finding>, CheckError> {
    let failed = |failure: Failure| CheckError { reason: failure.to_string() };
    let link = dial(config, Purpose::Consume).await.map_err(failed)?;
    let topology = Topology { queue_type: config.queue_type, ..Topology::default() };
    let mut findings = Vec::new();
    for exchange in topology.exchanges() {
        let problem = ask_exchange(&link, exchange.name).await.map_err(failed)?;
        findings.push(Finding {
            what: format!("exchange {}", exchange.name),
            problem,
            messages: None,
            consumers: None,
        });
    }
    let mut queues: Vec<String> = topology.server_queues().into_iter().map(|queue| queue.name).collect();
    for agent in agents {
        queues.push(topology.agent_queue(agent.as_str()).map_err(Failure::from).map_err(failed)?.name);
    }
    for name in queues {
        findings.push(ask_queue(&link, &name).await.map_err(failed)?);
    }
    Ok(findings)
}

async fn ask_exchange(link: &Link, name: &str) -> Result<Option<String>, Failure> {
    // A question that is answered badly closes its channel, so each has its own.
    let channel = link.channel().await?;
    let options = ExchangeDeclareOptions { passive: true, ..ExchangeDeclareOptions::default() };
    let ask = channel.exchange_declare(name.into(), lapin::ExchangeKind::Topic, options, FieldTable::default());
    Ok(within(CALL_LIMIT, "asking for an exchange", ask).await?.err().map(|e| problem(&Failure::of(&e))))
}

async fn ask_queue(link: &Link, name: &str) -> Result<Finding, Failure> {
    // A question that is answered badly closes its channel, so each has its own.
    let channel = link.channel().await?;
    let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    let ask = channel.queue_declare(name.into(), options, FieldTable::default());
    let what = format!("queue {name}");
    Ok(match within(CALL_LIMIT, "asking for a queue", ask).await? {
        Ok(queue) => Finding {
            what,
            problem: None,
            messages: Some(queue.message_count()),
            consumers: Some(queue.consumer_count()),
        },
        Err(error) => Finding { what, problem: Some(problem(&Failure::of(&error))), messages: None, consumers: None },
    })
}

fn problem(failure: &Failure) -> String {
    match failure {
        Failure::Protocol { code: 404, .. } => "it is missing; a running server declares it".to_owned(),
        other => other.to_string(),
    }
}
