//! The application's handle on its endpoint: cheap to clone, bounded towards the driver. It never touches the journal or
//! the broker itself.

use std::time::Duration;

use journal::{CommitError, HeaderRow};
use messages::{Body, BodyError, EndpointId, LogDatagram, Message, MessageId, Presence, Refusal, RefusalCode, Seq};
use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, mpsc, oneshot, watch};

use crate::session::{Applied, Disposition, Outbound, PeerView, ResolveError, Rewound, TransactError, Transaction};

/// Requests that may wait for the driver; more wait at their callers.
pub(crate) const REQUESTS_MAX: usize = 256;
/// Batches of work that may wait for the application. One batch per peer is out at a time.
pub(crate) const WORK_MAX: usize = 64;
/// Pieces of logs that may wait for the application; what does not fit is lost and sent again by its sender.
pub(crate) const LOGS_MAX: usize = 64;

/// What the driver is asked.
pub(crate) enum Request {
    Transact(Transaction, Transacting),
    Resolve(EndpointId, oneshot::Sender<Result<(), ResolveFailure>>),
    View(EndpointId, oneshot::Sender<Option<EndpointView>>),
    Views(oneshot::Sender<Vec<EndpointView>>),
    Link(oneshot::Sender<LinkState>),
    Log(EndpointId, LogDatagram),
    Present(Presence),
}

/// Who waits for a transaction.
pub(crate) struct Transacting {
    /// Told when nothing but the journal can stand in its way any more, or why not.
    pub(crate) taken: Option<oneshot::Sender<Result<(), TransactError>>>,
    /// Told when it is on stable storage.
    pub(crate) done: oneshot::Sender<Result<(), SubmitError>>,
}

/// Why a transaction did not happen.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    /// It was refused; nothing of it happened.
    #[error(transparent)]
    Refused(#[from] TransactError),
    /// The journal failed. Whether it is on stable storage is unknown until the journal has been opened again.
    #[error("the journal failed")]
    Journal(#[from] CommitError),
    /// The endpoint has stopped; whether the transaction happened is unknown until it runs again.
    #[error("the endpoint has stopped")]
    Stopped,
}

/// Why a person's decision about stopped streams was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum ResolveFailure {
    /// It cannot be; nothing was changed.
    #[error(transparent)]
    Refused(#[from] ResolveError),
    /// The system gives no random numbers; nothing was changed.
    #[error("the system gives no random numbers")]
    Random(#[source] std::io::Error),
    /// The endpoint has stopped; whether the decision was carried out is unknown until it runs again.
    #[error("the endpoint has stopped")]
    Stopped,
}

/// The endpoint has stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the endpoint has stopped")]
pub struct Stopped;

/// Messages of one peer, in the order of their stream, that the application has not dealt with yet. They are offered again
/// until it has, also after a crash. They may not be on stable storage yet: nothing may be done in the world about them, and nobody told, before a
/// transaction that was handed over after they were taken is done.
#[derive(Debug)]
pub struct Work {
    /// From whom.
    pub peer: EndpointId,
    /// At least one.
    pub items: Vec<WorkItem>,
}

/// One message to deal with.
#[derive(Debug)]
pub struct WorkItem {
    /// Its place in this journal, by which it is applied and answered. The sender's own number is in the header; the two differ once
    /// the sender's journal was lost or restored.
    pub seq: Seq,
    /// A journal of this endpoint that was lost may have received it and carried it out.
    pub doubtful: bool,
    /// How often the sender had found this endpoint's journal to have lost something.
    pub losses: u32,
    /// The message.
    pub message: Message,
    /// When it was journaled here, in milliseconds since 1970.
    pub at_ms: u64,
    /// Its body, or why it cannot be acted on.
    pub body: Result<Body, BodyError>,
}

impl WorkItem {
    /// Records that there is nothing more to come of the message.
    #[must_use]
    pub fn settle(&self) -> Applied {
        self.applied(Disposition::Settle)
    }

    /// Records that work was begun whose outcome will be sent.
    #[must_use]
    pub fn hold(&self) -> Applied {
        self.applied(Disposition::Hold)
    }

    /// Records that the message is unacceptable, and tells its sender, unless it is itself such word.
    #[must_use]
    pub fn refuse(&self, id: MessageId, code: RefusalCode, reason: &str) -> (Applied, Option<Outbound>) {
        let mut reason: String = reason.chars().filter(|c| !c.is_control()).collect();
        let mut end = reason.len().min(messages::limits::TEXT_BYTES_MAX);
        while !reason.is_char_boundary(end) {
            end -= 1;
        }
        reason.truncate(end);
        let row = HeaderRow { refused: Some(reason.clone()), ..HeaderRow::of(&self.message, self.at_ms) };
        let applied = self.applied(Disposition::Refuse(Box::new(row)));
        let header = &self.message.header;
        if header.kind == messages::Kind::Refusal {
            return (applied, None);
        }
        let refusal = Body::Refusal(Refusal { message: header.id, reason, code });
        let outbound = outbound(header.from.clone(), id, &refusal, Some(header.id));
        let answer = outbound.map(|outbound| Outbound { answers: Some(self.seq), ..outbound });
        (applied, answer.ok())
    }

    fn applied(&self, disposition: Disposition) -> Applied {
        let header = &self.message.header;
        Applied { peer: header.from.clone(), seq: self.seq, disposition }
    }
}

/// A message to send, from a body.
///
/// # Errors
/// [`TransactError::Encode`]
pub fn outbound(
    to: EndpointId,
    id: MessageId,
    body: &Body,
    cause: Option<MessageId>,
) -> Result<Outbound, TransactError> {
    let (kind, body) = body.encode()?;
    Ok(Outbound { to, id, kind, body, cause, answers: None })
}

/// Both streams shared with a peer, and what the broker did for them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointView {
    /// As the session sees them.
    pub streams: PeerView,
    /// The highest message that the broker confirmed to this process. Flow control and nothing else.
    pub confirmed: Option<Seq>,
}

/// The connection to the broker.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkState {
    /// Whether publishing and consuming are possible.
    pub connected: bool,
    /// Why not, or why publishing is blocked.
    pub detail: Option<String>,
    /// Since when, in milliseconds since 1970.
    pub since_ms: u64,
    /// Outages of this process, oldest first, at most 100.
    pub outages: Vec<Outage>,
    /// Messages sent again by this process.
    pub resent: u64,
}

