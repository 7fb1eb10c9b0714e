//! Decides which agent does what, and takes in the outcomes.

pub mod api;
pub mod job_file;
pub mod views;
