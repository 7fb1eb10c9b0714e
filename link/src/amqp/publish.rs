//! Publishes on one channel that nobody else uses: concurrent publishes would cross the confirms. Confirms are pipelined
//! within a window. What waits for the same endpoint leaves together. Reports what became of each publish while the connection lives; what
//! is lost with it is not reported.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::time::Duration;

use broker_config::{CLASS_LINK, CLASS_LOGS, DOWN_EXCHANGE, UP_EXCHANGE, down_key, up_key};
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, Stream, StreamExt as _};
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::{BasicProperties, Channel, Confirmation, Event};
use messages::EndpointId;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::CALL_LIMIT;
use super::backlog::Backlog;
use super::bundles::{Load, TAKES_BUNDLES, Takers};
use super::config::Role;
use super::dial::Link;
use super::failure::{Failure, within};
use super::topology::Repairs;
use crate::session::{Publish, Published};
use crate::wire::{Refusal, WireEvent};

/// Publishes without a confirm, of one envelope or several. Enough to hide the broker's fsync, few enough to be repeated after a break.
const WINDOW: usize = 1_024;

/// Bytes of publishes without a confirm, which wait in the library's memory while a broker is slow.
const WINDOW_BYTES: usize = 16 * 1024 * 1024;

/// The same of pieces of logs. What is on its way already goes before a message that comes now: on a line of 10 Mbit/s this much
/// takes less than a second.
const LOG_WINDOW_BYTES: usize = 1024 * 1024;

/// How long a broker that does not block may owe a confirm. A leader change takes up to 16 s; beyond this it is dead.
const CONFIRM_LIMIT: Duration = Duration::from_secs(30);

/// After how long without a confirm a queue is suspected to be stuck, and tried on its own. RabbitMQ 3.10 stops a whole
/// channel at a publish to a quorum queue without a leader, so everything that waits then is a suspect.
const STUCK_LIMIT: Duration = Duration::from_secs(8);

/// Publishes that were given up while the library still waits for their confirm. A queue without a leader never answers;
/// beyond this many only a new connection frees the memory.
const GIVEN_UP_MAX: usize = 8_192;

/// How often the oldest confirm and the state of the channel are looked at.
const LOOK: Duration = Duration::from_secs(1);

/// The broker writes it to disk, where the queue does so at all.
const PERSISTENT: u8 = 2;

/// The broker may keep it in memory only.
const TRANSIENT: u8 = 1;

type Number = u64;
type Answer = (Number, lapin::Result<Confirmation>);
type Answering = Pin<Box<dyn Future<Output = Answer> + Send>>;
type Events = Pin<Box<dyn Stream<Item = Event> + Send>>;

/// A publish that the broker has not answered.
struct Outstanding {
    to: EndpointId,
    what: Vec<Published>,
    log: bool,
    bytes: usize,
    since: Instant,
    returned: bool,
    /// Its queue is being tried.
    suspect: bool,
}

/// Publishes for as long as one connection lasts.
pub(super) struct Publisher<'a> {
    role: &'a Role,
    backlog: &'a Backlog,
    repairs: &'a Repairs,
    takers: &'a Takers,
    events: &'a mpsc::Sender<WireEvent>,
    outstanding: BTreeMap<Number, Outstanding>,
    bytes: usize,
    /// Those of logs among them.
    log_bytes: usize,
    answering: FuturesUnordered<Answering>,
    next: Number,
    blocked: bool,
    /// When the broker last answered, or stopped blocking.
    heard: Instant,
    /// When the broker last stopped blocking: until then it owed no confirm.
    unblocked: Instant,
    /// Why the channel is dead, once that is known. What was answered before is reported first.
    failure: Option<Failure>,
}

/// Opens the channel for publishing.
pub(super) async fn open(link: &Link) -> Result<Channel, Failure> {
    let channel = link.channel().await?;
    let select = channel.confirm_select(ConfirmSelectOptions::default());
    within(CALL_LIMIT, "switching confirms on", select).await?.map_err(|e| Failure::of(&e))?;
    Ok(channel)
}