/// A time without the broker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outage {
    /// When it began, in milliseconds since 1970.
    pub from_ms: u64,
    /// When it ended; nothing while it lasts.
    pub to_ms: Option<u64>,
    /// Why, as first reported.
    pub reason: String,
    /// Messages that this process had sent again when it began.
    pub resent_before: u64,
}

/// Journals found lost or restored that the application has still to hear of: at most two entries for each peer.
#[derive(Debug, Clone, Default)]
pub(crate) struct Rewinds(std::sync::Arc<std::sync::Mutex<std::collections::BTreeSet<Rewound>>>);

impl Rewinds {
    fn set(&self) -> std::sync::MutexGuard<'_, std::collections::BTreeSet<Rewound>> {
        // Each change of the set is one call that does not panic halfway.
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    pub(crate) fn add(&self, rewound: Vec<Rewound>) {
        self.set().extend(rewound);
    }

    fn take(&self) -> Vec<Rewound> {
        std::mem::take(&mut *self.set()).into_iter().collect()
    }
}

/// A transaction that was handed over, and is not on stable storage yet.
#[derive(Debug)]
#[must_use = "nobody may be told of it before it is done"]
pub struct Begun(oneshot::Receiver<Result<(), SubmitError>>);

impl Begun {
    /// Waits for it. `Ok` means that all of it is on stable storage.
    ///
    /// # Errors
    /// [`SubmitError`]
    ///
    /// # Cancel safety
    /// The transaction happens all the same.
    pub async fn done(self) -> Result<(), SubmitError> {
        self.0.await.unwrap_or(Err(SubmitError::Stopped))
    }
}

/// The application's handle.
#[derive(Clone)]
pub struct Endpoint {
    pub(crate) local: EndpointId,
    pub(crate) requests: mpsc::Sender<Request>,
    pub(crate) work: std::sync::Arc<Mutex<mpsc::Receiver<Work>>>,
    pub(crate) logs: std::sync::Arc<Mutex<mpsc::Receiver<LogDatagram>>>,
    pub(crate) rewinds: Rewinds,
    pub(crate) rewound: std::sync::Arc<Mutex<mpsc::Receiver<()>>>,
    pub(crate) changes: watch::Receiver<u64>,
    pub(crate) connected: watch::Receiver<bool>,
    pub(crate) heard: watch::Receiver<bool>,
}

impl Endpoint {
    /// Whose endpoint it is.
    #[must_use]
    pub const fn local(&self) -> &EndpointId {
        &self.local
    }

    /// Does as one: messages applied, rows changed, messages sent. `Ok` means that all of it is on stable storage.
    ///
    /// # Errors
    /// [`SubmitError`]
    ///
    /// # Cancel safety
    /// Dropped before it is done, the transaction may or may not happen.
    pub async fn transact(&self, transaction: Transaction) -> Result<(), SubmitError> {
        self.begin(transaction).await?.done().await
    }

    /// Hands a transaction over without waiting for it. Transactions are done in the order in which they were handed over, so whoever
    /// has to keep an order among its own needs to hold it only up to here.
    ///
    /// # Errors
    /// [`SubmitError::Stopped`]
    ///
    /// # Cancel safety
    /// Dropped before it is done, the transaction may or may not happen.
    pub async fn begin(&self, transaction: Transaction) -> Result<Begun, SubmitError> {
        let (done, result) = oneshot::channel();
        self.ask(Request::Transact(transaction, Transacting { taken: None, done })).await?;
        Ok(Begun(result))
    }

