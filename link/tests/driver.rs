//! The driver, over a wire whose other end the test holds and a store whose sync the test lets go: nothing leaves before the sync that
//! covers it, and what is lent to the application before that is committed with what it makes of it.
#![allow(clippy::unwrap_used)]

use std::ops::ControlFlow;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use futures_util::FutureExt as _;
use journal::{Batch, Journal, Key, MemoryStore, MessageTable, Opening, Store, StoreError, Visit};
use link::session::{Config, DeliveryTag, Published, Rewound, Transaction};
use link::wire::{WireCommand, WireEnd, WireEvent, wire};
use link::{Endpoint, Parts, RunError, endpoint};
use messages::{
    ChainHash, EndpointId, Epoch, Frame, Header, Incarnation, Kind, Message, MessageId, Nonce, PROTOCOL_VERSION,
    Ranges, Receiving, Sending, Seq, Status,
};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// How long anything may take that must come. Only reached when it does not.
const LIMIT: Duration = Duration::from_secs(600);

/// A gate in front of every sync.
#[derive(Default)]
struct Gate {
    state: Mutex<GateState>,
    changed: Condvar,
}

#[derive(Default)]
struct GateState {
    closed: bool,
    waiting: usize,
    syncs: usize,
    /// A row that the store has lost.
    lost: Option<Vec<u8>>,
}

impl Gate {
    fn set(&self, closed: bool) {
        self.state.lock().unwrap().closed = closed;
        self.changed.notify_all();
    }

    fn syncs(&self) -> usize {
        self.state.lock().unwrap().syncs
    }

    /// Blocks until a sync waits at the gate.
    fn reached(&self) {
        let state = self.state.lock().unwrap();
        let (_state, timed_out) = self.changed.wait_timeout_while(state, LIMIT, |state| state.waiting == 0).unwrap();
        assert!(!timed_out.timed_out(), "no sync was asked for");
    }
}

struct GatedStore {
    inner: MemoryStore,
    gate: Arc<Gate>,
}

impl Store for GatedStore {
    fn apply(&self, batch: &Batch) -> Result<(), StoreError> {
        self.inner.apply(batch)
    }

    fn sync(&self) -> Result<(), StoreError> {
        let mut state = self.gate.state.lock().unwrap();
        state.waiting += 1;
        state.syncs += 1;
        self.gate.changed.notify_all();
        while state.closed {
            state = self.gate.changed.wait(state).unwrap();
        }
        state.waiting -= 1;
        Ok(())
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: &mut Visit<'_>) -> Result<(), StoreError> {
        let lost = self.gate.state.lock().unwrap().lost.clone();
        self.inner.scan(from, to, &mut |key, value| match lost.as_deref() == Some(key) {
            true => ControlFlow::Continue(()),
            false => visit(key, value),
        })
    }

    fn size(&self) -> Result<u64, StoreError> {
        self.inner.size()
    }
}

struct World {
    gate: Arc<Gate>,
    end: WireEnd,
    endpoint: Endpoint,
    driver: JoinHandle<Result<(), RunError>>,
    stop: watch::Sender<bool>,
}

fn report(id: u128) -> link::session::Outbound {
    link::session::Outbound {
        to: server(),
        id: MessageId::from_u128(id),
        kind: Kind::Unknown(78),
        body: b"report".to_vec(),
        cause: None,
        answers: None,
    }
}

fn server() -> EndpointId {
    EndpointId::Server
}

fn agent() -> EndpointId {
    "a1".parse().unwrap()
}

impl World {
    /// An agent's endpoint, connected, that has heard of its server.
    async fn start() -> Self {
        let gate = Arc::new(Gate::default());
        let store = Arc::new(GatedStore { inner: MemoryStore::default(), gate: Arc::clone(&gate) });
        let mut world = Self::over(store, (agent(), server()), None);
        world.event(WireEvent::Up { connection: 1 }).await;
        world.deliver(1, hello(server(), agent()).bytes()).await;
        assert!(matches!(world.command().await, WireCommand::Publish(publish) if publish.what == Published::Status));
        assert!(matches!(world.command().await, WireCommand::Acknowledge(tags) if tags[0].tag == 1));
        // Word that the server's stream is taken from now on.
        assert!(matches!(world.command().await, WireCommand::Publish(publish) if publish.what == Published::Status));
        world
    }

