//! Decides which agent does what, and takes in the outcomes.

pub mod api;

mod books;
mod core;
mod fleet;
mod intake;
pub mod job_file;
mod logs;
pub mod outage;
mod records;
mod service;
pub mod views;

pub use fleet::link_view;
pub use service::{ACCESS_FILE, ServerConfig, ServerError, run};
