//! R10: what a journal takes on disk after very many messages were settled and dropped, against what is alive in it.

use std::time::Duration;

use journal::Engine;

use super::disk::{Setup, measure};
use super::{Benchmark, Bound, Case, Figures, Goal, Measure, Meter, Options};

/// See the file.
pub(super) const BENCHMARK: Benchmark = Benchmark {
    id: "R10",
    what: "disk taken after messages were settled and dropped",
    how: "Messages of 1 KiB are journaled, settled and dropped, never more than a window of them open; the window stays. Then the journal \
          is left alone for at most a minute. Counted are the blocks of its files, against the bytes of all keys and values in it.",
    unit: "message",
    cases,
    part: None,
    picture: None,
};

/// Messages that are settled and dropped.
const MESSAGES: u64 = 1_000_000;

/// Messages that stay.
const KEPT: u64 = 4_096;

/// How long the journal is left alone.
const REST: Duration = Duration::from_secs(20);

const TIMES: &str = "times what is alive";
const WRITTEN: &str = "written for each byte journaled";

fn cases(options: &Options) -> Vec<Case> {
    let messages = options.amount(MESSAGES).max(KEPT);
    let case = |engine| Case {
        name: Engine::to_string(&engine),
        at: None,
        goals: vec![
            Goal::own(Measure { name: TIMES, of: |figures| figures.other.get(TIMES).copied() }, Bound::AtMost(2.0)),
            Goal::shown(Measure { name: WRITTEN, of: |figures| figures.other.get(WRITTEN).copied() }),
        ],
        pairs_max: 1,
        has_reference: false,
        run: Box::new(move |stage, _| {
            let meter = Meter::own(None)?;
            let setup = Setup { dir: stage.dir().to_owned(), engine, messages, kept: KEPT, rest: REST };
            let space = measure(&setup)?;
            let spent = meter.end()?;
            let taken = space.taken_bytes.last().copied().unwrap_or_default();
            let times = taken as f64 / space.live_bytes.max(1) as f64;
            let written = space.written_bytes as f64 / space.journaled_bytes.max(1) as f64;
            Ok(Figures::of(messages, spent).with(TIMES, times).with(WRITTEN, written))
        }),
    };
    [Engine::Segments, Engine::Sled].map(case).into()
}
