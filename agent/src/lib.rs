//! What an agent does: it executes runs, one shim per step. It never knows the server's code, only its messages.

pub mod attempt;
mod execute;
mod records;
mod rewind;
mod service;
pub mod shim;
mod ship;
mod worker;

pub use records::ResumeError;
pub use service::{AgentConfig, AgentError, DiskLimits, run};
