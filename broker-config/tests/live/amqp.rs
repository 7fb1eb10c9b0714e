//! A small AMQP client for the tests. Every wait is bounded.

use std::future::Future;
use std::time::Duration;

use broker_config::{ArgValue, Arguments, Binding, ExchangeKind, Queue, Topology};
use futures_util::StreamExt as _;
use lapin::options::{
    BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions,
    ConfirmSelectOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable, LongString};
use lapin::{
    BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, Error, ExchangeKind as LapinKind,
};

const LIMIT: Duration = Duration::from_secs(60);

/// Runs a test's asynchronous part to its end.
pub(crate) fn run<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    runtime.unwrap().block_on(bounded(work))
}

pub(crate) async fn bounded<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(LIMIT, work).await.expect("the broker did not answer within 60 s")
}

pub(crate) async fn connect(url: &str) -> Result<(Connection, Channel), Error> {
    let connection = Connection::connect(url, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    Ok((connection, channel))
}

/// Declares everything of the server and of `agents`, exactly as the data says.
pub(crate) async fn declare(channel: &Channel, topology: &Topology, agents: &[&str]) -> Result<(), Error> {
    for exchange in topology.exchanges() {
        let kind = match exchange.kind {
            ExchangeKind::Direct => LapinKind::Direct,
            ExchangeKind::Topic => LapinKind::Topic,
            ExchangeKind::Fanout => LapinKind::Fanout,
        };
        let options = ExchangeDeclareOptions { durable: true, ..Default::default() };
        channel.exchange_declare(exchange.name.into(), kind, options, FieldTable::default()).await?;
    }
    let mut queues = topology.server_queues();
    let mut bindings = topology.server_bindings();
    for agent in agents {
        queues.push(topology.agent_queue(agent).unwrap());
        bindings.push(topology.agent_binding(agent).unwrap());
    }
    for queue in &queues {
        declare_queue(channel, queue).await?;
    }
    for binding in &bindings {
        bind(channel, binding).await?;
    }
    Ok(())
}

pub(crate) async fn declare_queue(channel: &Channel, queue: &Queue) -> Result<(), Error> {
    let options = QueueDeclareOptions { durable: true, ..Default::default() };
    channel.queue_declare(queue.name.as_str().into(), options, table(&queue.arguments)).await?;
    Ok(())
}

async fn bind(channel: &Channel, binding: &Binding) -> Result<(), Error> {
    let (queue, key) = (binding.queue.as_str().into(), binding.routing_key.as_str().into());
    let options = QueueBindOptions::default();
    channel.queue_bind(queue, binding.exchange.into(), key, options, FieldTable::default()).await
}

fn table(arguments: &Arguments) -> FieldTable {
    let mut table = FieldTable::default();
    for (name, value) in arguments {
        let value = match value {
            ArgValue::String(text) => AMQPValue::LongString(LongString::from(text.as_str())),
            ArgValue::Long(number) => AMQPValue::LongLongInt(*number),
            ArgValue::Bool(flag) => AMQPValue::Boolean(*flag),
        };
        table.insert((*name).into(), value);
    }
    table
}

/// Publishes persistent and mandatory; `true` when the broker took it into a queue.
pub(crate) async fn publish(channel: &Channel, exchange: &str, key: &str, body: &[u8]) -> Result<bool, Error> {
    let options = BasicPublishOptions { mandatory: true, ..Default::default() };
    let properties = BasicProperties::default().with_delivery_mode(2);
    let confirm = channel.basic_publish(exchange.into(), key.into(), options, body, properties).await?;
    Ok(matches!(confirm.await?, Confirmation::Ack(None)))
}

/// Consumes one message and acknowledges it. `basic.get` will not do: a quorum queue with a single active consumer refuses it.
pub(crate) async fn take(channel: &Channel, queue: &str) -> Result<Vec<u8>, Error> {
    let options = BasicConsumeOptions::default();
    channel.basic_qos(1, BasicQosOptions::default()).await?;
    let mut consumer = channel.basic_consume(queue.into(), "".into(), options, FieldTable::default()).await?;
    let delivery = consumer.next().await.expect("the broker cancelled the consumer")?;
    assert!(delivery.acker.ack(BasicAckOptions::default()).await?);
    channel.basic_cancel(consumer.tag(), BasicCancelOptions::default()).await?;
    Ok(delivery.data)
}

/// How many messages a queue holds ready.
pub(crate) async fn count(channel: &Channel, queue: &str) -> Result<u32, Error> {
    let options = QueueDeclareOptions { passive: true, ..Default::default() };
    Ok(channel.queue_declare(queue.into(), options, FieldTable::default()).await?.message_count())
}
