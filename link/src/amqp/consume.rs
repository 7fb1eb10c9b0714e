//! Consumes one queue and settles its deliveries, on a connection that never publishes, so that a broker that blocks
//! publishers takes settlements all the same. What came together is taken apart here and settled once all of it is. Never settles by
//! itself, except what is too large for an envelope.
//!
//! A consumer may be deaf. When a queue is deleted and declared again before the end of the old one has got to the channel in the broker, RabbitMQ does
//! not say that the consumer was cancelled: it consumes the new queue for it, as it would after a change of leader, and then forgets the queue of
//! that name, because the old one has ended. What the new one delivers is dropped from then on, for as long as the channel lasts, and nothing that can be
//! asked shows it. (`rabbit_channel`, `handle_consuming_queue_down_or_eol`, seen on 3.10.8; the argument that would forbid it,
//! `x-cancel-on-ha-failover`, is refused for quorum queues.) So where nothing was delivered for a while, the queue is consumed anew on another channel.

use std::collections::VecDeque;
use std::pin::pin;
use std::time::Duration;

use futures_util::StreamExt as _;
use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions, BasicRejectOptions};
use lapin::types::FieldTable;
use lapin::{Channel, Consumer};
use messages::limits::ENVELOPE_BYTES_MAX;
use messages::unbundle;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use super::CALL_LIMIT;
use super::bundles::Takers;
use super::config::Role;
use super::dial::Link;
use super::failure::{Failure, within};
use super::ping;
use super::settle::{Decision, Delivered, Settlements, Step};
use crate::seldom::Seldom;
use crate::session::DeliveryTag;
use crate::wire::WireEvent;

/// Deliveries that may be open, each of one envelope or of several. They wait in the library's memory, and come again after a break.
const PREFETCH: u16 = 512;

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
    /// Begins to consume, on a channel of its own.
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
        (link, listen_anew): (&Link, Duration),
        (connection, role, takers): (u64, &Role, &Takers),
        settlements: &Settlements,
        events: &mpsc::Sender<WireEvent>,
    ) -> Result<(), Failure> {
        let mut waiting: VecDeque<WireEvent> = VecDeque::new();
        let (mut soon, mut due) = (pin!(sleep(Duration::ZERO)), false);
        let (mut quiet, mut heard) = (pin!(sleep(listen_anew)), Instant::now());
        loop {
            tokio::select! {
                permit = events.reserve(), if !waiting.is_empty() => match (permit, waiting.pop_front()) {
                    (Ok(permit), Some(event)) => {
                        permit.send(event);
                        hand_over(events, &mut waiting);
                    }
                    (Ok(_), None) => {}
                    (Err(_), _) => return Ok(()),
                },
                delivery = self.consumer.next(), if waiting.is_empty() => match delivery {
                    Some(Ok(delivery)) => {
                        heard = Instant::now();
                        waiting.extend(take_in((connection, role, takers), settlements, delivery)?);
                        hand_over(events, &mut waiting);
                    }
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
                () = &mut quiet, if waiting.is_empty() => {
                    if heard.elapsed() >= listen_anew {
                        self.listen_anew(link, settlements).await?;
                        heard = Instant::now();
                    }
                    quiet.as_mut().reset(heard + listen_anew);
                }
            }
        }
    }

    /// Consumes on a new channel. What the old consumer was given and nobody has seen goes back into the queue with the end of its channel.
    async fn listen_anew(&mut self, link: &Link, settlements: &Settlements) -> Result<(), Failure> {
        self.settle(settlements).await?;
        // Tags belong to their channel. Whatever is open was heard, and what is decided of it is told on the old one first.
        if !settlements.begin_anew() {
            return Ok(());
        }
        let anew = Self::open(link, self.queue.clone()).await?;
        let old = std::mem::replace(self, anew);
        let close = old.channel.close(200, "consuming anew".into());
        within(CALL_LIMIT, "closing a channel", close).await?.map_err(|e| Failure::of_life(&e))
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

/// As many as there is room for at once. When the driver is gone they stay, which the next wait for room tells.
fn hand_over(events: &mpsc::Sender<WireEvent>, waiting: &mut VecDeque<WireEvent>) {
    while !waiting.is_empty()
        && let Ok(permit) = events.try_reserve()
        && let Some(event) = waiting.pop_front()
    {
        permit.send(event);
    }
}

fn take_in(
    (connection, role, takers): (u64, &Role, &Takers),
    settlements: &Settlements,
    delivery: Delivery,
) -> Result<Vec<WireEvent>, Failure> {
    let (expected, found) = (settlements.expected(), delivery.delivery_tag);
    if expected != found {
        return Err(Failure::TagOrder { expected, found });
    }
    if ping::is_ping(&delivery) {
        settlements.delivered(Delivered::Decided(Decision::Acknowledge));
        return Ok(Vec::new());
    }
    takers.note(role, &delivery);
    let bytes = delivery.data;
    if bytes.len() > ENVELOPE_BYTES_MAX {
        if let Some(left_out) = TOO_LARGE.now() {
            tracing::warn!(
                bytes = bytes.len(),
                left_out,
                "a delivery is too large for an envelope and goes to the dead queue"
            );
        }
        settlements.delivered(Delivered::Decided(Decision::Reject));
        return Ok(Vec::new());
    }
    let envelopes = unbundle(bytes);
    settlements.delivered(Delivered::Open(envelopes.len()));
    let tag = DeliveryTag { connection, tag: found };
    Ok(envelopes.into_iter().map(|bytes| WireEvent::Delivery { tag, bytes }).collect())
}
