//! Every limit of the vocabulary, with its reason. Nothing here is configurable: both ends must agree on them.

/// Bytes. The largest envelope that may cross the broker, header and body together. Small enough for broker memory and
/// fairness between agents, far under RabbitMQ 4's 16-MiB default; larger payloads travel in numbered chunks.
pub const ENVELOPE_BYTES_MAX: usize = 256 * 1024;

/// Bytes. The largest header. A header has a dozen short fields, two of them names of at most 63 bytes.
pub const HEADER_BYTES_MAX: usize = 2 * 1024;

/// Bytes. The largest body, so that a body that was accepted always fits an envelope with its header.
pub const BODY_BYTES_MAX: usize = ENVELOPE_BYTES_MAX - HEADER_BYTES_MAX - crate::envelope::PREFIX_BYTES;

/// Bytes of several envelopes that travel together. What they save is spent on some twenty of a kilobyte; more would make a consumer, which
/// has hundreds open, large.
pub const BUNDLE_BYTES_MAX: usize = 32 * 1024;

/// Envelopes that travel together.
pub const BUNDLE_ENVELOPES_MAX: usize = 128;

/// Levels of nesting that the MessagePack decoder follows. Its own default, 1024, overflows a 2-MiB stack in a debug build.
pub const DEPTH_MAX: usize = 64;

/// Received ranges beyond the contiguous mark that one status carries and one stream remembers. Each costs at most 18 bytes.
pub const RANGES_MAX: usize = 64;

/// Parts of a stream, each written by another incarnation of its sender's journal, that are remembered and told. A journal gets a
/// new incarnation when it was restored from an old copy, and a process that writes before it was heard begins one. Each costs
/// about 100 bytes. What the peer has still to receive must be within them.
pub const ORIGINS_MAX: usize = 32;

/// Earlier incarnations of a peer that are remembered, lest an old status of one of them is taken for a new journal.
pub const SUPERSEDED_MAX: usize = 16;

/// Characters of an agent's name: one word of an AMQP routing key, and a DNS label.
pub const AGENT_ID_CHARS_MAX: usize = 63;

/// Characters of a step's id: it names a folder.
pub const STEP_ID_CHARS_MAX: usize = 64;

/// Steps of one run. The whole run travels in one message, so the envelope usually ends it first.
pub const STEPS_MAX: usize = 1_000;

/// Bytes of output in one log chunk. Several fit in the broker's frame window, none blocks the channel for long.
pub const LOG_CHUNK_BYTES_MAX: usize = 64 * 1024;

/// Bytes kept of one output of a step when its author says nothing: a build that is as loud as builds get, and still little beside
/// a disk. What comes beyond is counted and not kept.
pub const LOG_BYTES_DEFAULT: u64 = 1024 * 1024 * 1024;

/// Bytes kept of one output of a step at most, whatever its author says. Above it an output is data, which belongs into a file
/// that the step makes. The agent cuts there, and the server takes no more.
pub const LOG_BYTES_MAX: u64 = 16 * 1024 * 1024 * 1024;

/// Bytes of a reason or of evidence in words. Longer text is cut where it is made.
pub const TEXT_BYTES_MAX: usize = 4 * 1024;

/// Further attempts at a step after known failures. With the longest wait of a day that is a quarter of a year.
pub const RETRIES_MAX: u32 = 100;

/// Outputs that one step hands on. Each becomes a variable of every later step.
pub const OUTPUTS_MAX: usize = 64;

/// Characters of the name of an output.
pub const OUTPUT_NAME_CHARS_MAX: usize = 64;

/// Bytes of the text of one output, and of all outputs of a run together: they travel in a report and in environments.
pub const OUTPUT_BYTES_MAX: usize = 32 * 1024;

/// Earlier runs that a run names which goes on from them. Only their working folders are looked for, and it is in one of the latest
/// unless so many runs in a row were never begun.
pub const EARLIER_RUNS_MAX: usize = 16;

/// Labels of one agent.
pub const LABELS_MAX: usize = 64;

/// Characters of a label's name, of its value, and of a pool's name.
pub const LABEL_CHARS_MAX: usize = 63;
