//! What lies between the driver and a broker: events one way, commands the other. The AMQP transport is one end of such a
//! wire; a test may hold that end itself. Nothing here knows AMQP.

use messages::EndpointId;
use tokio::sync::mpsc;

use crate::session::{DeliveryTag, Publish, Published};

/// Events that may wait for the driver. Deliveries are bounded by the prefetch besides; more would only cost memory.
pub const EVENTS_MAX: usize = 1_024;

/// Commands that may wait for the transport. The driver keeps what does not fit, and takes in less.
pub const COMMANDS_MAX: usize = 1_024;

/// Pieces of logs that may wait for the driver. They come beside the events, so that none of those waits behind them; what has no
/// room stays at the broker.
pub const LOGS_MAX: usize = 16;

/// What the transport tells the driver.
#[derive(Debug)]
pub enum WireEvent {
    /// Publishing and consuming are possible, on a connection with this number. Numbers only grow.
    Up {
        /// Counts connections.
        connection: u64,
    },
    /// They no longer are, or could not be made so. May come several times in a row while attempts fail.
    Down {
        /// Why, for people. Never holds a password.
        reason: String,
        /// Whether nothing is wrong: an agent that was quicker than its server waits for its queue to be declared.
        expected: bool,
    },
    /// An envelope for this endpoint.
    Delivery {
        /// For settling it. Envelopes that came together have the same one.
        tag: DeliveryTag,
        /// At most a little more than an envelope may have; larger deliveries are rejected by the transport itself.
        bytes: Vec<u8>,
    },
    /// The broker took these publishes and routed them: to whom, and what it was. This is flow control and nothing else.
    Confirmed(Vec<(EndpointId, Published)>),
    /// The broker did not take a publish, or could not route it.
    Refused {
        /// To whom it was.
        to: EndpointId,
        /// What it was.
        what: Published,
        /// Why.
        refusal: Refusal,
    },
    /// The broker blocks publishing for that reason, or no longer does.
    Blocked(Option<String>),
}

/// Why a publish did not get into a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The broker said no, as it does during a change of leader or when a queue is full.
    Nacked,
    /// No queue is bound for it: the topology is missing. The transport of a server repairs that by itself.
    Returned,
}

/// What the driver asks of the transport.
#[derive(Debug)]
pub enum WireCommand {
    /// Publish this. Dropped while there is no connection: reconciling finds out.
    Publish(Publish),
    /// The same, together with what comes next, or by itself when nothing comes within some milliseconds. In the order of all commands, too.
    PublishSoon(Publish),
    /// Acknowledge these deliveries. They come in the order in which they were delivered, each delivery in exactly one
    /// command, and the tag of several as often as there were; those of an earlier connection are ignored.
    Acknowledge(Vec<DeliveryTag>),
    /// Reject these deliveries to the dead-letter queue, under the same rule.
    Discard(Vec<DeliveryTag>),
}

/// The driver's end of a wire.
#[derive(Debug)]
pub struct Wire {
    /// What happens.
    pub events: mpsc::Receiver<WireEvent>,
    /// Bytes of pieces of logs. They are acknowledged already: what is lost of them here is sent again by its agent.
    pub logs: mpsc::Receiver<Vec<u8>>,
    /// What is asked.
    pub commands: mpsc::Sender<WireCommand>,
}

/// The transport's end of a wire.
#[derive(Debug)]
pub struct WireEnd {
    /// What happens.
    pub events: mpsc::Sender<WireEvent>,
    /// Bytes of pieces of logs, where they come apart from everything else.
    pub logs: mpsc::Sender<Vec<u8>>,
    /// What is asked. Closed when the driver is gone.
    pub commands: mpsc::Receiver<WireCommand>,
}

/// Both ends of a new wire.
#[must_use]
pub fn wire() -> (Wire, WireEnd) {
    let (event_sender, event_receiver) = mpsc::channel(EVENTS_MAX);
    let (log_sender, log_receiver) = mpsc::channel(LOGS_MAX);
    let (command_sender, command_receiver) = mpsc::channel(COMMANDS_MAX);
    (
        Wire { events: event_receiver, logs: log_receiver, commands: command_sender },
        WireEnd { events: event_sender, logs: log_sender, commands: command_receiver },
    )
}
