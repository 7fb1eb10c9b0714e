//! What an agent does: it executes runs, one shim per step. It never knows the server's code, only its messages.

pub mod attempt;
pub mod shim;
