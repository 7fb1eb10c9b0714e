//! One file for each command: its arguments, and what it does with them.

pub(crate) mod agent_monitor;
pub(crate) mod agent_run;
pub(crate) mod agent_service;
pub(crate) mod agent_shim;
mod agent_worker;
pub(crate) mod broker;
pub(crate) mod completions;
pub(crate) mod dev;
pub(crate) mod fleet;
mod follow;
mod follow_lines;
pub(crate) mod job;
mod job_lint;
mod job_logs;
mod job_run;
mod job_show;
pub(crate) mod journal;
mod journal_print;
mod journal_quarantine;
pub(crate) mod reconcile;
mod reconcile_ask;
mod reconcile_resolve;
pub(crate) mod server_run;
pub(crate) mod version;
