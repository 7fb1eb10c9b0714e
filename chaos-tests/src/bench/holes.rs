//! C2: what mending costs, by the number of gaps in what the receiver has. No broker: journals on disk and the session that ships.

use std::collections::BTreeSet;

use journal::Engine;

use super::{Axis, BenchError, Benchmark, Case, Figures, Goal, Measure, Meter, Options, Picture};
use crate::gaps::reconcile_without;

/// See the file.
pub(super) const BENCHMARK: Benchmark = Benchmark {
    id: "C2",
    what: "bytes of statuses to find and mend gaps, by their number",
    how: "50,000 messages are journaled at one end; some, evenly apart, get lost on the way to the other. The connection is lost and \
          comes back. Counted are the bytes of all statuses to and fro until everything is there, and the messages sent again. A \
          receiver remembers 63 ranges beyond its first gap; what lies behind them is sent again, too.",
    unit: "message",
    cases,
    part: None,
    picture: Some(Picture {
        file: "performance-gaps.svg",
        x: Axis { name: "gaps", logarithmic: true },
        y: Axis { name: "bytes of statuses", logarithmic: false },
    }),
};

/// Messages in the sender's journal.
const MESSAGES: u64 = 50_000;

/// Numbers of gaps.
const GAPS: [u64; 6] = [1, 3, 10, 30, 64, 100];

const BYTES: &str = "status bytes";
const RESENT: &str = "resent for each that was lost";

fn cases(options: &Options) -> Vec<Case> {
    let messages = options.amount(MESSAGES).max(1_000);
    let own = |name, of| Goal::shown(Measure { name, of });
    let case = |gaps| Case {
        name: format!("{gaps} gaps"),
        at: Some(gaps as f64),
        goals: vec![
            own(BYTES, |figures| figures.other.get(BYTES).copied()),
            own(RESENT, |figures| figures.other.get(RESENT).copied()),
        ],
        pairs_max: 1,
        has_reference: false,
        run: Box::new(move |stage, _| {
            let dir = stage.folder(BENCHMARK.id)?;
            let lost: BTreeSet<u64> = (1..=gaps).map(|gap| gap * messages / (gaps + 1)).collect();
            let meter = Meter::own(None)?;
            let cost = reconcile_without(&dir, messages, &lost, Engine::Segments, &mut |_| {})?;
            let spent = meter.end()?;
            std::fs::remove_dir_all(dir)?;
            if cost.received != messages {
                let what = "messages received in the end";
                return Err(BenchError::Wrong { what, expected: messages, found: cost.received });
            }
            let each = cost.resent as f64 / gaps as f64;
            Ok(Figures::of(messages, spent).with(BYTES, cost.exchange_bytes as f64).with(RESENT, each))
        }),
    };
    GAPS.map(case).into()
}
