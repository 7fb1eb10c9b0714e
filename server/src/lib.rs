//! Decides which agent does what, and takes in the outcomes.

pub mod api;

mod books;
mod clock;
mod core;
mod dispatch;
mod fleet;
mod forgetting;
mod intake;
pub mod job_file;
mod kept;
mod logs;
mod orders;
pub mod outage;
mod pace;
mod records;
mod retry;
mod schedule;
mod service;
mod submit;
mod submitting;
mod tally;
pub mod views;

pub use fleet::link_view;
pub use service::{ACCESS_FILE, ServerConfig, ServerError, run};
