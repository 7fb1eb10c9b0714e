//! R9: opening a journal of very many messages that nobody has settled, after its process was killed, beside the recovery of a bare log.

use std::path::PathBuf;

use journal::Engine;

use super::open::{Opened, Phase, Setup, one};
use super::{Axis, BenchError, Benchmark, Bound, Case, Figures, Goal, Measure, Options, Picture, Side, Spent, Stage};

/// See the file.
pub(super) const BENCHMARK: Benchmark = Benchmark {
    id: "R9",
    what: "opening a journal of a killed process, by its messages",
    how: "A process journals messages of 1 KiB that nobody settles, and the same bytes into a bare log, and is killed. Then each is opened \
          in a process of its own: the journal until its endpoint could go on, the log until every checksum was looked at. Memory is \
          what the process needs beyond what it had before. Sled alone is sled without the journal: it opens the very rows that the \
          journal has in it, as after the kill, and reads each of them once, because damage is to be noticed. It checks and keeps nothing, \
          and its log is not read through and synced before, as the journal has to.",
    unit: "message",
    cases,
    part: None,
    picture: Some(Picture {
        file: "performance-opening.svg",
        x: Axis { name: "messages", logarithmic: true },
        y: Axis { name: "times the bare log", logarithmic: false },
    }),
};

/// Numbers of messages. The last one is what the goal is about.
const SIZES: [u64; 3] = [10_000, 100_000, 1_000_000];

/// Pairs over segments, which are quickly opened. One over sled takes as long as ten of them.
const SEGMENTS_PAIRS: usize = 5;

const TIME: Measure = Measure { name: "time, s", of: |figures| Some(figures.spent.seconds) };
const MEMORY: &str = "bytes of memory a message";

/// The time beside sled alone, and how far that is from the bare log.
const BESIDE_SLED: &str = "time, s, beside sled alone";
const SLED_BESIDE_BARE: &str = "time, s, sled alone beside the bare log";

fn cases(options: &Options) -> Vec<Case> {
    [Engine::Segments, Engine::Sled].into_iter().flat_map(|engine| SIZES.map(|size| case(options, engine, size))).collect()
}

fn case(options: &Options, engine: Engine, size: u64) -> Case {
    let messages = options.amount(size);
    let is_goal = size == SIZES[SIZES.len() - 1];
    let memory = Measure { name: MEMORY, of: |figures| figures.other.get(MEMORY).copied() };
    let mut goals =
        vec![if is_goal { Goal::ratio(TIME, Bound::AtMost(1.5)) } else { Goal::shown(TIME) }, Goal::shown(memory)];
    let with_sled = is_goal && matches!(engine, Engine::Sled);
    if with_sled {
        let beside = Measure { name: BESIDE_SLED, of: |figures| figures.other.get(BESIDE_SLED).copied() };
        let floor = Measure { name: SLED_BESIDE_BARE, of: |figures| figures.other.get(SLED_BESIDE_BARE).copied() };
        goals.splice(1..1, [Goal::shown(beside), Goal::floor(floor)]);
    }
    // Made with the first run, and kept until the last one of this size.
    let mut dir: Option<PathBuf> = None;
    Case {
        name: format!("{engine}, {size}"),
        at: matches!(engine, Engine::Segments).then_some(size as f64),
        goals,
        pairs_max: if matches!(engine, Engine::Segments) { SEGMENTS_PAIRS } else { 1 },
        has_reference: true,
        run: Box::new(move |stage, side| {
            let dir = made(&mut dir, stage)?;
            let program = stage.options().program.clone();
            let setup = Setup { program, dir, engine, messages, cold: false };
            match side {
                Side::Ours => {
                    let opened = one(&setup, Phase::Journal)?;
                    Ok(figures(messages, &opened).with(BESIDE_SLED, opened.time.as_secs_f64()))
                }
                Side::Reference if with_sled => {
                    let (bare, alone) = (one(&setup, Phase::Bare)?, one(&setup, Phase::SledAlone)?);
                    Ok(figures(messages, &bare)
                        .with(BESIDE_SLED, alone.time.as_secs_f64())
                        .with(SLED_BESIDE_BARE, alone.time.div_duration_f64(bare.time)))
                }
                Side::Reference => Ok(figures(messages, &one(&setup, Phase::Bare)?)),
            }
        }),
    }
}

fn made(dir: &mut Option<PathBuf>, stage: &mut Stage<'_>) -> Result<PathBuf, BenchError> {
    match dir {
        Some(dir) => Ok(dir.clone()),
        None => Ok(dir.insert(stage.folder(BENCHMARK.id)?).clone()),
    }
}

fn figures(messages: u64, opened: &Opened) -> Figures {
    let spent =
        Spent { seconds: opened.time.as_secs_f64(), client_cpu_s: opened.cpu.as_secs_f64(), ..Spent::default() };
    let more_kib = opened.peak_kib.saturating_sub(opened.before_kib);
    let figures = Figures { peak_kib: Some(opened.peak_kib), ..Figures::of(messages, spent) };
    figures.with(MEMORY, more_kib as f64 * 1024.0 / messages.max(1) as f64)
}