impl<'a> Publisher<'a> {
    pub(super) fn new(
        role: &'a Role,
        backlog: &'a Backlog,
        repairs: &'a Repairs,
        takers: &'a Takers,
        events: &'a mpsc::Sender<WireEvent>,
    ) -> Self {
        Self {
            role,
            backlog,
            repairs,
            takers,
            events,
            outstanding: BTreeMap::new(),
            bytes: 0,
            log_bytes: 0,
            answering: FuturesUnordered::new(),
            next: 1,
            blocked: false,
            heard: Instant::now(),
            unblocked: Instant::now(),
            failure: None,
        }
    }

    /// Publishes until the connection fails, or the driver is gone (`Ok`).
    pub(super) async fn run(mut self, link: &Link, channel: &Channel) -> Result<(), Failure> {
        let mut connection: Events = Box::pin(link.connection.events_listener());
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let (room, logs) = (self.has_room(), self.has_room_for_logs());
            let reports = tokio::select! {
                Some(answer) = self.answering.next() => self.take_in(answer),
                publish = self.backlog.next(logs), if room => self.publish_all(channel, publish)?,
                (to, what) = self.backlog.refused() => refused(&to, &[what], Refusal::Nacked),
                event = connection.next() => self.on_event(event)?,
                _ = look.tick() => self.look(channel)?,
            };
            for report in reports {
                if self.events.send(report).await.is_err() {
                    return Ok(());
                }
            }
            if let Some(failure) = self.failure.take() {
                return Err(failure);
            }
        }
    }

    fn has_room(&self) -> bool {
        !self.blocked && self.outstanding.len() < WINDOW && self.bytes < WINDOW_BYTES
    }

    const fn has_room_for_logs(&self) -> bool {
        self.log_bytes < LOG_WINDOW_BYTES
    }

    /// Publishes this one and what else waits, as far as there is room.
    fn publish_all(&mut self, channel: &Channel, first: Publish) -> Result<Vec<WireEvent>, Failure> {
        let mut reports = Vec::new();
        let mut next = Some(first);
        while let Some(publish) = next {
            let load = self.load(publish);
            reports.extend(self.publish(channel, load)?);
            next = if self.has_room() {
                self.backlog.pop(self.has_room_for_logs(), std::time::Instant::now())
            } else {
                None
            };
        }
        Ok(reports)
    }

    /// This one with those behind it that go with it.
    fn load(&self, first: Publish) -> Load {
        let mut load = Load::new(first);
        if self.takers.has(&load.to) {
            while let Some(more) = self.backlog.pop_if(|next| load.takes(next)) {
                load.add(more);
            }
        }
        load
    }

    fn publish(&mut self, channel: &Channel, load: Load) -> Result<Vec<WireEvent>, Failure> {
        let log = load.is_log();
        let (exchange, key) = match (self.role, &load.to) {
            (Role::Server { .. }, EndpointId::Agent(agent)) => (DOWN_EXCHANGE, down_key(agent.as_str())?),
            (Role::Agent(agent), EndpointId::Server) => {
                // Logs have a queue of their own at the server.
                (UP_EXCHANGE, up_key(agent.as_str(), if log { CLASS_LOGS } else { CLASS_LINK })?)
            }
            (Role::Server { .. }, EndpointId::Server) | (Role::Agent(_), EndpointId::Agent(_)) => {
                tracing::warn!(to = %load.to, "there is no way to publish to that endpoint from here");
                return Ok(refused(&load.to, &load.what, Refusal::Returned));
            }
        };
        let number = self.next;
        self.next += 1;
        let delivery_mode = if load.is_kept() { PERSISTENT } else { TRANSIENT };
        let Load { to, what, bundle } = load;
        let payload = bundle.into_payload();
        let bytes = payload.bytes().len();
        let since = Instant::now();
        let outstanding = Outstanding { to, what, log, bytes, since, returned: false, suspect: false };
        self.add(&outstanding);
        self.outstanding.insert(number, outstanding);
        let properties = BasicProperties::default()
            .with_delivery_mode(delivery_mode)
            .with_type(TAKES_BUNDLES.into())
            .with_message_id(number.to_string().into());
        let channel = channel.clone();
        let mut answering: Answering = Box::pin(async move {
            let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
            let sent = channel.basic_publish(exchange.into(), key.into(), options, payload.bytes(), properties).await;
            // The library has a copy of its own, and the confirm may take long.
            drop(payload);
            match sent {
                Ok(confirm) => (number, confirm.await),
                Err(error) => (number, Err(error)),
            }
        });
        // The first poll hands the frames to the library, so publishes leave in this order.
        match (&mut answering).now_or_never() {
            Some(answer) => Ok(self.take_in(answer)),
            None => {
                self.answering.push(answering);
                Ok(Vec::new())
            }
        }
    }

    const fn add(&mut self, outstanding: &Outstanding) {
        self.bytes += outstanding.bytes;
        if outstanding.log {
            self.log_bytes += outstanding.bytes;
        }
    }

    const fn remove(&mut self, done: &Outstanding) {
        self.bytes -= done.bytes;
        if done.log {
            self.log_bytes -= done.bytes;
        }
    }

    /// Takes in this answer and all others that are there. An answer to several publishes at once may attach what was
    /// returned to the wrong one of them, so all are looked through before any is reported.
    fn take_in(&mut self, first: Answer) -> Vec<WireEvent> {
        self.heard = Instant::now();
        let mut answered = Vec::new();
        let mut returned = BTreeSet::new();
        let mut answer = Some(first);
        while let Some((number, result)) = answer {
            match result {
                Ok(Confirmation::Ack(message)) => {
                    returned.extend(message.as_deref().and_then(number_of));
                    answered.push((number, true));
                }
                Ok(Confirmation::Nack(message)) => {
                    returned.extend(message.as_deref().and_then(number_of));
                    answered.push((number, false));
                }
                Ok(Confirmation::NotRequested) => {
                    self.failure.get_or_insert(Failure::Broken("the channel gives no confirms".to_owned()));
                }
                Err(error) => {
                    self.failure.get_or_insert(Failure::of_life(&error));
                }
            }
            answer = self.answering.next().now_or_never().flatten();
        }
        for number in returned {
            match self.outstanding.get_mut(&number) {
                Some(outstanding) => outstanding.returned = true,
                None => tracing::debug!(number, "a publish was returned that counted as confirmed"),
            }
        }
        let (mut confirmed, mut reports) = (Vec::with_capacity(answered.len()), Vec::new());
        for (number, taken) in answered {
            let Some(done) = self.outstanding.remove(&number) else { continue };
            self.remove(&done);
            if taken && !done.returned {
                confirmed.extend(done.what.iter().map(|what| (done.to.clone(), *what)));
            } else {
                reports.extend(self.failed(&done, taken));
            }
        }
        if !confirmed.is_empty() {
            reports.push(WireEvent::Confirmed(confirmed));
        }
        reports
    }

    fn failed(&self, done: &Outstanding, taken: bool) -> Vec<WireEvent> {
        if let (Role::Server { .. }, EndpointId::Agent(agent)) = (self.role, &done.to) {
            if taken {
                self.repairs.request(agent.clone());
            } else {
                self.repairs.doubt(agent.clone());
            }
        }
        if !taken {
            return refused(&done.to, &done.what, Refusal::Nacked);
        }
        refused(&done.to, &done.what, Refusal::Returned)
    }

    fn on_event(&mut self, event: Option<Event>) -> Result<Vec<WireEvent>, Failure> {
        match event {
            Some(Event::ConnectionBlocked(reason)) => {
                tracing::warn!(%reason, "the broker blocks publishing");
                self.blocked = true;
                Ok(vec![WireEvent::Blocked(Some(reason))])
            }
            Some(Event::ConnectionUnblocked) => {
                tracing::info!("the broker no longer blocks publishing");
                self.blocked = false;
                self.heard = Instant::now();
                self.unblocked = self.heard;
                Ok(vec![WireEvent::Blocked(None)])
            }
            Some(Event::Error(error)) => Err(Failure::of_life(&error)),
            Some(_) => Ok(Vec::new()),
            None => Err(Failure::Broken("its events ended".to_owned())),
        }
    }

    fn look(&mut self, channel: &Channel) -> Result<Vec<WireEvent>, Failure> {
        if !channel.status().connected() {
            return Err(Failure::Broken("the channel for publishing is closed".to_owned()));
        }
        self.give_up_overdue()
    }

    fn suspect(&mut self) {
        if self.blocked {
            return;
        }
        for waiting in self.outstanding.values_mut().filter(|waiting| !waiting.suspect) {
            if waiting.since.max(self.unblocked).elapsed() <= STUCK_LIMIT {
                break;
            }
            waiting.suspect = true;
            if let (Role::Server { .. }, EndpointId::Agent(agent)) = (self.role, &waiting.to) {
                self.repairs.suspect(agent.clone());
            }
        }
    }

    /// A broker that answers nothing is dead. One that answers others but not this publish has a queue that is stuck,
    /// as a queue without a leader is; that must not cost the others their connection.
    fn give_up_overdue(&mut self) -> Result<Vec<WireEvent>, Failure> {
        self.suspect();
        let unblocked = self.unblocked;
        let overdue = |since: Instant| since.max(unblocked).elapsed() > CONFIRM_LIMIT;
        let late = !self.blocked && self.outstanding.first_key_value().is_some_and(|(_, oldest)| overdue(oldest.since));
        if !late {
            return Ok(Vec::new());
        }
        if overdue(self.heard) || self.answering.len().saturating_sub(self.outstanding.len()) > GIVEN_UP_MAX {
            return Err(Failure::TimedOut { what: "the confirm of a publish", after: CONFIRM_LIMIT });
        }
        let mut reports = Vec::new();
        while let Some(oldest) = self.outstanding.first_entry() {
            if !overdue(oldest.get().since) {
                break;
            }
            let done = oldest.remove();
            tracing::warn!(to = %done.to, what = ?done.what, "the broker confirms others but not this; its queue is stuck");
            self.remove(&done);
            reports.extend(refused(&done.to, &done.what, Refusal::Nacked));
        }
        Ok(reports)
    }
}

