//! A running endpoint in a folder, over a wire whose other end the test holds: the test speaks as its peer. No broker.

use std::path::Path;
use std::time::Duration;

use link::session::{Config, DeliveryTag, Published, Transaction};
use link::wire::{WireCommand, WireEnd, WireEvent};
use link::{Endpoint, Service, ServiceConfig};
use messages::{
    ChainHash, EndpointId, Epoch, Frame, Incarnation, Nonce, PROTOCOL_VERSION, Ranges, Receiving, Sending, Seq, Status,
    decode,
};
use tokio::sync::watch;
use tokio::time::timeout;

/// How long anything may take that must come. Only reached when it does not.
pub const LIMIT: Duration = Duration::from_secs(600);

/// The endpoint, and the test as its peer.
pub struct Running {
    pub endpoint: Endpoint,
    service: Service,
    stop: watch::Sender<bool>,
    end: WireEnd,
    peer: EndpointId,
    /// What the endpoint last said of itself.
    said: Option<Status>,
    tag: u64,
}

impl Running {
    /// Starts an endpoint, connected, whose journal is made by this. `other` is known to it, and never heard.
    pub async fn start(dir: &Path, local: &str, peer: &str, other: &[&str]) -> Self {
        let peer: EndpointId = peer.parse().unwrap();
        let others = other.iter().map(|name| name.parse().unwrap());
        let peers = std::iter::once(peer.clone()).chain(others).collect();
        let config = ServiceConfig {
            dir: dir.to_owned(),
            endpoint: local.parse().unwrap(),
            peers,
            session: Config::default(),
            engine: None,
        };
        let (stop, stopping) = watch::channel(false);
        let (hand, held) = tokio::sync::oneshot::channel();
        let transport = |end: WireEnd, mut stopping: watch::Receiver<bool>| {
            assert!(hand.send(end).is_ok());
            tokio::spawn(async move { drop(stopping.wait_for(|stop| *stop).await) })
        };
        let service = Service::start(config, transport, stopping).await.unwrap();
        let mut end = held.await.unwrap();
        end.events.send(WireEvent::Up { connection: 1 }).await.unwrap();
        let endpoint = service.endpoint.clone();
        let mut said = None;
        while said.is_none() {
            said = Self::status(timeout(LIMIT, end.commands.recv()).await.unwrap().unwrap(), &peer);
        }
        Self { endpoint, service, stop, end, peer, said, tag: 0 }
    }

    fn status(command: WireCommand, peer: &EndpointId) -> Option<Status> {
        match command {
            WireCommand::Publish(publish) if publish.what == Published::Status && publish.to == *peer => {
                match decode(publish.frame.bytes().to_vec()) {
                    Ok(messages::Envelope::Status(status)) => Some(status),
                    other => panic!("a status is published as one: {other:?}"),
                }
            }
            WireCommand::Publish(_)
            | WireCommand::PublishSoon(_)
            | WireCommand::Acknowledge(_)
            | WireCommand::Discard(_) => None,
        }
    }

    /// What the endpoint said last.
    pub fn said(&self) -> &Status {
        self.said.as_ref().expect("it is known since the start")
    }

    /// Waits until the endpoint says something of itself that is as wanted.
    pub async fn says(&mut self, wanted: impl Fn(&Status) -> bool) {
        while !wanted(self.said()) {
            let command = timeout(LIMIT, self.end.commands.recv()).await.unwrap().unwrap();
            if let Some(status) = Self::status(command, &self.peer) {
                self.said = Some(status);
            }
        }
    }

    /// Speaks as the peer, who has heard the endpoint as it last spoke, changed by `how`.
    pub async fn hears(&mut self, how: impl FnOnce(&mut Status)) {
        let said = self.said().clone();
        let mut status = answer_of_a_new_peer(&said);
        how(&mut status);
        self.tag += 1;
        let bytes = Frame::status(&status).unwrap().bytes().to_vec();
        let tag = DeliveryTag { connection: 1, tag: self.tag };
        self.end.events.send(WireEvent::Delivery { tag, bytes }).await.unwrap();
        // The driver answers this only after everything that it had to do before.
        self.endpoint.link().await.unwrap();
    }

    /// The endpoint learns that its peer knows it, and then that another process has spoken for its journal.
    pub async fn is_doubled(&mut self) {
        self.hears(|_| {}).await;
        self.hears(|status| status.receiving.as_mut().unwrap().nonce = Some(Nonce::new(99))).await;
        self.is_stopped().await;
    }

    /// The endpoint sends a message, and its peer has another one in that place.
    pub async fn contradicts(&mut self) {
        self.hears(|_| {}).await;
        let id = messages::MessageId::from_u128(1);
        let body = messages::Body::Refusal(messages::Refusal {
            message: id,
            reason: String::new(),
            code: messages::RefusalCode::Message,
        });
        let send = vec![link::outbound(self.peer.clone(), id, &body, None).unwrap()];
        self.endpoint.transact(Transaction { send, ..Transaction::default() }).await.unwrap();
        self.hears(|status| status.receiving.as_mut().unwrap().through = Some(Seq::FIRST)).await;
        self.is_stopped().await;
    }

    /// Waits until its streams are stopped, at either end.
    pub async fn is_stopped(&mut self) {
        let mut changes = self.endpoint.changes();
        while self.endpoint.view(self.peer.clone()).await.unwrap().unwrap().streams.frozen.is_none() {
            timeout(LIMIT, changes.changed()).await.unwrap().unwrap();
        }
    }

    /// Ends it.
    pub async fn stop(self) {
        self.stop.send_replace(true);
        timeout(LIMIT, self.service.stopped()).await.unwrap().unwrap();
    }
}

fn answer_of_a_new_peer(said: &Status) -> Status {
    let own = &said.sending;
    let sending = Sending {
        incarnation: Incarnation::from_u128(9),
        epoch: Epoch::FIRST,
        lowest_kept: Seq::FIRST,
        next: Seq::FIRST,
        head: ChainHash::START,
        forget_through: None,
        lineage: None,
        journal: None,
        toward: Some(own.incarnation),
        acknowledged: None,
        acknowledged_beyond: Ranges::default(),
        settled_through: None,
        doubtful_through: None,
        losses: 0,
    };
    let receiving = Receiving {
        incarnation: own.incarnation,
        epoch: own.epoch,
        nonce: Some(said.nonce),
        superseded: Vec::new(),
        through: None,
        head: ChainHash::START,
        unanchored: false,
        ranges: Ranges::default(),
        settled_through: None,
        sworn: None,
    };
    Status {
        from: said.to.clone(),
        to: said.from.clone(),
        nonce: Nonce::new(6),
        version_min: PROTOCOL_VERSION,
        version_max: PROTOCOL_VERSION,
        sending,
        receiving: Some(receiving),
        window: 100,
        probe: None,
        answers: said.probe,
        frozen: false,
        presence: None,
    }
}
