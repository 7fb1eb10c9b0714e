//! The binary as its users meet it: started as a process, judged by what it prints and how it exits.
#![allow(clippy::unwrap_used, missing_docs, unreachable_pub)]

#[path = "../../../server/tests/api/desk.rs"]
mod desk;
mod following;
mod globals;
mod holding;
mod job_file;
mod log_lost;
mod offline;
mod online;
mod reconcile;
mod run;
#[allow(dead_code, reason = "link's own tests use the rest")]
#[path = "../../../link/tests/control/running.rs"]
mod running;
mod service;
