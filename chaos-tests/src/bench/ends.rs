//! Two real endpoints of Longshore over a real broker, put together as server and agent do it: journal on disk, session, driver and
//! AMQP transport. What the applications on top would decide is done by the benchmark.

use std::path::Path;
use std::sync::Arc;

use broker_config::{DEAD_QUEUE, SERVER_QUEUE, agent_queue_name};
use journal::Engine;
use link::amqp::{AmqpConfig, LISTEN_ANEW, Role, TlsFiles};
use link::session::{Config, Outbound, Transaction};
use link::{Begun, Endpoint, EndpointView, Service, ServiceConfig, Work};
use messages::{AgentId, EndpointId, Kind, MessageId};
use tokio::sync::watch;
use uuid::Uuid;

use super::raw::{Client, within};
use super::tap::{Counts, tap};
use super::{BenchError, BrokerAt};

/// Bytes of a body.
pub(super) const BODY_BYTES: usize = 1_024;

/// A kind that no application of ours acts on.
const KIND: Kind = Kind::Unknown(9);

/// A running endpoint.
pub(super) struct End {
    pub(super) endpoint: Endpoint,
    /// What it is called.
    pub(super) name: EndpointId,
    service: Service,
    stop: watch::Sender<bool>,
}

/// The agent of that number.
pub(super) fn agent_id(number: u64) -> AgentId {
    format!("bench-{number}").parse().expect("it is a name")
}

fn server_role(agents: u64) -> Role {
    Role::Server { agents: (1..=agents).map(agent_id).collect() }
}

/// A running endpoint with a tap on its wire.
pub(super) struct Counted {
    pub(super) end: Arc<End>,
    pub(super) counts: Arc<Counts>,
}

impl Counted {
    /// Ends it. Nobody else may use it any more.
    pub(super) async fn finish(self) -> Result<(), BenchError> {
        Arc::into_inner(self.end).expect("nobody else uses it any more").end().await
    }
}

/// Where endpoints live and what under.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ground<'a> {
    pub(super) broker: &'a BrokerAt,
    pub(super) dir: &'a Path,
    pub(super) engine: Engine,
}

impl Ground<'_> {
    /// Starts the server's endpoint, which knows that many agents.
    pub(super) async fn server(&self, agents: u64) -> Result<End, BenchError> {
        self.start(server_role(agents), None).await
    }

    /// Starts an agent's endpoint.
    pub(super) async fn agent(&self, number: u64) -> Result<End, BenchError> {
        self.start(Role::Agent(agent_id(number)), None).await
    }

    /// The same with a tap on its wire: the server's, or an agent's of that number.
    pub(super) async fn counted(&self, number: Option<u64>) -> Result<Counted, BenchError> {
        let counts = Arc::<Counts>::default();
        let role = number.map_or_else(|| server_role(1), |number| Role::Agent(agent_id(number)));
        let end = self.start(role, Some(Arc::clone(&counts))).await?;
        Ok(Counted { end: Arc::new(end), counts })
    }

    async fn start(&self, role: Role, counts: Option<Arc<Counts>>) -> Result<End, BenchError> {
        let name = role.endpoint();
        let peers = match &role {
            Role::Server { agents } => agents.iter().cloned().map(EndpointId::Agent).collect(),
            Role::Agent(_) => vec![EndpointId::Server],
        };
        let amqp = AmqpConfig {
            url: self.broker.url.parse()?,
            tls: TlsFiles::default(),
            role,
            queue_type: self.broker.queue_type,
            proxy: None,
            listen_anew: LISTEN_ANEW,
        };
        let (stop, stopping) = watch::channel(false);
        let config = ServiceConfig {
            dir: self.dir.join(name.to_string()),
            endpoint: name.clone(),
            peers,
            session: Config::default(),
            engine: Some(self.engine),
        };
        std::fs::create_dir_all(&config.dir)?;
        let transport = |end, stop| match counts {
            Some(counts) => tap(end, counts, |end| link::amqp::start(amqp, end, stop)),
            None => link::amqp::start(amqp, end, stop),
        };
        let service = Service::start(config, transport, stopping).await?;
        Ok(End { endpoint: service.endpoint.clone(), name, service, stop })
    }
}

impl End {
    /// Waits until it may publish to that peer, and the peer has heard it.
    pub(super) async fn agreed(&self) -> Result<(), BenchError> {
        let mut heard = self.endpoint.heard();
        // Its sender ends with the endpoint, which is found by the next call.
        let _gone = within("two endpoints to hear each other", heard.wait_for(|heard| *heard)).await?.map(drop);
        Ok(())
    }

    /// Hands one message over to be sent.
    pub(super) async fn submit(&self, to: &EndpointId, body: Vec<u8>) -> Result<Begun, BenchError> {
        let transaction = Transaction { send: vec![message(to, body)], admission: true, ..Transaction::default() };
        Ok(self.endpoint.begin(transaction).await?)
    }

    /// The next messages for the application.
    pub(super) async fn work(&self) -> Result<Work, BenchError> {
        Ok(within("work", self.endpoint.next_work()).await??)
    }

    /// Says that there is nothing more to come of these messages, and waits until that is on disk.
    pub(super) async fn settle(&self, work: &Work) -> Result<(), BenchError> {
        let apply = work.items.iter().map(link::WorkItem::settle).collect();
        Ok(self.endpoint.transact(Transaction { apply, ..Transaction::default() }).await?)
    }

    /// Both streams shared with a peer.
    pub(super) async fn view(&self, peer: &EndpointId) -> Result<EndpointView, BenchError> {
        Ok(self.endpoint.view(peer.clone()).await?.ok_or(link::Stopped)?)
    }

    /// Ends it and waits until it has ended.
    pub(super) async fn end(self) -> Result<(), BenchError> {
        self.stop.send_replace(true);
        drop(self.endpoint);
        Ok(within("the end of an endpoint", self.service.stopped()).await??)
    }
}

/// A message with that body.
pub(super) fn message(to: &EndpointId, body: Vec<u8>) -> Outbound {
    let id = MessageId::from_u128(Uuid::now_v7().as_u128());
    Outbound { to: to.clone(), id, kind: KIND, body, cause: None, answers: None }
}

/// A body that nothing can make shorter, beginning with its number.
pub(super) fn body(number: u64) -> Vec<u8> {
    let mut state = number;
    let mut next = || {
        // SplitMix64.
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    };
    // By words: byte by byte it would cost as much as sending it.
    let mut bytes = Vec::with_capacity(BODY_BYTES);
    bytes.extend_from_slice(&number.to_le_bytes());
    while bytes.len() < BODY_BYTES {
        bytes.extend_from_slice(&next().to_le_bytes());
    }
    bytes
}

/// The number that a body begins with; nothing for one that is not as it was sent.
pub(super) fn number_of(bytes: &[u8]) -> Option<u64> {
    let number = u64::from_le_bytes(*bytes.first_chunk()?);
    (bytes.len() == BODY_BYTES).then_some(number)
}

/// Deletes the queues of a server and that many agents: what an earlier run left in them would be measured, too.
pub(super) async fn tidy(broker: &BrokerAt, agents: u64) -> Result<(), BenchError> {
    let client = Client::connect(broker).await?;
    for queue in [SERVER_QUEUE, DEAD_QUEUE] {
        client.delete(queue).await?;
    }
    for agent in 1..=agents {
        client.delete(&agent_queue_name(agent_id(agent).as_str())?).await?;
    }
    Ok(())
}
