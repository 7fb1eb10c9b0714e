//! The second reference of R1: lapin as in the first one, and at each end something that keeps the messages, and nothing else. It shows about
//! what is left to whoever promises that: a message is on stable storage before it is published, and before it is acknowledged. There is nothing of
//! Longshore in it: no protocol, no headers, no totals, and nothing is found again after a crash.

use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use journal::Engine;
use lapin::Consumer;
use tokio::sync::{Semaphore, mpsc};

use super::ends::body;
use super::log::Zeros;
use super::messages::{ON_THEIR_WAY, Order, QUEUE, WARM_UP};
use super::raw::{self, Client, GROUP, Missing, WINDOW};
use super::sled_alone::SledAlone;
use super::{BenchError, Figures, Meter};

/// Messages that one sync covers at most. Fewer are on their way at once anyway, at either end.
const KEPT_AT_ONCE: usize = 1_024;

/// What keeps the messages of one end.
enum Medium {
    /// The engine alone: one row for each message.
    Sled(SledAlone),
    /// A log that keeps no index, and what is written to it next.
    Log(Zeros, Vec<u8>),
}

impl Medium {
    fn new(dir: &Path, engine: Engine) -> io::Result<Self> {
        Ok(match engine {
            Engine::Sled => Self::Sled(SledAlone::open(dir)?),
            Engine::Segments => Self::Log(Zeros::new(dir)?, Vec::new()),
        })
    }

    fn insert(&mut self, message: &Message) -> io::Result<()> {
        match self {
            Self::Sled(sled) => sled.insert(message.number, &message.body),
            Self::Log(_, bytes) => {
                record(bytes, message.number, &message.body);
                Ok(())
            }
        }
    }

    fn remove(&mut self, number: u64) -> io::Result<()> {
        match self {
            Self::Sled(sled) => sled.remove(number),
            Self::Log(_, bytes) => {
                record(bytes, number, &[]);
                Ok(())
            }
        }
    }

    fn sync(&mut self) -> io::Result<()> {
        match self {
            Self::Sled(sled) => sled.sync(),
            Self::Log(log, bytes) => {
                let kept = log.write(bytes);
                bytes.clear();
                kept
            }
        }
    }
}

/// Appends what a log has of a message: checksum, length, number and body. One without a body is removed.
fn record(bytes: &mut Vec<u8>, number: u64, body: &[u8]) {
    let number = number.to_be_bytes();
    let crc = crc32c::crc32c_append(crc32c::crc32c(&number), body);
    bytes.extend_from_slice(&crc.to_le_bytes());
    bytes.extend_from_slice(&(body.len() as u64).to_le_bytes());
    bytes.extend_from_slice(&number);
    bytes.extend_from_slice(body);
}

/// A message at one end.
struct Message {
    number: u64,
    body: Vec<u8>,
    /// What it is acknowledged by, where it was delivered.
    tag: u64,
}

/// What a keeper is asked for.
enum Change {
    /// To keep this and give it back when it is on stable storage.
    Insert(Message),
    /// To keep these no longer. It needs no sync of its own: what is kept too long is sent once more.
    Remove(Vec<u64>),
}

/// A thread that keeps the messages of one end. Whatever waits shares one sync. Its channels have no bound of their own: no more messages go
/// through them than are on their way at that end.
struct Keeper {
    changes: mpsc::UnboundedSender<Change>,
    kept: mpsc::UnboundedReceiver<io::Result<Vec<Message>>>,
    thread: JoinHandle<()>,
}

impl Keeper {
    fn start(dir: &Path, engine: Engine) -> io::Result<Self> {
        std::fs::create_dir_all(dir)?;
        let mut medium = Medium::new(dir, engine)?;
        let (changes, mut asked) = mpsc::unbounded_channel();
        let (give, kept) = mpsc::unbounded_channel();
        let thread = std::thread::Builder::new().name("keeper".to_owned()).spawn(move || {
            let mut waiting = Vec::new();
            while asked.blocking_recv_many(&mut waiting, KEPT_AT_ONCE) > 0 {
                let done = keep(&mut medium, waiting.drain(..));
                let failed = done.is_err();
                // Who has enough of it does not listen any more.
                if give.send(done).is_err() || failed {
                    return;
                }
            }
        })?;
        Ok(Self { changes, kept, thread })
    }

    fn remove(&self, numbers: Vec<u64>) {
        // A thread that is gone has said why already, or is found to be gone with the next message.
        let _ = self.changes.send(Change::Remove(numbers));
    }

    /// The next messages that are on stable storage.
    async fn kept(&mut self) -> Result<Vec<Message>, BenchError> {
        let kept = raw::within("messages to be kept", self.kept.recv()).await?;
        Ok(kept.ok_or_else(|| io::Error::other("what keeps messages is gone"))??)
    }

    fn end(self) {
        drop(self.changes);
        self.thread.join().expect("it does not panic");
    }
}

/// Makes changes and syncs them, if anything is to be kept. Gives back what is kept now.
fn keep(medium: &mut Medium, changes: impl Iterator<Item = Change>) -> io::Result<Vec<Message>> {
    let mut kept = Vec::new();
    for change in changes {
        match change {
            Change::Insert(message) => {
                medium.insert(&message)?;
                kept.push(message);
            }
            Change::Remove(numbers) => numbers.into_iter().try_for_each(|number| medium.remove(number))?,
        }
    }
    if !kept.is_empty() {
        medium.sync()?;
    }
    Ok(kept)
}

