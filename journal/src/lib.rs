//! What an endpoint remembers, and what that means.
//!
//! A journal is one ordered store of rows per endpoint. Changes reach it only through [`Journal::commit`], which hands out
//! what was bound to them (see [`WriteAhead`]) after they are on stable storage. What the rows amount to is a pure fold,
//! [`State::apply`]. Engines hide behind [`Store`]; sled is named in one file. This crate knows no async runtime and no
//! broker, reads no clock and makes no random numbers.
//!
//! ```
//! use std::sync::Arc;
//! use journal::{Journal, MemoryStore, Opening, WriteAhead, put_app};
//!
//! let opening = Opening { endpoint: "web-01".parse()?, incarnation: messages::Incarnation::from_u128(1), now_ms: 0 };
//! let (journal, state) = Journal::over(Arc::new(MemoryStore::default()), &opening)?;
//! assert!(state.peers.is_empty());
//! let publish = journal.commit(WriteAhead::new(vec![put_app(b"run/1".to_vec(), b"running".to_vec())], "publish")).wait()?;
//! assert_eq!(publish, "publish"); // only now can it be done
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod batch;
mod commit;
mod engine;
mod folders;
mod high_water;
mod in_step;
mod incoming;
pub mod inspect;
#[allow(clippy::module_inception)]
mod journal;
mod key;
mod known_sums;
mod long_values;
mod marks;
mod memory_store;
mod nudge;
mod opening;
mod quarantine;
mod room;
mod row;
mod seam;
pub mod segments;
mod sled_store;
mod state;
mod stopped;
mod store;
mod tail_mark;
mod totals;
mod verify;
mod write_ahead;
mod writer;

pub use commit::{Commit, CommitError};
pub use engine::{Engine, EngineNameError};
pub use folders::make_folder;
pub use high_water::{HighWater, PeerMark, ReadError as HighWaterReadError, Shortfall};
#[doc(hidden)]
pub use in_step::InStep;
pub use incoming::{Incoming, Part, Place, Succession, Sworn, Void};
pub use journal::{Journal, ReadError, put_app};
pub use key::{Direction, Key, MessageTable, Table};
pub use memory_store::MemoryStore;
pub use opening::{OpenError, Opening, is_running};
pub use quarantine::{Quarantined, quarantine};
pub use room::{Room, RoomLimits, Short};
pub use row::{HeaderRow, Meta, Outgoing, Row, RowError, Work};
#[doc(hidden)]
pub use seam::{BeforeMark, MarkStep, Seams, WrapStore};
pub use segments::{SegmentReader, SegmentStore};
pub use sled_store::SledStore;
pub use state::{IllegalChange, Link, PeerState, State};
pub use store::{Batch, KEY_BYTES_MAX, Store, StoreError, Visit};
pub use totals::Totals;
pub use verify::{Verification, VerifiedStream, verify};
pub use write_ahead::{Change, WriteAhead};
