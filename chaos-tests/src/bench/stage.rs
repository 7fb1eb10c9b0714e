//! What benchmarks share: options, a folder, and one private broker that is started when the first of them wants it. Ends what it
//! started, and touches no other broker.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use broker_config::QueueType;
use broker_config::node::{Node, NodeOptions, default_cache, ensure};
use serde::{Deserialize, Serialize};

use super::BenchError;

/// How long the broker may take to start. Only a machine that is very busy needs more than a tenth of it.
const START_LIMIT: Duration = Duration::from_secs(300);

/// How to measure.
#[derive(Debug, Clone)]
pub struct Options {
    /// Pairs of runs of each case.
    pub pairs: usize,
    /// The type of every queue, on both sides.
    pub queue_type: QueueType,
    /// Where journals and the broker keep their files: the disk is a part of what is measured.
    pub dir: PathBuf,
    /// This program, which is started again for sides that have a process of their own.
    pub program: PathBuf,
    /// How much of the usual amount is done in a run, in percent. Less is for looking whether all of it works.
    pub percent: u64,
}

impl Options {
    /// That share of the usual amount, and at least one.
    #[must_use]
    pub fn amount(&self, usual: u64) -> u64 {
        (usual * self.percent / 100).max(1)
    }
}

/// How a process reaches the broker, and finds it among the processes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BrokerAt {
    /// With login and virtual host.
    pub url: String,
    /// Its process.
    pub pid: u32,
    /// The type of queue to declare.
    pub queue_type: QueueType,
}

/// What benchmarks run on.
pub struct Stage<'a> {
    options: &'a Options,
    node: Option<Node>,
    folders: u64,
    say: &'a mut dyn FnMut(&str),
}

impl<'a> Stage<'a> {
    /// With nothing started yet.
    pub fn new(options: &'a Options, say: &'a mut dyn FnMut(&str)) -> Self {
        Self { options, node: None, folders: 0, say }
    }

    /// How to measure.
    #[must_use]
    pub const fn options(&self) -> &'a Options {
        self.options
    }

    /// Tells people how far it is.
    pub fn say(&mut self, line: &str) {
        (self.say)(line);
    }

    /// A folder that nobody used before. Whoever asks for it removes it if it is large, but not if it has many files: see `crew`.
    ///
    /// # Errors
    /// The operating system's.
    pub fn folder(&mut self, what: &str) -> io::Result<PathBuf> {
        self.folders += 1;
        let dir = self.options.dir.join(format!("{:04}-{what}", self.folders));
        std::fs::create_dir(&dir)?;
        Ok(dir)
    }

    /// The broker, which is started if it does not run.
    ///
    /// # Errors
    /// [`BenchError::Install`], [`BenchError::Node`]
    pub fn broker(&mut self) -> Result<BrokerAt, BenchError> {
        let queue_type = self.options.queue_type;
        let node = self.node()?;
        if node.pid().is_none() {
            node.start()?;
        }
        let pid = node.pid().ok_or_else(|| io::Error::other("a broker that was started has no process"))?;
        Ok(BrokerAt { url: node.url(), pid, queue_type })
    }

    /// The broker's node, running or not.
    ///
    /// # Errors
    /// [`BenchError::Install`], [`BenchError::Node`]
    pub fn node(&mut self) -> Result<&mut Node, BenchError> {
        let node = match self.node.take() {
            Some(node) => node,
            None => {
                let say = &mut *self.say;
                let installation = ensure(&default_cache(), &mut |step| say(&step.to_string()))?;
                self.say("starting a broker");
                let options = NodeOptions { start_limit: START_LIMIT, ..NodeOptions::default() };
                Node::create(&self.options.dir.join("broker"), installation, options)?
            }
        };
        Ok(self.node.insert(node))
    }

    /// Where things are kept.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.options.dir
    }
}
