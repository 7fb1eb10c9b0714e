//! What Longshore costs, each time beside a real reference that is run in turn on the same machine and broker. A ratio is the median of
//! several pairs, so that whatever else the machine does falls on both sides. Nothing here changes what it measures.
//!
//! A benchmark is one file with a `BENCHMARK` and one line in [`benchmarks!`] below. Each side runs in a process of its own where its
//! memory is to be told from the other's: [`Stage::apart`] starts this program again with [`Benchmark::part`].

mod apart;
mod celery;
mod clients;
mod coming_back;
mod control_group;
mod crew;
pub mod disk;
mod durable_ends;
mod durable_worker;
mod ends;
mod error;
mod figures;
pub mod fill;
pub mod journal_commits;
mod kept;
mod log;
mod measure;
pub mod open;
mod outcome;
mod page;
mod picture;
mod proc;
mod raw;
mod runner;
mod served_worker;
mod shown;
mod sled_alone;
mod stage;
mod supervisor;
mod table;
mod tap;
pub mod usage;

use std::fmt;

pub use apart::{Ask, ask, serve};
pub use error::BenchError;
pub use figures::{CPU_US, Figures, Latency, P50_US, P99_US, PER_SECOND};
pub use measure::{Meter, Spent, peak_kib};
pub use outcome::{CaseOutcome, Outcome, Pair, Reached, Spread, Verdict};
pub use page::{PAGE, PageError, write};
pub use picture::{Axis, Picture};
pub use runner::run;
pub use stage::{BrokerAt, Options, Stage};
pub use table::{machine, text};

/// Declares the file of each benchmark, in the order of the tables.
macro_rules! benchmarks {
    ($($file:ident),* $(,)?) => {
        $(mod $file;)*
        /// Every benchmark.
        pub const ALL: &[Benchmark] = &[$($file::BENCHMARK),*];
    };
}

benchmarks![
    messages,
    round_trip,
    jobs,
    job_latency,
    synced,
    drain,
    backlog,
    holes,
    idle,
    storm,
    beside,
    peers,
    reopening,
    left_over
];

/// One benchmark: what is measured, against what, and how.
#[derive(Debug, Clone, Copy)]
pub struct Benchmark {
    /// What it is asked for by, as `R1`.
    pub id: &'static str,
    /// What is measured, for a heading.
    pub what: &'static str,
    /// What is done in one run of each side, and what the reference is: a paragraph.
    pub how: &'static str,
    /// What the figures count, as `message`: figures are shown for one of these.
    pub unit: &'static str,
    /// The rows of its table. Each is measured with pairs of its own.
    pub cases: fn(&Options) -> Vec<Case>,
    /// What a process that was started by [`Stage::apart`] does, given the order as it was written.
    pub part: Option<Part>,
    /// The picture of its cases, where they lie on an axis.
    pub picture: Option<Picture>,
}

impl Benchmark {
    /// The one with that id, written large or small.
    #[must_use]
    pub fn of(id: &str) -> Option<&'static Self> {
        ALL.iter().find(|benchmark| benchmark.id.eq_ignore_ascii_case(id))
    }
}

/// One row of a benchmark's table: usually an engine.
pub struct Case {
    /// Tells it from its neighbours, as `segments`.
    pub name: String,
    /// Where it lies on the axis of the picture.
    pub at: Option<f64>,
    /// Its goals. The first one is what is drawn, and told while it runs.
    pub goals: Vec<Goal>,
    /// Pairs at most, where one takes long. What is asked for counts where it is less.
    pub pairs_max: usize,
    /// Whether there is anything to compare it with.
    pub has_reference: bool,
    /// Does one run of one side.
    pub run: RunSide,
}

/// Does one run of one side.
pub type RunSide = Box<dyn FnMut(&mut Stage, Side) -> Result<Figures, BenchError>>;

/// Does one side in a process of its own.
pub type Part = fn(&str) -> Result<Figures, BenchError>;

/// Who is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Side {
    /// Longshore.
    Ours,
    /// What it is compared with.
    Reference,
}

impl Side {
    /// The other one.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Ours => Self::Reference,
            Self::Reference => Self::Ours,
        }
    }
}

/// What should come of a case.
#[derive(Debug, Clone, Copy)]
pub struct Goal {
    /// What is looked at.
    pub measure: Measure,
    /// Whether it is set against the reference's.
    pub against: Against,
    /// What it should be; nothing where it is only shown.
    pub bound: Option<Bound>,
}

/// A figure that is taken out of a run's figures.
#[derive(Debug, Clone, Copy)]
pub struct Measure {
    /// What it is, with its unit, as `messages a second`.
    pub name: &'static str,
    /// Takes it out; nothing where that run has no such figure.
    pub of: fn(&Figures) -> Option<f64>,
}

/// What a goal compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Against {
    /// Our figure divided by the reference's of the same pair.
    Reference,
    /// Our figure itself.
    Nothing,
    /// Something that the reference's run has found out by itself, as how far it is from another reference: no figure of ours is in it.
    Floor,
}

/// On which side of a number a figure should be.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Bound {
    /// That or more.
    AtLeast(f64),
    /// That or less.
    AtMost(f64),
}

impl Bound {
    /// Whether a figure is on the right side.
    #[must_use]
    pub fn holds(self, figure: f64) -> bool {
        match self {
            Self::AtLeast(bound) => figure >= bound,
            Self::AtMost(bound) => figure <= bound,
        }
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::AtLeast(bound) => format!(">= {}", figures::short(*bound)),
            Self::AtMost(bound) => format!("<= {}", figures::short(*bound)),
        };
        f.pad(&text)
    }
}

impl Goal {
    /// Our figure over the reference's.
    #[must_use]
    pub const fn ratio(measure: Measure, bound: Bound) -> Self {
        Self { measure, against: Against::Reference, bound: Some(bound) }
    }

    /// Our figure alone.
    #[must_use]
    pub const fn own(measure: Measure, bound: Bound) -> Self {
        Self { measure, against: Against::Nothing, bound: Some(bound) }
    }

    /// How far a second reference, which does no more than what is promised, is from the first: a ratio of two figures of the reference's run.
    /// It is shown, and is no goal.
    #[must_use]
    pub const fn floor(measure: Measure) -> Self {
        Self { measure, against: Against::Floor, bound: None }
    }

    /// A figure that has no goal and is shown, with its ratio to the reference's where there is one.
    #[must_use]
    pub const fn shown(measure: Measure) -> Self {
        Self { measure, against: Against::Reference, bound: None }
    }
}
