//! R10: what a journal takes on disk after very many messages were settled and dropped, against what is alive in it.

use std::time::Duration;

use journal::Engine;

use super::disk::{DiskError, Setup, Space, measure, measure_sled_alone};
use super::{BenchError, Benchmark, Bound, Case, Figures, Goal, Measure, Meter, Options, Side};

/// See the file.
pub(super) const BENCHMARK: Benchmark = Benchmark {
    id: "R10",
    what: "disk taken after messages were settled and dropped",
    how: "Messages of 1 KiB are journaled, settled and dropped, never more than a window of them open; the window stays. Then the journal \
          is left alone for at most a minute. Counted are the blocks of its files, against the bytes of all keys and values in it. There is \
          no reference for segments. For sled it is sled alone: 300,000 bodies of 1 KiB, one row each, are inserted and removed in the same way, \
          synced 256 at a time, and then it is left alone as long; after more of them it takes somewhat more. It has no headers, no totals \
          and no marks.",
    unit: "message",
    cases,
    part: None,
    picture: None,
};

/// Messages that are settled and dropped.
const MESSAGES: u64 = 1_000_000;

/// Messages that stay.
const KEPT: u64 = 4_096;

/// Messages that sled alone settles and drops. What it takes differs from run to run, and grows slowly: 2.7 to 4.2 times what is alive after 100,000
/// to 300,000, 4.1 and 4.2 after 500,000, 4.5 after a million; never less than 2.7. So what is shown is rather too little, for a third of the time.
const ALONE_MESSAGES: u64 = 300_000;

/// How long the journal is left alone.
const REST: Duration = Duration::from_secs(10);

/// How long sled alone is, whose files stayed as they were over twenty seconds.
const ALONE_REST: Duration = Duration::from_secs(1);

const TIMES: &str = "times what is alive";
const WRITTEN: &str = "written for each byte journaled";

/// The same beside sled alone, and what that is.
const BESIDE_SLED: &str = "times what is alive, beside sled alone";
const SLED_ALONE: &str = "times what is alive, sled alone";

const fn times(name: &'static str) -> Measure {
    Measure { name, of: |figures| figures.other.get(TIMES).copied() }
}

fn cases(options: &Options) -> Vec<Case> {
    let messages = options.amount(MESSAGES).max(KEPT);
    let alone_messages = options.amount(ALONE_MESSAGES).max(KEPT);
    let case = |engine| Case {
        name: Engine::to_string(&engine),
        at: None,
        goals: goals(engine),
        pairs_max: 1,
        has_reference: matches!(engine, Engine::Sled),
        run: Box::new(move |stage, side| {
            let setup = Setup { dir: stage.dir().to_owned(), engine, messages, kept: KEPT, rest: REST };
            match side {
                Side::Ours => figures(&setup, measure),
                Side::Reference => figures(&Setup { messages: alone_messages, rest: ALONE_REST, ..setup }, measure_sled_alone),
            }
        }),
    };
    [Engine::Segments, Engine::Sled].map(case).into()
}

fn goals(engine: Engine) -> Vec<Goal> {
    let own = Goal::own(times(TIMES), Bound::AtMost(2.0));
    let written = Goal::shown(Measure { name: WRITTEN, of: |figures| figures.other.get(WRITTEN).copied() });
    match engine {
        Engine::Segments => vec![own, written],
        Engine::Sled => vec![own, Goal::shown(times(BESIDE_SLED)), Goal::floor(times(SLED_ALONE)), written],
    }
}

fn figures(setup: &Setup, measure: fn(&Setup) -> Result<Space, DiskError>) -> Result<Figures, BenchError> {
    let meter = Meter::own(None)?;
    let space = measure(setup)?;
    let spent = meter.end()?;
    let taken = space.taken_bytes.last().copied().unwrap_or_default();
    let times = taken as f64 / space.live_bytes.max(1) as f64;
    let written = space.written_bytes as f64 / space.journaled_bytes.max(1) as f64;
    Ok(Figures::of(setup.messages, spent).with(TIMES, times).with(WRITTEN, written))
}
