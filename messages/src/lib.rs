//! What Longshore's endpoints say to each other, and the bytes they say it in.
//!
//! This crate is the vocabulary of the protocol: ids, envelopes, bodies and their codec. It performs no I/O, reads no
//! clock, makes no random numbers and knows neither the broker nor the journal. Everything that comes from outside is
//! bounded before it is parsed (see [`limits`]).
//!
//! ```
//! use messages::{AgentId, Body, EndpointId, Epoch, Frame, Header, Incarnation, Refusal, MessageId, Seq};
//!
//! let body = Body::Refusal(Refusal { message: MessageId::from_u128(7), reason: "no such step".into(), code: Default::default() });
//! let (kind, bytes) = body.encode()?;
//! let header = Header::new(EndpointId::Agent("web-01".parse()?), EndpointId::Server, Incarnation::from_u128(1), Epoch::FIRST)
//!     .numbered(Seq::FIRST, messages::ChainHash::START)
//!     .carrying(MessageId::from_u128(8), kind, None, &bytes);
//! let frame = Frame::message(&header, &bytes)?;
//! let messages::Envelope::Message(message) = messages::decode(frame.bytes().to_vec())? else { unreachable!() };
//! assert_eq!(message.header.seq, Seq::FIRST);
//! assert_eq!(Body::decode(message.header.kind, message.body())?, body);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod body;
mod bundle;
mod codec;
mod earlier;
mod envelope;
mod hash;
mod ids;
pub mod limits;
mod lineage;
mod logs;
mod names;
mod orders;
mod ranges;
mod run;
mod status;

pub use body::{Body, BodyError, Kind, Refusal};
pub use bundle::{Bundle, Payload, unbundle};
pub use codec::{
    DecodeError, EncodeError, PROTOCOL_VERSION, ProtocolVersion, decode, from_msgpack, to_msgpack, write_msgpack,
};
pub use earlier::Earlier;
pub use envelope::{Envelope, Frame, Header, Message, Sealing};
pub use hash::{ChainHash, Digest, Hasher};
pub use ids::{Epoch, Incarnation, JobId, MessageId, Nonce, ProbeId, RunId, Seq};
pub use lineage::{Agreed, Lineage, LineageError, Origin};
pub use logs::{LogChunk, LogDatagram, LogEnd, LogKey, LogMark, LogStream};
pub use names::{AgentId, EndpointId, IdError, StepId};
pub use orders::{AgentDrain, AgentFacts, Decision, RefusalCode, RunCancel, RunDecide, is_label};
pub use ranges::{Insert, RangeError, Ranges};
pub use run::{
    Effect, Keep, Limits, OutputType, Program, Retry, RunEnd, RunFinished, RunRecalled, RunStart, StepChanged, StepEnd,
    StepEvent, StepSpec, Usage, When, is_output_name,
};
pub use status::{Presence, Receiving, Sending, Status, Sworn};