    /// An endpoint and its peer, over what that store holds, which loses that row once it was opened.
    fn over(store: Arc<GatedStore>, (local, peer): (EndpointId, EndpointId), lost: Option<Vec<u8>>) -> Self {
        let gate = Arc::clone(&store.gate);
        let opening = Opening { endpoint: local, incarnation: Incarnation::from_u128(1), now_ms: 0 };
        let (journal, state) = Journal::over(store, &opening).unwrap();
        gate.state.lock().unwrap().lost = lost;
        let (wire, end) = wire();
        let (config, nonce) = (Config::default(), Nonce::new(5));
        let parts = Parts { journal, state, wire, peers: vec![peer], config, nonce };
        let (endpoint, driver) = endpoint(parts).unwrap();
        let (stop, stopping) = watch::channel(false);
        let driver = tokio::spawn(driver.run(stopping));
        Self { gate, end, endpoint, driver, stop }
    }

    /// The same, connected, which has heard of its peer and gets a message of it as delivery 2.
    async fn with_a_message(store: &Arc<GatedStore>, (local, peer): (EndpointId, EndpointId)) -> Self {
        let world = Self::over(Arc::clone(store), (local.clone(), peer.clone()), None);
        world.event(WireEvent::Up { connection: 1 }).await;
        world.deliver(1, hello(peer.clone(), local.clone()).bytes()).await;
        world.deliver(2, first_message_of(peer, local).frame.bytes()).await;
        world
    }

    async fn event(&self, event: WireEvent) {
        self.end.events.send(event).await.unwrap();
    }

    async fn deliver(&self, tag: u64, bytes: &[u8]) {
        let tag = DeliveryTag { connection: 1, tag };
        self.event(WireEvent::Delivery { tag, bytes: bytes.to_vec() }).await;
    }

    async fn command(&mut self) -> WireCommand {
        timeout(LIMIT, self.end.commands.recv()).await.unwrap().unwrap()
    }

    /// Waits until a sync is asked for, with room for whatever would wrongly not wait for it.
    async fn sync_is_asked_for(&self) {
        let gate = Arc::clone(&self.gate);
        tokio::task::spawn_blocking(move || gate.reached()).await.unwrap();
        // The driver answers this only after everything that it had to do before.
        self.endpoint.link().await.unwrap();
    }
}

fn hello(from: EndpointId, to: EndpointId) -> Frame {
    hello_of(from, to, 0)
}

/// Of an endpoint that has found so often that its peer's journal had lost something.
fn hello_of(from: EndpointId, to: EndpointId, losses: u32) -> Frame {
    let sending = Sending {
        incarnation: Incarnation::from_u128(9),
        epoch: Epoch::FIRST,
        lowest_kept: Seq::FIRST,
        next: Seq::FIRST,
        head: ChainHash::START,
        forget_through: None,
        lineage: None,
        journal: None,
        toward: Some(Incarnation::from_u128(1)),
        acknowledged: None,
        acknowledged_beyond: Ranges::default(),
        settled_through: None,
        doubtful_through: None,
        losses,
    };
    Frame::status(&Status {
        from,
        to,
        nonce: Nonce::new(6),
        version_min: PROTOCOL_VERSION,
        version_max: PROTOCOL_VERSION,
        sending,
        receiving: Some(Receiving {
            incarnation: Incarnation::from_u128(1),
            epoch: Epoch::FIRST,
            nonce: Some(Nonce::new(5)),
            superseded: Vec::new(),
            through: None,
            head: ChainHash::START,
            unanchored: false,
            ranges: Ranges::default(),
            settled_through: None,
            sworn: None,
        }),
        window: 100,
        probe: None,
        answers: None,
        frozen: false,
        presence: None,
    })
    .unwrap()
}

fn first_message() -> Message {
    first_message_of(server(), agent())
}

