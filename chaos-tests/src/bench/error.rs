//! Why a benchmark could not be run. What it measured is no error, however bad.

use std::io;

use broker_config::node::{InstallError, NodeError};

/// Why there are no figures.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// There is no broker to start.
    #[error("there is no RabbitMQ")]
    Install(#[from] InstallError),
    /// The broker does not work.
    #[error("the broker does not work")]
    Node(#[from] NodeError),
    /// The broker's address cannot be used.
    #[error("the broker's address cannot be used")]
    Url(#[from] link::amqp::UrlError),
    /// A name cannot enter the name of a queue.
    #[error(transparent)]
    Name(#[from] broker_config::InvalidId),
    /// An endpoint did not start.
    #[error("an endpoint did not start")]
    Start(#[from] link::StartError),
    /// An endpoint stopped.
    #[error("an endpoint stopped")]
    Run(#[from] link::RunError),
    /// An endpoint did not take a transaction.
    #[error("an endpoint did not take a transaction")]
    Submit(#[from] link::SubmitError),
    /// An endpoint stopped while it was used.
    #[error(transparent)]
    Stopped(#[from] link::Stopped),
    /// A journal cannot be opened.
    #[error("a journal cannot be opened")]
    Open(#[from] journal::OpenError),
    /// A journal does not take a commit.
    #[error("a journal does not take a commit")]
    Commit(#[from] journal::CommitError),
    /// Commits could not be measured.
    #[error("commits could not be measured")]
    Commits(#[from] super::journal_commits::CommitsError),
    /// Opening a journal could not be measured.
    #[error("opening a journal could not be measured")]
    Opening(#[from] super::open::OpeningError),
    /// The space of a journal could not be measured.
    #[error("the space of a journal could not be measured")]
    Space(#[from] super::disk::DiskError),
    /// The reference's client failed.
    #[error("the AMQP client of the reference failed")]
    Amqp(#[from] lapin::Error),
    /// The broker ended what was consumed.
    #[error("the broker ended the consumer of {queue}")]
    Cancelled {
        /// The queue.
        queue: String,
    },
    /// The broker did not take a publish of the reference.
    #[error("the broker refused a publish of the reference")]
    Nacked,
    /// Something did not come in time.
    #[error("waited {seconds} s in vain for {what}")]
    TimedOut {
        /// What.
        what: String,
        /// How long.
        seconds: u64,
    },
    /// A process of a side failed.
    #[error("the process of {id} ended with {status}: {said}")]
    Apart {
        /// The benchmark.
        id: String,
        /// How it ended.
        status: std::process::ExitStatus,
        /// The end of what it said.
        said: String,
    },
    /// A process was started for a benchmark that has none apart.
    #[error("{id} does nothing in a process of its own")]
    NoPart {
        /// The benchmark.
        id: &'static str,
    },
    /// A process of a side and this one do not understand each other, or an answer from outside is none.
    #[error("what a process or a service answered cannot be read")]
    Json(#[from] serde_json::Error),
    /// A program that the benchmark needs is not there.
    #[error("{program} is not there; {advice}")]
    Missing {
        /// What.
        program: String,
        /// How to have it.
        advice: String,
    },
    /// What came out is not what went in, so its time means nothing.
    #[error("{what}: {found} instead of {expected}; the figures of this run mean nothing")]
    Wrong {
        /// What was counted.
        what: &'static str,
        /// How much of it there should be.
        expected: u64,
        /// How much there was.
        found: u64,
    },
    /// A part of a fleet does not do as it should.
    #[error("a fleet of real processes does not work")]
    Fleet(#[from] crate::live::FleetError),
    /// Gaps could not be made or mended.
    #[error("gaps could not be made or mended")]
    Gaps(#[from] crate::gaps::GapsError),
    /// The operating system refused.
    #[error("the operating system refused")]
    Io(#[from] io::Error),
}
