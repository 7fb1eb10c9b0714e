//! Consumes one queue and settles its deliveries, on a connection that never publishes, so that a broker that blocks
//! publishers takes settlements all the same. Never settles by itself, except what is too large for an envelope.

use std::pin::pin;
use std::time::Duration;

use futures_util::StreamExt as _;
use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions, BasicRejectOptions};
use lapin::types::FieldTable;
use lapin::{Channel, Consumer};
use messages::limits::ENVELOPE_BYTES_MAX;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use super::CALL_LIMIT;
use super::dial::Link;
use super::failure::{Failure, within};
use super::ping;
use super::settle::{Decision, Settlements, Step};
use crate::seldom::Seldom;
use crate::session::DeliveryTag;
use crate::wire::WireEvent;

/// Deliveries that may be open. They wait in the library's memory, and come again after a break.
const PREFETCH: u16 = 1_024;

/// How long an acknowledgement may wait for others. A quorum queue writes each into its log and syncs it: one that is sent at once is in
/// the way of the answer to the very message that it is about. Nobody waits for one; after a break what was not acknowledged comes
/// again, and is known.
const ACKNOWLEDGED_WITHIN: Duration = Duration::from_millis(10);

/// A queue that is consumed.
pub(super) struct Inbox {
    channel: Channel,
    consumer: Consumer,
    queue: String,
}

impl Inbox {
    /// Begins to consume.
    pub(super) async fn open(link: &Link, queue: String) -> Result<Self, Failure> {
        let channel = link.channel().await?;
        let qos = channel.basic_qos(PREFETCH, BasicQosOptions::default());
        within(CALL_LIMIT, "setting the prefetch", qos).await?.map_err(|e| Failure::of(&e))?;
        let name = queue.as_str().into();
        let consume = channel.basic_consume(name, "".into(), BasicConsumeOptions::default(), FieldTable::default());
        let stuck = |_| Failure::Stuck { queue: queue.clone(), after: CALL_LIMIT };
        let consumer = within(CALL_LIMIT, "beginning to consume", consume).await.map_err(stuck)?;
        let consumer = consumer.map_err(|e| Failure::of_consume(&e, &queue))?;
        Ok(Self { channel, consumer, queue })
    }

    /// Hands deliveries to the driver and its decisions to the broker, until the connection fails or the driver is gone
    /// (`Ok`). Decisions go on while the driver is too slow to take deliveries.
    pub(super) async fn run(
        &mut self,
        connection: u64,
        settlements: &Settlements,
        events: &mpsc::Sender<WireEvent>,
    ) -> Result<(), Failure> {
        let mut waiting: Option<WireEvent> = None;
        let (mut soon, mut due) = (pin!(sleep(Duration::ZERO)), false);
        loop {
            tokio::select! {
                permit = events.reserve(), if waiting.is_some() => match (permit, waiting.take()) {
                    (Ok(permit), Some(event)) => permit.send(event),
                    (Ok(_), None) => {}
                    (Err(_), _) => return Ok(()),
                },
                delivery = self.consumer.next(), if waiting.is_none() => match delivery {
                    Some(Ok(delivery)) => waiting = take_in(connection, settlements, delivery)?,
                    Some(Err(error)) => return Err(Failure::of_life(&error)),
                    None => return Err(Failure::Cancelled { queue: self.queue.clone() }),
                },
                () = settlements.changed() => {
                    if settlements.is_urgent() {
                        due = false;
                        self.settle(settlements).await?;
                    } else if !due {
                        due = true;
                        soon.as_mut().reset(Instant::now() + ACKNOWLEDGED_WITHIN);
                    }
                }
                () = &mut soon, if due => {
                    due = false;
                    self.settle(settlements).await?;
                }
            }
        }
    }

    /// Tells the broker what can be told.
    pub(super) async fn settle(&self, settlements: &Settlements) -> Result<(), Failure> {
        for step in settlements.ready() {
            let done = match step {
                Step::AcknowledgeThrough(tag) => {
                    let ack = self.channel.basic_ack(tag, BasicAckOptions { multiple: true });
                    within(CALL_LIMIT, "acknowledging", ack).await?
                }
                Step::Reject(tag) => {
                    let reject = self.channel.basic_reject(tag, BasicRejectOptions { requeue: false });
                    within(CALL_LIMIT, "rejecting", reject).await?
                }
            };
            done.map_err(|e| Failure::of_life(&e))?;
        }
        Ok(())
    }
}

// Whoever can publish can make this happen as often as he likes.
static TOO_LARGE: Seldom = Seldom::new();

fn take_in(connection: u64, settlements: &Settlements, delivery: Delivery) -> Result<Option<WireEvent>, Failure> {
    let (expected, found) = (settlements.expected(), delivery.delivery_tag);
    if expected != found {
        return Err(Failure::TagOrder { expected, found });
    }
    if ping::is_ping(&delivery) {
        settlements.delivered(Some(Decision::Acknowledge));
        return Ok(None);
    }
    let bytes = delivery.data;
    if bytes.len() > ENVELOPE_BYTES_MAX {
        if let Some(left_out) = TOO_LARGE.now() {
            tracing::warn!(
                bytes = bytes.len(),
                left_out,
                "a delivery is too large for an envelope and goes to the dead queue"
            );
        }
        settlements.delivered(Some(Decision::Reject));
        return Ok(None);
    }
    settlements.delivered(None);
    Ok(Some(WireEvent::Delivery { tag: DeliveryTag { connection, tag: found }, bytes }))
}