fn first_message_of(from: EndpointId, to: EndpointId) -> Message {
    let header = Header::new(from, to, Incarnation::from_u128(9), Epoch::FIRST)
        .numbered(Seq::FIRST, ChainHash::START)
        .carrying(MessageId::from_u128(1), Kind::Unknown(77), None, b"body");
    Message::new(header, b"body").unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delivery_is_acknowledged_only_after_its_sync_whether_the_application_deals_with_it_or_not() {
    let mut world = World::start().await;
    world.gate.set(true);
    world.deliver(2, first_message().frame.bytes()).await;
    world.sync_is_asked_for().await;
    assert!(world.end.commands.try_recv().is_err(), "something left before the sync");
    world.gate.set(false);
    assert!(matches!(world.command().await, WireCommand::Acknowledge(tags) if tags[0].tag == 2));
    let work = timeout(LIMIT, world.endpoint.next_work()).await.unwrap().unwrap();
    assert_eq!(work.items[0].message, first_message());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_made_of_a_lent_message_is_never_committed_before_it_and_leaves_only_after_the_sync_of_both() {
    let mut together = 0;
    // Whether both are one commit is up to how soon the application has its turn, so it is tried until they were.
    for _ in 0..1_000 {
        let mut world = World::start().await;
        let before = world.gate.syncs();
        world.gate.set(true);
        world.deliver(2, first_message().frame.bytes()).await;
        let work = timeout(LIMIT, world.endpoint.next_work()).await.unwrap().unwrap();
        let item = &work.items[0];
        assert_eq!(item.message, first_message());
        let answer = link::session::Outbound { answers: Some(item.seq), ..report(3) };
        let transaction = Transaction { apply: vec![item.hold()], send: vec![answer], ..Transaction::default() };
        let begun = world.endpoint.begin_checked(transaction).await.unwrap();
        world.sync_is_asked_for().await;
        assert!(world.end.commands.try_recv().is_err(), "something left before the sync");
        world.gate.set(false);
        timeout(LIMIT, begun.done()).await.unwrap().unwrap();
        assert!(matches!(world.command().await, WireCommand::Acknowledge(tags) if tags[0].tag == 2));
        let sent = Published::Message(Seq::FIRST);
        assert!(matches!(world.command().await, WireCommand::Publish(publish) if publish.what == sent));
        together += usize::from(world.gate.syncs() == before + 1);
        if together > 0 {
            return;
        }
    }
    panic!("a message and what was made of it were never one commit");
}

/// The journal is what another process finds: nothing that was lent may be known there by its outcome alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_was_lent_to_nobody_who_answers_is_on_stable_storage_all_the_same() {
    let store = Arc::new(GatedStore { inner: MemoryStore::default(), gate: Arc::default() });
    let ends = || (server(), agent());
    let mut world = World::with_a_message(&store, ends()).await;
    let lent = timeout(LIMIT, world.endpoint.next_work()).await.unwrap().unwrap();
    while !matches!(world.command().await, WireCommand::Acknowledge(tags) if tags.iter().any(|tag| tag.tag == 2)) {}
    world.stop.send(true).unwrap();
    timeout(LIMIT, world.driver).await.unwrap().unwrap().unwrap();
    let world = World::over(store, ends(), None);
    let work = timeout(LIMIT, world.endpoint.next_work()).await.unwrap().unwrap();
    assert_eq!(work.items[0].message, lent.items[0].message);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lent_before_the_application_can_hear_that_the_journal_had_lost_something() {
    let store = Arc::new(GatedStore { inner: MemoryStore::default(), gate: Arc::default() });
    let world = World::over(store, (agent(), server()), None);
    world.event(WireEvent::Up { connection: 1 }).await;
    world.gate.set(true);
    world.deliver(1, hello_of(server(), agent(), 1).bytes()).await;
    let sent = chain([4, 5].into_iter());
    world.deliver(2, sent[0].frame.bytes()).await;
    let view = async || world.endpoint.view(server()).await.unwrap().unwrap().streams.incoming;
    let received = async || view().await.and_then(|stream| stream.received);
    while received().await != Some(Seq::FIRST) {
        tokio::task::yield_now().await;
    }
    world.sync_is_asked_for().await;
    let early = world.endpoint.next_work().now_or_never();
    world.gate.set(false);
    assert!(early.is_none(), "work came before that was known");
    let work = timeout(LIMIT, world.endpoint.next_work()).await.unwrap().unwrap();
    assert_eq!(work.items[0].message, sent[0]);
    let known = world.endpoint.next_rewound().now_or_never().expect("it is known before work comes").unwrap();
    assert_eq!(known, [Rewound::Own(server())]);
    // From then on it is lent what comes, as ever.
    let apply = vec![work.items[0].settle()];
    world.endpoint.transact(Transaction { apply, ..Transaction::default() }).await.unwrap();
    world.gate.set(true);
    world.deliver(3, sent[1].frame.bytes()).await;
    let work = timeout(LIMIT, world.endpoint.next_work()).await.unwrap().unwrap();
    world.gate.set(false);
    assert_eq!(work.items[0].message, sent[1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_is_in_a_hurry_for_is_committed_with_what_comes_next_or_alone_or_when_the_endpoint_stops() {
    let unhurried = || Transaction { unhurried: true, ..Transaction::default() };
    let row = |name| vec![journal::put_app(vec![name], vec![name])];
    let world = World::start().await;
    let mut together = false;
    // Whether something comes in time is up to the machine.
    for _ in 0..100 {
        let before = world.gate.syncs();
        let begun = world.endpoint.begin(Transaction { rows: row(1), ..unhurried() }).await.unwrap();
        world.endpoint.transact(Transaction { rows: row(2), ..Transaction::default() }).await.unwrap();
        timeout(LIMIT, begun.done()).await.unwrap().unwrap();
        together |= world.gate.syncs() == before + 1;
    }
    assert!(together, "they were never one commit");
    timeout(LIMIT, world.endpoint.transact(Transaction { rows: row(3), ..unhurried() })).await.unwrap().unwrap();
    let begun = world.endpoint.begin_checked(Transaction { rows: row(4), ..unhurried() }).await.unwrap();
    world.stop.send(true).unwrap();
    timeout(LIMIT, begun.done()).await.unwrap().unwrap();
    timeout(LIMIT, world.driver).await.unwrap().unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_is_published_and_its_submit_answered_only_after_its_sync() {
    let mut world = World::start().await;
    world.gate.set(true);
    let endpoint = world.endpoint.clone();
    let transaction = Transaction { send: vec![report(3)], ..Transaction::default() };
    let submit = tokio::spawn(async move { endpoint.transact(transaction).await });
    world.sync_is_asked_for().await;
    assert!(world.end.commands.try_recv().is_err(), "something left before the sync");
    assert!(!submit.is_finished(), "the submit was answered before the sync");
    world.gate.set(false);
    let published = world.command().await;
    assert!(matches!(published, WireCommand::Publish(publish) if publish.what == Published::Message(Seq::FIRST)));
    timeout(LIMIT, submit).await.unwrap().unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_what_may_wait_is_published_as_such_and_its_submit_is_answered_all_the_same() {
    let mut world = World::start().await;
    for (id, may_wait) in [(3, true), (4, false)] {
        let transaction = Transaction { send: vec![report(id)], may_wait, ..Transaction::default() };
        timeout(LIMIT, world.endpoint.transact(transaction)).await.unwrap().unwrap();
    }
    let (first, second) = (Published::Message(Seq::FIRST), Published::Message(Seq::FIRST.next()));
    assert!(matches!(world.command().await, WireCommand::PublishSoon(publish) if publish.what == first));
    assert!(matches!(world.command().await, WireCommand::Publish(publish) if publish.what == second));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_batch_of_a_peer_is_out_at_a_time_and_what_was_dealt_with_does_not_come_again() {
    let mut world = World::start().await;
    world.deliver(2, first_message().frame.bytes()).await;
    let work = timeout(LIMIT, world.endpoint.next_work()).await.unwrap().unwrap();
    assert!(world.endpoint.next_work().now_or_never().is_none(), "one batch of a peer is out at a time");
    let apply = vec![work.items[0].settle()];
    world.endpoint.transact(Transaction { apply, ..Transaction::default() }).await.unwrap();
    assert!(world.endpoint.next_work().now_or_never().is_none(), "what was dealt with is not offered again");
    assert!(matches!(world.command().await, WireCommand::Acknowledge(_)));
    assert!(!world.driver.is_finished());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_is_not_whole_stops_the_streams_with_a_reason_and_is_never_passed_over_in_silence() {
    let store = Arc::new(GatedStore { inner: MemoryStore::default(), gate: Arc::default() });
    let ends = || (server(), agent());
    let mut world = World::with_a_message(&store, ends()).await;
    // Nobody takes it, and the next process no longer has it in memory.
    while !matches!(world.command().await, WireCommand::Acknowledge(tags) if tags.iter().any(|tag| tag.tag == 2)) {}
    world.stop.send(true).unwrap();
    timeout(LIMIT, world.driver).await.unwrap().unwrap().unwrap();
    let body = Key::Message(MessageTable::InboxBody, agent(), Seq::FIRST);
    let world = World::over(store, ends(), Some(body.bytes()));
    let mut changes = world.endpoint.changes();
    let why = async {
        loop {
            let view = world.endpoint.view(agent()).await.unwrap().unwrap();
            if let Some(why) = view.streams.frozen {
                return (why, view.streams.resolvable);
            }
            changes.changed().await.unwrap();
        }
    };
    let (why, resolvable) = timeout(LIMIT, why).await.unwrap();
    assert!(why.contains("message 1 of the peer is not whole in this journal") && !resolvable, "{why}");
    assert!(world.endpoint.next_work().now_or_never().is_none());
    assert!(!world.driver.is_finished());
}

/// Which of two things that are there at once a process sees first is left to chance, so it is tried often.
#[tokio::test]
async fn being_told_to_stop_is_no_failure_however_quick_the_transport_is() {
    for _ in 0..40 {
        let World { end, driver, stop, endpoint, .. } = World::start().await;
        stop.send(true).unwrap();
        drop(end);
        timeout(LIMIT, driver).await.unwrap().unwrap().unwrap();
        drop(endpoint);
    }
}

/// Messages of the server, one behind the other, with bodies of these sizes.
fn chain(sizes: impl Iterator<Item = usize>) -> Vec<Message> {
    let mut previous = ChainHash::START;
    let message = |(number, size): (u64, usize)| {
        let body = vec![7; size];
        let header = Header::new(server(), agent(), Incarnation::from_u128(9), Epoch::FIRST)
            .numbered(Seq::new(number).unwrap(), previous)
            .carrying(MessageId::from_u128(number.into()), Kind::Unknown(77), None, &body);
        let message = Message::new(header, &body).unwrap();
        previous = message.hash;
        message
    };
    (1..).zip(sizes).map(message).collect()
}

/// More than is kept in memory, out of order, to an application that deals with a part of what it has, and is behind.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_is_offered_once_and_in_order_whether_it_finds_room_in_memory_or_not() {
    const COUNT: u64 = 90;
    let world = World::start().await;
    let mut sent = chain((0..COUNT).map(|number| if number % 3 == 0 { 10 } else { 200 * 1024 }));
    for pair in sent.chunks_mut(2).step_by(5) {
        pair.reverse();
    }
    let events = world.end.events.clone();
    tokio::spawn(async move {
        for (tag, message) in (2..).zip(sent) {
            let (tag, bytes) = (DeliveryTag { connection: 1, tag }, message.frame.bytes().to_vec());
            events.send(WireEvent::Delivery { tag, bytes }).await.unwrap();
            for _ in 0..tag.tag % 20 {
                tokio::task::yield_now().await;
            }
        }
    });
    let mut commands = world.end.commands;
    tokio::spawn(async move { while commands.recv().await.is_some() {} });
    let mut expected = 1;
    while expected <= COUNT {
        let work = timeout(LIMIT, world.endpoint.next_work()).await.unwrap().unwrap();
        for _ in 0..expected % 40 {
            tokio::task::yield_now().await;
        }
        let mut items = work.items.as_slice();
        while let Some(first) = items.first() {
            assert_eq!(first.seq.value(), expected);
            let (some, rest) = items.split_at(items.len().min(1 + expected as usize % 5));
            let apply = some.iter().map(|item| item.settle()).collect();
            let begun = world.endpoint.begin(Transaction { apply, ..Transaction::default() }).await.unwrap();
            if expected % 2 == 0 {
                begun.done().await.unwrap();
            }
            (expected, items) = (expected + some.len() as u64, rest);
        }
    }
    world.endpoint.link().await.unwrap();
    assert!(world.endpoint.next_work().now_or_never().is_none() && !world.driver.is_finished());
    world.stop.send(true).unwrap();
    timeout(LIMIT, world.driver).await.unwrap().unwrap().unwrap();
}