fn refused(to: &EndpointId, what: &[Published], refusal: Refusal) -> Vec<WireEvent> {
    what.iter().map(|what| WireEvent::Refused { to: to.clone(), what: *what, refusal }).collect()
}

/// Which publish came back.
fn number_of(message: &lapin::message::Delivery) -> Option<Number> {
    message.properties.message_id().as_ref()?.as_str().parse().ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use messages::Seq;

    fn with_publisher(ages: &[u64], heard: u64, check: impl FnOnce(Publisher<'_>)) {
        let (role, backlog, repairs) = (Role::Server { agents: Vec::new() }, Backlog::default(), Repairs::default());
        let (takers, (events, _kept)) = (Takers::default(), mpsc::channel(1));
        let mut publisher = Publisher::new(&role, &backlog, &repairs, &takers, &events);
        let ago = |seconds| Instant::now().checked_sub(Duration::from_secs(seconds)).unwrap();
        publisher.heard = ago(heard);
        publisher.unblocked = ago(1_000);
        for (number, age) in (1..).zip(ages) {
            let what = Published::Message(Seq::new(number).unwrap());
            let done = Outstanding {
                to: EndpointId::Server,
                what: vec![what],
                log: false,
                bytes: 5,
                since: ago(*age),
                returned: false,
                suspect: false,
            };
            publisher.outstanding.insert(number, done);
            publisher.bytes += 5;
        }
        check(publisher);
    }

    #[test]
    fn a_publish_that_is_overdue_while_others_are_answered_is_refused_alone() {
        with_publisher(&[40, 35, 20], 5, |mut publisher| {
            let reports = publisher.give_up_overdue().unwrap();
            let nacked = |report: &WireEvent| matches!(report, WireEvent::Refused { refusal: Refusal::Nacked, .. });
            assert!(reports.len() == 2 && reports.iter().all(nacked), "{reports:?}");
            assert_eq!((publisher.outstanding.len(), publisher.bytes), (1, 5));
            // Its answer may still come, and is no news then.
            assert!(publisher.take_in((1, Ok(Confirmation::Ack(None)))).is_empty());
        });
    }

    #[test]
    fn a_broker_that_answers_nothing_is_given_up() {
        with_publisher(&[35, 20], 31, |mut publisher| {
            assert!(matches!(publisher.give_up_overdue(), Err(Failure::TimedOut { .. })));
        });
    }

    #[test]
    fn a_broker_that_blocks_owes_nothing_until_it_unblocks() {
        with_publisher(&[400], 400, |mut publisher| {
            publisher.on_event(Some(Event::ConnectionBlocked("memory".to_owned()))).unwrap();
            assert!(publisher.give_up_overdue().unwrap().is_empty());
            publisher.on_event(Some(Event::ConnectionUnblocked)).unwrap();
            assert!(publisher.give_up_overdue().unwrap().is_empty());
        });
    }
}
