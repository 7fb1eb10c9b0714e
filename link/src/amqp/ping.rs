//! Trying a queue that is suspected to be stuck, and deleting it if it is, so that it is declared anew.
//!
//! A quorum queue whose only member comes back from a crash may never elect itself (seen on RabbitMQ 3.10.8 when the broker
//! is killed within seconds of the queue's declaration). It is there, it can be asked for, but it takes and gives nothing
//! for ever. Or its process is down, because it could not be started with its node: then the broker answers for it that it has neither
//! messages nor consumers, refuses every publish, and fails when somebody consumes from it. What was in a queue is lost with it, which the journals make
//! good like any other loss. Only the server does this, and only to queues that do not answer a ping, which is an empty message that the transport
//! at the other end drops, or that refuse it while they hold nothing.

use std::time::Duration;

use broker_config::{DOWN_EXCHANGE, agent_queue_name, down_key};
use lapin::message::Delivery;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Confirmation};
use messages::AgentId;
use tokio::time::sleep;

use super::CALL_LIMIT;
use super::dial::Link;
use super::failure::{Failure, within};

/// The AMQP message type of a ping.
const TYPE: &str = "longshore.ping";

/// For a queue to confirm a ping. A healthy one needs milliseconds; a leader change that takes longer ends in a needless
/// deletion, which costs that what was in the queue is sent again.
const PING_LIMIT: Duration = Duration::from_secs(4);

/// For the broker to delete a queue without a leader: it waits for the leader first, then does it by force.
const DELETE_LIMIT: Duration = Duration::from_secs(30);

/// Whether a delivery is a ping, and not for the driver.
pub(super) fn is_ping(delivery: &Delivery) -> bool {
    delivery.data.is_empty() && delivery.properties.kind().as_ref().is_some_and(|kind| kind.as_str() == TYPE)
}

/// What became of a ping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    /// The broker took it, also if it found no queue: what is missing is declared.
    Taken,
    /// It was refused, as a full queue does it, one that changes its leader, or one whose process is down.
    Refused,
}

/// Whether the broker says that an agent's queue has neither messages nor consumers, as it says of one whose process is down. A queue that
/// refuses a message because it is full holds many.
pub(super) async fn holds_nothing(link: &Link, agent: &AgentId) -> bool {
    match agent_queue_name(agent.as_str()) {
        Ok(queue) => is_empty(link, &queue).await.unwrap_or(false),
        Err(_) => false,
    }
}

async fn is_empty(link: &Link, queue: &str) -> Result<bool, Failure> {
    // Of its own, since a no ends it.
    let channel = link.channel().await?;
    let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    let ask = channel.queue_declare(queue.into(), options, FieldTable::default());
    let found = within(CALL_LIMIT, "asking for a queue", ask).await?.map_err(|e| Failure::of(&e))?;
    Ok(found.message_count() == 0 && found.consumer_count() == 0)
}

/// Deletes a queue that the broker could not use, if it says that nothing is in it.
pub(super) async fn delete_if_empty(link: &Link, queue: &str) {
    if is_empty(link, queue).await.unwrap_or(false) {
        tracing::warn!(%queue, "A queue is there by name, but its process is down; it is made anew, and what was in it is sent again.");
        delete(link, queue).await;
    }
}

/// Tries an agent's queue, and deletes it if it does not answer, or refuses everything while it holds nothing.
pub(super) async fn delete_if_stuck(link: &Link, agent: &AgentId) {
    let (Ok(queue), Ok(key)) = (agent_queue_name(agent.as_str()), down_key(agent.as_str())) else { return };
    let mut answer = ping(link, &key).await;
    if matches!(answer, Ok(Answer::Refused)) && holds_nothing(link, agent).await {
        // A change of leader is over by then.
        sleep(PING_LIMIT).await;
        answer = ping(link, &key).await;
    }
    match answer {
        Ok(Answer::Refused) => delete_if_empty(link, &queue).await,
        Ok(Answer::Taken) => tracing::debug!(%queue, "A queue was suspected to be stuck, but it answers."),
        Err(failure) => {
            tracing::warn!(%queue, %failure, "A queue takes nothing; it is made anew, and what was in it is sent again.");
            delete(link, &queue).await;
        }
    }
}

/// Publishes an empty message to one queue, on a channel of its own, and waits for the confirm.
async fn ping(link: &Link, key: &str) -> Result<Answer, Failure> {
    let channel = link.channel().await?;
    let select = channel.confirm_select(ConfirmSelectOptions::default());
    within(CALL_LIMIT, "switching confirms on", select).await?.map_err(|e| Failure::of(&e))?;
    let properties = BasicProperties::default().with_delivery_mode(1).with_type(TYPE.into());
    let answer = async {
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        channel.basic_publish(DOWN_EXCHANGE.into(), key.into(), options, &[], properties).await?.await
    };
    match within(PING_LIMIT, "the confirm of a ping", answer).await?.map_err(|e| Failure::of(&e))? {
        Confirmation::Ack(_) | Confirmation::NotRequested => Ok(Answer::Taken),
        Confirmation::Nack(_) => Ok(Answer::Refused),
    }
}

/// Deletes a queue that is stuck. The broker may take its time, or fail; the declaration that follows tells.
pub(super) async fn delete(link: &Link, queue: &str) {
    let deleted = async {
        let channel = link.channel().await?;
        let delete = channel.queue_delete(queue.into(), QueueDeleteOptions::default());
        within(DELETE_LIMIT, "deleting a queue that is stuck", delete).await?.map_err(|e| Failure::of(&e))
    };
    match deleted.await {
        Ok(_) => tracing::info!(%queue, "A stuck queue was deleted."),
        Err(failure) => tracing::warn!(%queue, %failure, "A stuck queue could not be deleted."),
    }
}
