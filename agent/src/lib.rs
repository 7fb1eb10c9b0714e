//! What an agent does: it executes runs, one shim per step. It never knows the server's code, only its messages.

pub mod attempt;
mod clock;
mod control;
mod disk;
mod execute;
mod facts;
mod folders;
pub mod groups;
mod host;
mod kernel;
pub mod monitor;
mod orders;
mod records;
mod rewind;
mod service;
pub mod shim;
mod ship;
mod slots;
mod worker;

pub use records::ResumeError;
pub use service::{AgentConfig, AgentError, DiskLimits, run};