    /// As [`Self::begin`], and returns only when the transaction was checked and has its place: from then on nothing but a journal that
    /// fails can stand in its way. For those who have to take something back when it is refused: they need not wait for its sync.
    ///
    /// # Errors
    /// [`SubmitError::Refused`]: nothing of it happened. [`SubmitError::Stopped`].
    ///
    /// # Cancel safety
    /// As for [`Self::begin`].
    pub async fn begin_checked(&self, transaction: Transaction) -> Result<Begun, SubmitError> {
        let ((taken, answer), (done, result)) = (oneshot::channel(), oneshot::channel());
        self.ask(Request::Transact(transaction, Transacting { taken: Some(taken), done })).await?;
        answer.await.map_err(|_| SubmitError::Stopped)??;
        Ok(Begun(result))
    }

    async fn ask(&self, request: Request) -> Result<(), SubmitError> {
        self.requests.send(request).await.map_err(|_| SubmitError::Stopped)
    }

    /// The next messages to deal with. What is taken must be applied, in order, before more comes from the same peer.
    ///
    /// # Errors
    /// [`Stopped`]
    ///
    /// # Cancel safety
    /// Nothing is lost when it is dropped.
    pub async fn next_work(&self) -> Result<Work, Stopped> {
        self.work.lock().await.recv().await.ok_or(Stopped)
    }

    /// The next pieces of logs that arrived, or words about them: what waits, at least one and at most `max`.
    ///
    /// # Errors
    /// [`Stopped`]
    ///
    /// # Cancel safety
    /// Nothing is lost when it is dropped.
    pub async fn next_logs(&self, max: usize) -> Result<Vec<LogDatagram>, Stopped> {
        let mut found = Vec::new();
        match self.logs.lock().await.recv_many(&mut found, max).await {
            0 => Err(Stopped),
            _ => Ok(found),
        }
    }

    /// The journals that were found lost or restored since it was last asked. Work is offered after that is known. An application
    /// that misses it, because its process ended, finds the same in its journal.
    ///
    /// # Errors
    /// [`Stopped`]
    ///
    /// # Cancel safety
    /// Nothing is lost when it is dropped.
    pub async fn next_rewound(&self) -> Result<Vec<Rewound>, Stopped> {
        self.rewound.lock().await.recv().await.ok_or(Stopped)?;
        Ok(self.rewinds.take())
    }

    /// Sends a piece of a log, if there is a connection. It may be lost.
    ///
    /// # Errors
    /// [`Stopped`]
    pub async fn send_log(&self, to: EndpointId, log: LogDatagram) -> Result<(), Stopped> {
        self.requests.send(Request::Log(to, log)).await.map_err(|_| Stopped)
    }

    /// Says what the peers are to know of this endpoint.
    ///
    /// # Errors
    /// [`Stopped`]
    pub async fn present(&self, presence: Presence) -> Result<(), Stopped> {
        self.requests.send(Request::Present(presence)).await.map_err(|_| Stopped)
    }

    /// Both streams shared with a peer; nothing for one that is not known.
    ///
    /// # Errors
    /// [`Stopped`]
    pub async fn view(&self, peer: EndpointId) -> Result<Option<EndpointView>, Stopped> {
        let (answer, result) = oneshot::channel();
        self.requests.send(Request::View(peer, answer)).await.map_err(|_| Stopped)?;
        result.await.map_err(|_| Stopped)
    }

    /// The streams shared with every peer that is known, by name.
    ///
    /// # Errors
    /// [`Stopped`]
    pub async fn views(&self) -> Result<Vec<EndpointView>, Stopped> {
        let (answer, result) = oneshot::channel();
        self.requests.send(Request::Views(answer)).await.map_err(|_| Stopped)?;
        result.await.map_err(|_| Stopped)
    }

    /// Carries out what a person decided about streams that are stopped at this end: this journal goes on, under another name.
    /// `Ok` means that the decision is on stable storage; the other end is told as soon as it can be reached.
    ///
    /// # Errors
    /// [`ResolveFailure`]
    ///
    /// # Cancel safety
    /// Dropped before it is done, the decision may or may not be carried out.
    pub async fn resolve(&self, peer: EndpointId) -> Result<(), ResolveFailure> {
        let (answer, result) = oneshot::channel();
        self.requests.send(Request::Resolve(peer, answer)).await.map_err(|_| ResolveFailure::Stopped)?;
        result.await.unwrap_or(Err(ResolveFailure::Stopped))
    }

    /// The connection to the broker.
    ///
    /// # Errors
    /// [`Stopped`]
    pub async fn link(&self) -> Result<LinkState, Stopped> {
        let (answer, result) = oneshot::channel();
        self.requests.send(Request::Link(answer)).await.map_err(|_| Stopped)?;
        result.await.map_err(|_| Stopped)
    }

    /// Changes whenever something that people look at did. At most one notice is kept.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.clone()
    }

    /// Whether a peer has heard this very process. Were its journal an old copy, that would be known by then.
    #[must_use]
    pub fn heard(&self) -> watch::Receiver<bool> {
        self.heard.clone()
    }

    /// Whether there is a connection to the broker.
    #[must_use]
    pub fn connected(&self) -> watch::Receiver<bool> {
        self.connected.clone()
    }
}

/// How long a question to a running endpoint may take.
pub(crate) const QUESTION_TIMEOUT: Duration = Duration::from_secs(60);
