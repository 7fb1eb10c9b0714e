//! The reference of the messaging benchmarks: lapin as one would use it who wants no message lost by the broker. Persistent publishes
//! with pipelined confirms, manual acknowledgements in groups. No journal, no protocol, nothing of Longshore.

use std::collections::VecDeque;
use std::time::Duration;

use broker_config::QueueType;
use futures_util::StreamExt as _;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
    QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, Consumer, PublisherConfirm};

use super::ends::{body, number_of};
use super::{BenchError, BrokerAt};

/// Publishes without a confirm, and deliveries without an acknowledgement, at most: those of Longshore's own transport.
pub(super) const WINDOW: usize = 1_024;

/// Deliveries that are acknowledged at once.
pub(super) const GROUP: u64 = 64;

/// How long one message may be on its way. Only reached when something is broken, or the machine is.
pub(super) const LIMIT: Duration = Duration::from_secs(60);

/// The largest frame. What the library takes by itself costs a connection many times its memory and CPU time, which would flatter Longshore.
const FRAME_BYTES: u32 = 131_072;

/// A connection with one channel.
pub(super) struct Client {
    pub(super) channel: Channel,
    // Closed when dropped.
    connection: Connection,
}

impl Client {
    pub(super) async fn connect(broker: &BrokerAt) -> Result<Self, BenchError> {
        Self::connect_framed(broker, FRAME_BYTES).await
    }

    /// The same with frames of that size at most.
    pub(super) async fn connect_framed(broker: &BrokerAt, frame_bytes: u32) -> Result<Self, BenchError> {
        let url = format!("{}?heartbeat=10&frame_max={frame_bytes}", broker.url);
        let connection = Connection::connect(&url, ConnectionProperties::default()).await?;
        let channel = connection.create_channel().await?;
        Ok(Self { channel, connection })
    }

    /// One more channel of the same connection.
    pub(super) async fn another_channel(&self) -> Result<Channel, BenchError> {
        Ok(self.connection.create_channel().await?)
    }

    /// Declares an empty queue of that name: one that is there already is deleted first.
    pub(super) async fn queue(&self, name: &str, queue_type: QueueType) -> Result<(), BenchError> {
        self.delete(name).await?;
        let mut arguments = FieldTable::default();
        let word = queue_type.as_str().to_owned();
        arguments.insert("x-queue-type".into(), AMQPValue::LongString(word.into()));
        let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        self.channel.queue_declare(name.into(), options, arguments).await?;
        Ok(())
    }

    /// Deletes a queue, if it is there.
    pub(super) async fn delete(&self, name: &str) -> Result<(), BenchError> {
        self.channel.queue_delete(name.into(), QueueDeleteOptions::default()).await?;
        Ok(())
    }

    /// Begins to consume a queue.
    pub(super) async fn consume(&self, name: &str) -> Result<Consumer, BenchError> {
        let prefetch = u16::try_from(WINDOW).expect("the window fits");
        self.channel.basic_qos(prefetch, BasicQosOptions::default()).await?;
        let consumer =
            self.channel.basic_consume(name.into(), "".into(), BasicConsumeOptions::default(), FieldTable::default());
        Ok(consumer.await?)
    }

    /// Switches confirms on.
    pub(super) async fn confirms(&self) -> Result<(), BenchError> {
        Ok(self.channel.confirm_select(ConfirmSelectOptions::default()).await?)
    }

    /// Publishes one persistent message, and returns what its confirm will come out of.
    pub(super) async fn publish(&self, queue: &str, body: &[u8]) -> Result<PublisherConfirm, BenchError> {
        let properties = BasicProperties::default().with_delivery_mode(2);
        let options = BasicPublishOptions::default();
        Ok(self.channel.basic_publish("".into(), queue.into(), options, body, properties).await?)
    }

    /// Acknowledges everything up to that delivery.
    pub(super) async fn acknowledge(&self, tag: u64) -> Result<(), BenchError> {
        Ok(self.channel.basic_ack(tag, BasicAckOptions { multiple: true }).await?)
    }
}