/// Streams as the first reference does, with each end keeping its messages: in a sled of its own, or in a log, by the engine that it stands beside.
pub(super) async fn stream(order: &Order, engine: Engine) -> Result<Figures, BenchError> {
    let (mut client, consumer) = (Client::connect(&order.broker).await?, Client::connect(&order.broker).await?);
    client.queue(QUEUE, order.broker.queue_type).await?;
    client.confirms().await?;
    let mut deliveries = consumer.consume(QUEUE).await?;
    let mut sent = Keeper::start(&order.dir.join("sent"), engine)?;
    let mut received = Keeper::start(&order.dir.join("received"), engine)?;
    let mut meter = None;
    for count in [WARM_UP, order.messages] {
        meter = Some(Meter::own(Some(order.broker.pid))?);
        let producing = tokio::spawn(async move {
            produce(&client, &mut sent, count).await?;
            Ok::<_, BenchError>((client, sent))
        });
        take(&consumer, &mut deliveries, &mut received, count).await?;
        (client, sent) = producing.await.expect("it does not panic")?;
    }
    let spent = meter.expect("there were two rounds").end()?;
    sent.end();
    received.end();
    client.delete(QUEUE).await?;
    Ok(Figures::of(order.messages, spent))
}

/// Hands that many messages over to be kept, as many as may be on their way at a time.
async fn submit(room: Arc<Semaphore>, changes: mpsc::UnboundedSender<Change>, count: u64) {
    for number in 0..count {
        // The semaphore is never closed.
        let Ok(permit) = room.acquire().await else { return };
        permit.forget();
        if changes.send(Change::Insert(Message { number, body: body(number), tag: 0 })).is_err() {
            return;
        }
    }
}

/// Publishes that many messages, each when it is kept, and lets go of each when it is confirmed.
async fn produce(client: &Client, keeper: &mut Keeper, count: u64) -> Result<(), BenchError> {
    let room = Arc::new(Semaphore::new(ON_THEIR_WAY));
    let submitting = tokio::spawn(submit(Arc::clone(&room), keeper.changes.clone(), count));
    let (mut waiting, mut confirmed, mut published) = (VecDeque::with_capacity(WINDOW), Vec::new(), 0);
    while published < count {
        for message in keeper.kept().await? {
            if waiting.len() == WINDOW
                && let Some((number, oldest)) = waiting.pop_front()
            {
                raw::confirmed(oldest).await?;
                confirmed.push(number);
            }
            waiting.push_back((message.number, client.publish(QUEUE, &message.body).await?));
            published += 1;
            if confirmed.len() as u64 == GROUP {
                room.add_permits(confirmed.len());
                keeper.remove(std::mem::take(&mut confirmed));
            }
        }
    }
    for (number, confirm) in waiting {
        raw::confirmed(confirm).await?;
        confirmed.push(number);
    }
    keeper.remove(confirmed);
    submitting.await.expect("it does not panic");
    Ok(())
}

/// Takes that many messages, acknowledges what is kept of them, and lets go of it.
async fn take(client: &Client, deliveries: &mut Consumer, keeper: &mut Keeper, count: u64) -> Result<(), BenchError> {
    let (mut missing, mut unacknowledged) = (Missing::all(count), 0);
    while missing.count > 0 || unacknowledged > 0 {
        tokio::select! {
            delivery = raw::next(deliveries, QUEUE), if missing.count > 0 => {
                let delivery = delivery?;
                let number = missing.arrived(&delivery.data)?;
                let message = Message { number, body: delivery.data, tag: delivery.delivery_tag };
                unacknowledged += 1;
                // A thread that is gone is found to be gone when it is asked for what it has kept.
                let _ = keeper.changes.send(Change::Insert(message));
            }
            kept = keeper.kept(), if unacknowledged > 0 => {
                let kept = kept?;
                if let Some(last) = kept.last() {
                    client.acknowledge(last.tag).await?;
                }
                unacknowledged -= kept.len();
                keeper.remove(kept.iter().map(|message| message.number).collect());
            }
        }
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// What a record has beside its body: checksum, length and number.
    const RECORD_BYTES: usize = 4 + 8 + 8;

    #[test]
    fn what_is_kept_is_given_back_and_what_is_let_go_of_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        for engine in Engine::ALL {
            let mut medium = Medium::new(dir.path(), engine).unwrap();
            let insert = |number| Change::Insert(Message { number, body: body(number), tag: number });
            medium.insert(&Message { number: 1, body: body(1), tag: 1 }).unwrap();
            if let Medium::Log(_, bytes) = &medium {
                assert_eq!(bytes.len(), RECORD_BYTES + body(1).len(), "it waits for the next sync");
            }
            let kept = keep(&mut medium, [insert(1), insert(2)].into_iter()).unwrap();
            assert_eq!(kept.iter().map(|message| message.number).collect::<Vec<_>>(), [1, 2]);
            assert!(keep(&mut medium, [Change::Remove(vec![1])].into_iter()).unwrap().is_empty());
            match medium {
                Medium::Sled(sled) => assert_eq!(sled.read().unwrap().0, 1),
                Medium::Log(_, bytes) => {
                    assert_eq!(bytes.len(), RECORD_BYTES, "what was kept is written, and the removal waits")
                }
            }
        }
    }
}
