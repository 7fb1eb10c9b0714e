//! The shared broker, an endpoint on a wire, and a look at the broker from outside.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use broker_config::node::{CACHE_ENV, Node, NodeOptions, ensure};
use broker_config::render::ClientCertificate;
use broker_config::{ArgValue, DEAD_QUEUE, QueueType, SERVER_QUEUE, Topology};
use futures_util::StreamExt as _;
use lapin::options::QueuePurgeOptions;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, QueueBindOptions, QueueDeclareOptions,
    QueueDeleteOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use link::amqp::{AmqpConfig, LISTEN_ANEW, Role, TlsFiles};
use link::session::{DeliveryTag, Publish, Published};
use link::wire::{Wire, WireCommand, WireEvent, wire};
use messages::{AgentId, EndpointId, Epoch, Frame, Header, Incarnation, Seq};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::tls::Pki;

/// A test by name.
pub(crate) type Test = (&'static str, fn());

/// How long anything may take before a test fails. Generous: the machine may be busy, and no test measures time.
pub(crate) const PATIENCE: Duration = Duration::from_secs(600);

/// The broker that all tests share.
pub(crate) struct Broker {
    pub(crate) node: Node,
    pub(crate) pki: Pki,
    _dir: TempDir,
}

static BROKER: Mutex<Option<Broker>> = Mutex::new(None);

/// The broker, running, for one test at a time.
pub(crate) struct Held(MutexGuard<'static, Option<Broker>>);

impl std::ops::Deref for Held {
    type Target = Broker;

    fn deref(&self) -> &Broker {
        self.0.as_ref().unwrap()
    }
}

impl std::ops::DerefMut for Held {
    fn deref_mut(&mut self) -> &mut Broker {
        self.0.as_mut().unwrap()
    }
}

/// Waits for the broker to be free, and starts it when a test before left it stopped.
pub(crate) fn broker() -> Held {
    let mut held = BROKER.lock().unwrap_or_else(PoisonError::into_inner);
    let broker = held.get_or_insert_with(|| {
        let cache = std::env::var_os(CACHE_ENV)
            .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../.cache"), PathBuf::from);
        let installation = ensure(&cache, &mut |step| eprintln!("{step}")).unwrap_or_else(|e| panic!("{e}"));
        let dir = tempfile::tempdir().unwrap();
        let pki = Pki::new(dir.path());
        let tls = Some((pki.broker.clone(), ClientCertificate::Required));
        let options = NodeOptions { tls, ..NodeOptions::default() };
        let node = Node::create(&dir.path().join("node"), installation, options).unwrap_or_else(|e| panic!("{e}"));
        Broker { node, pki, _dir: dir }
    });
    if !broker.node.is_running() {
        broker.node.start().unwrap_or_else(|e| panic!("{e}"));
    }
    Held(held)
}

/// Ends the shared broker, if there is one.
pub(crate) fn end_broker() {
    drop(BROKER.lock().unwrap_or_else(PoisonError::into_inner).take());
}

pub(crate) fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

pub(crate) async fn soon<T>(what: &str, wait: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("no {what} in {PATIENCE:?}"))
}

pub(crate) fn agent(name: &str) -> AgentId {
    name.parse().unwrap()
}

pub(crate) fn server_role(agents: &[&str]) -> Role {
    Role::Server { agents: agents.iter().map(|name| agent(name)).collect() }
}

impl Broker {
    pub(crate) fn config(&self, role: Role) -> AmqpConfig {
        AmqpConfig {
            url: self.node.url().parse().unwrap(),
            tls: TlsFiles::default(),
            role,
            queue_type: QueueType::Quorum,
            proxy: None,
            listen_anew: LISTEN_ANEW,
        }
    }

    pub(crate) fn server(&self, agents: &[&str]) -> Endpoint {
        Endpoint::start(self.config(server_role(agents)))
    }

    pub(crate) fn agent(&self, name: &str) -> Endpoint {
        Endpoint::start(self.config(Role::Agent(agent(name))))
    }

    /// A connection of the test's own.
    pub(crate) async fn outside(&self) -> Outside {
        let url = format!("{}?heartbeat=10&frame_max=131072", self.node.url());
        let connection = Connection::connect(&url, ConnectionProperties::default()).await.unwrap();
        let channel = connection.create_channel().await.unwrap();
        Outside { channel, _connection: connection }
    }
}

/// A look at the broker from outside.
pub(crate) struct Outside {
    pub(crate) channel: Channel,
    _connection: Connection,
}

impl Outside {
    /// Empties what tests before may have left.
    pub(crate) async fn tidy(&self) {
        for queue in [SERVER_QUEUE, DEAD_QUEUE] {
            self.channel.queue_purge(queue.into(), QueuePurgeOptions::default()).await.unwrap();
        }
    }

    /// Messages that are in nobody's hands.
    pub(crate) async fn waiting(&self, queue: &str) -> u32 {
        let passive = QueueDeclareOptions { passive: true, durable: true, ..QueueDeclareOptions::default() };
        self.channel.queue_declare(queue.into(), passive, FieldTable::default()).await.unwrap().message_count()
    }

    pub(crate) async fn delete(&self, queue: &str) {
        self.channel.queue_delete(queue.into(), QueueDeleteOptions::default()).await.unwrap();
    }

    /// Deletes an agent's queue and declares and binds it again. All three are with the broker before the first is answered.
    pub(crate) async fn make_anew(&self, agent: &str) {
        let topology = Topology::default();
        let (queue, binding) = (topology.agent_queue(agent).unwrap(), topology.agent_binding(agent).unwrap());
        let value = |value: &ArgValue| match value {
            ArgValue::String(text) => AMQPValue::LongString(text.as_str().into()),
            ArgValue::Long(number) => AMQPValue::LongLongInt(*number),
            ArgValue::Bool(flag) => AMQPValue::Boolean(*flag),
        };
        let arguments: BTreeMap<_, _> = queue.arguments.iter().map(|(name, v)| ((*name).into(), value(v))).collect();
        let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        let name = queue.name.as_str();
        let (exchange, key) = (binding.exchange.into(), binding.routing_key.as_str().into());
        let delete = self.channel.queue_delete(name.into(), QueueDeleteOptions::default());
        let declare = self.channel.queue_declare(name.into(), durable, arguments.into());
        let bind =
            self.channel.queue_bind(name.into(), exchange, key, QueueBindOptions::default(), FieldTable::default());
        let (deleted, declared, bound) = tokio::join!(delete, declare, bind);
        deleted.unwrap();
        declared.unwrap();
        bound.unwrap();
    }

    pub(crate) async fn publish(&self, exchange: &str, key: &str, bytes: &[u8]) {
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let properties = BasicProperties::default().with_delivery_mode(2);
        self.channel.basic_publish(exchange.into(), key.into(), options, bytes, properties).await.unwrap();
    }

    /// Takes that many messages out of a queue, waiting for them.
    pub(crate) async fn take(&self, queue: &str, count: usize) -> Vec<Vec<u8>> {
        let options = BasicConsumeOptions::default();
        let mut consumer =
            self.channel.basic_consume(queue.into(), "taker".into(), options, FieldTable::default()).await.unwrap();
        let mut taken = Vec::new();
        while taken.len() < count {
            let delivery = soon("message in the queue", consumer.next()).await.unwrap().unwrap();
            delivery.ack(BasicAckOptions::default()).await.unwrap();
            taken.push(delivery.data);
        }
        self.channel.basic_cancel("taker".into(), Default::default()).await.unwrap();
        taken
    }
}

/// An endpoint: a transport and the driver's end of its wire.
pub(crate) struct Endpoint {
    pub(crate) wire: Wire,
    shutdown: watch::Sender<bool>,
    transport: JoinHandle<()>,
}

impl Endpoint {
    pub(crate) fn start(config: AmqpConfig) -> Self {
        let (wire, end) = wire();
        let (shutdown, stop) = watch::channel(false);
        Self { wire, shutdown, transport: link::amqp::start(config, end, stop) }
    }

    /// The first event that is of interest. Others are passed over.
    pub(crate) async fn until<T>(&mut self, what: &str, mut pick: impl FnMut(WireEvent) -> Option<T>) -> T {
        soon(what, async {
            loop {
                let event =
                    self.wire.events.recv().await.unwrap_or_else(|| panic!("the transport ended before {what}"));
                if let Some(found) = pick(event) {
                    return found;
                }
            }
        })
        .await
    }

    pub(crate) async fn up(&mut self) -> u64 {
        self.until("connection", |event| match event {
            WireEvent::Up { connection } => Some(connection),
            WireEvent::Down { reason, .. } => {
                eprintln!("down: {reason}");
                None
            }
            _ => None,
        })
        .await
    }

    /// The first reason for being down that holds that text.
    pub(crate) async fn down(&mut self, text: &str) -> String {
        self.until(&format!("Down with `{text}`"), |event| match event {
            WireEvent::Down { reason, .. } if reason.contains(text) => Some(reason),
            WireEvent::Down { reason, .. } => {
                eprintln!("down: {reason}");
                None
            }
            _ => None,
        })
        .await
    }

    pub(crate) async fn delivery(&mut self) -> (DeliveryTag, Vec<u8>) {
        self.until("delivery", |event| match event {
            WireEvent::Delivery { tag, bytes } => Some((tag, bytes)),
            _ => None,
        })
        .await
    }

    pub(crate) async fn command(&self, command: WireCommand) {
        soon("room for a command", self.wire.commands.send(command)).await.unwrap();
    }

    pub(crate) async fn publish(&self, publish: Publish) {
        self.command(WireCommand::Publish(publish)).await;
    }

    pub(crate) async fn acknowledge(&self, tags: &[DeliveryTag]) {
        self.command(WireCommand::Acknowledge(tags.to_vec())).await;
    }

    pub(crate) async fn discard(&self, tags: &[DeliveryTag]) {
        self.command(WireCommand::Discard(tags.to_vec())).await;
    }

    /// Publishes until it gets into a queue, as a session would.
    pub(crate) async fn publish_until_confirmed(&mut self, publish: Publish) {
        loop {
            self.publish(publish.clone()).await;
            let what = publish.what;
            let confirmed = self
                .until("answer to a publish", |event| match event {
                    WireEvent::Confirmed(all) if all.iter().any(|(_, taken)| *taken == what) => Some(true),
                    WireEvent::Refused { what: w, .. } if w == what => Some(false),
                    _ => None,
                })
                .await;
            if confirmed {
                return;
            }
        }
    }

    /// Drops the driver's end and waits for the transport to end by itself.
    pub(crate) async fn abandon(self) {
        let Self { wire, shutdown, transport } = self;
        drop(wire);
        soon("end of the transport", transport).await.unwrap();
        drop(shutdown);
    }

    /// Ends the transport and waits for that.
    pub(crate) async fn stop(mut self) {
        self.shutdown.send(true).unwrap();
        // The transport may be waiting to say something.
        while soon("end of the transport", self.wire.events.recv()).await.is_some() {}
        soon("end of the transport's task", self.transport).await.unwrap();
    }
}

/// A message with that place and body.
pub(crate) fn message(to: EndpointId, seq: u64, body: &[u8]) -> Publish {
    let seq = Seq::new(seq).unwrap();
    let header = Header::new(EndpointId::Server, to.clone(), Incarnation::from_u128(1), Epoch::FIRST);
    Publish { to, what: Published::Message(seq), frame: Frame::message(&header, body).unwrap() }
}

pub(crate) fn to_agent(name: &str) -> EndpointId {
    EndpointId::Agent(agent(name))
}