/// Waits for a confirm.
pub(super) async fn confirmed(confirm: PublisherConfirm) -> Result<(), BenchError> {
    match confirm.await? {
        Confirmation::Ack(_) => Ok(()),
        Confirmation::Nack(_) | Confirmation::NotRequested => Err(BenchError::Nacked),
    }
}

/// Publishes that many messages to one queue, with confirms in a window.
pub(super) async fn produce(client: &Client, queue: &str, count: u64) -> Result<(), BenchError> {
    produce_to(client, (0..count).map(|number| (queue, number))).await
}

/// Publishes messages by queue and number, with confirms in a window.
pub(super) async fn produce_to(client: &Client, messages: impl Iterator<Item = (&str, u64)>) -> Result<(), BenchError> {
    let mut waiting = VecDeque::with_capacity(WINDOW);
    for (queue, number) in messages {
        if waiting.len() == WINDOW
            && let Some(oldest) = waiting.pop_front()
        {
            confirmed(oldest).await?;
        }
        waiting.push_back(client.publish(queue, &body(number)).await?);
    }
    for confirm in waiting {
        confirmed(confirm).await?;
    }
    Ok(())
}

/// Messages of a run that have not arrived yet. They may arrive in any order and any of them twice: a quorum queue that was made a moment ago
/// gives its first messages out so now and then. What is counted is messages, each once.
pub(super) struct Missing {
    seen: Vec<bool>,
    /// How many they are.
    pub(super) count: u64,
}

impl Missing {
    /// All of that many.
    pub(super) fn all(count: u64) -> Self {
        Self { seen: vec![false; usize::try_from(count).expect("they fit in memory")], count }
    }

    /// Notes that this one arrived, and returns its number.
    pub(super) fn arrived(&mut self, body: &[u8]) -> Result<u64, BenchError> {
        let found = number_of(body).unwrap_or(u64::MAX);
        let expected = (self.seen.len() as u64).saturating_sub(1);
        let place = usize::try_from(found).ok().and_then(|place| self.seen.get_mut(place));
        let Some(place) = place else {
            return Err(BenchError::Wrong { what: "the number of a message that arrived", expected, found });
        };
        self.count -= u64::from(!std::mem::replace(place, true));
        Ok(found)
    }
}

/// Takes that many messages and acknowledges them in groups.
pub(super) async fn take(client: &Client, consumer: &mut Consumer, queue: &str, count: u64) -> Result<(), BenchError> {
    let (mut missing, mut unacknowledged) = (Missing::all(count), 0);
    while missing.count > 0 {
        let delivery = next(consumer, queue).await?;
        missing.arrived(&delivery.data)?;
        unacknowledged += 1;
        if unacknowledged == GROUP || missing.count == 0 {
            client.acknowledge(delivery.delivery_tag).await?;
            unacknowledged = 0;
        }
    }
    Ok(())
}

/// Checks that a body is the one of that number.
pub(super) fn in_order(body: &[u8], expected: u64) -> Result<(), BenchError> {
    let found = number_of(body).unwrap_or(u64::MAX);
    let what = "the number of a message that arrived";
    if found == expected { Ok(()) } else { Err(BenchError::Wrong { what, expected, found }) }
}

/// The next delivery.
pub(super) async fn next(consumer: &mut Consumer, queue: &str) -> Result<lapin::message::Delivery, BenchError> {
    let delivery = within("a delivery", consumer.next()).await?;
    Ok(delivery.ok_or_else(|| BenchError::Cancelled { queue: queue.to_owned() })??)
}

/// Waits, but not for ever.
pub(super) async fn within<T>(what: &str, wait: impl Future<Output = T>) -> Result<T, BenchError> {
    let timed_out = |_| BenchError::TimedOut { what: what.to_owned(), seconds: LIMIT.as_secs() };
    tokio::time::timeout(LIMIT, wait).await.map_err(timed_out)
}
