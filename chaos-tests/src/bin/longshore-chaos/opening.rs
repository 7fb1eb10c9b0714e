//! `longshore-chaos opening`: what opening a journal of a killed process costs beside the recovery of a bare log of the same bytes.
//! `longshore-chaos space`: what a journal takes on disk after nearly everything in it was settled. They print figures and judge none.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use chaos_tests::bench::disk::{self, Space};
use chaos_tests::bench::open::{self, Opened, Pair, Phase, run_phase};
use journal::Engine;

/// Sizes of the curve.
const CURVE: [u64; 4] = [10_000, 100_000, 300_000, 1_000_000];

fn phase(text: &str) -> Result<Phase, String> {
    let found = Phase::ALL.into_iter().find(|phase| phase.name() == text);
    found.ok_or_else(|| format!("{text} is no phase"))
}

/// How much, how often, and where.
#[derive(Debug, clap::Args)]
pub(crate) struct OpeningArgs {
    /// Messages that nobody has settled
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..=4_000_000))]
    messages: u64,
    /// The engine under the journal
    #[arg(long, default_value_t = Engine::Segments, value_name = "sled|segments")]
    engine: Engine,
    /// How often each is opened
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=1_000))]
    rounds: u64,
    /// Read from the disk, and not from memory
    #[arg(long)]
    cold: bool,
    /// One pair each for 10,000, 100,000, 300,000 and a million messages instead
    #[arg(long)]
    curve: bool,
    /// Where to put journal and log; otherwise they go to a temporary folder and away
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Print every pair as JSON
    #[arg(long)]
    json: bool,
    /// What one process does; the program starts itself with this
    #[arg(long, hide = true, requires = "dir", value_parser = phase)]
    phase: Option<Phase>,
}

/// How much, and where.
#[derive(Debug, clap::Args)]
pub(crate) struct SpaceArgs {
    /// Messages that are sent, settled and dropped
    #[arg(long, default_value_t = 1_000_000)]
    messages: u64,
    /// Messages that are sent besides and stay
    #[arg(long, default_value_t = 10_000)]
    kept: u64,
    /// The engine under the journal
    #[arg(long, default_value_t = Engine::Segments, value_name = "sled|segments")]
    engine: Engine,
    /// Seconds that the journal is left alone afterwards
    #[arg(long, default_value_t = 60)]
    rest: u64,
    /// Where to put the journal, in a folder of its own that goes away
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Print the figures as JSON
    #[arg(long)]
    json: bool,
}

type Failure = Box<dyn std::error::Error>;

fn exit(done: Result<(), Failure>) -> ExitCode {
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            note!("The figures cannot be had: {}", crate::chain(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

pub(crate) fn opening(args: &OpeningArgs) -> ExitCode {
    exit(carry_out(args))
}

fn carry_out(args: &OpeningArgs) -> Result<(), Failure> {
    let temporary;
    let dir = if let Some(dir) = &args.dir {
        dir.clone()
    } else {
        temporary = tempfile::tempdir()?;
        temporary.path().to_owned()
    };
    if let Some(phase) = args.phase {
        return Ok(run_phase(&dir, args.engine, args.messages, phase)?);
    }
    let (engine, messages, cold) = (args.engine, args.messages, args.cold);
    let setup = open::Setup { program: std::env::current_exe()?, dir, engine, messages, cold };
    let mut pairs = Vec::new();
    if !args.json {
        say!(
            "{:>9}  {:<8}  {:>8}  {:>8}  {:>5}  {:>10}  {:>11}  {:>10}  {:>14}  {:>8}",
            "MESSAGES",
            "ENGINE",
            "OPEN, MS",
            "BARE, MS",
            "RATIO",
            "CPU, MS",
            "BARE CPU",
            "MEMORY MIB",
            "BYTES PER ROW",
            "DISK MIB"
        );
    }
    let mut say = |pair: Pair| {
        if !args.json {
            print(engine, &pair);
        }
        pairs.push(pair);
    };
    if args.curve {
        open::curve(&setup, &CURVE, &mut say)?;
    } else {
        for _ in 0..args.rounds {
            say(open::pair(&setup)?);
        }
    }
    if args.json {
        say!("{}", serde_json::to_string_pretty(&pairs)?);
    }
    Ok(())
}

fn print(engine: Engine, Pair { messages, ours, reference }: &Pair) {
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    let grown = |opened: &Opened| opened.peak_kib.saturating_sub(opened.before_kib);
    say!(
        "{messages:>9}  {engine:<8}  {:>8.1}  {:>8.1}  {:>5.2}  {:>10.1}  {:>11.1}  {:>10.1}  {:>14.1}  {:>8.1}",
        ms(ours.time),
        ms(reference.time),
        ours.time.div_duration_f64(reference.time),
        ms(ours.cpu),
        ms(reference.cpu),
        grown(ours) as f64 / 1_024.0,
        grown(ours) as f64 * 1_024.0 / ours.rows as f64,
        ours.bytes as f64 / f64::from(1 << 20)
    );
}

pub(crate) fn space(args: &SpaceArgs) -> ExitCode {
    exit(measure(args))
}

fn measure(args: &SpaceArgs) -> Result<(), Failure> {
    let dir = args.dir.clone().unwrap_or_else(std::env::temp_dir);
    let (engine, messages, kept) = (args.engine, args.messages, args.kept);
    let space = disk::measure(&disk::Setup { dir, engine, messages, kept, rest: Duration::from_secs(args.rest) })?;
    if args.json {
        say!("{}", serde_json::to_string_pretty(&space)?);
        return Ok(());
    }
    let Space { live_bytes, journaled_bytes, written_bytes, most_bytes, taken_bytes } = space;
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    say!("{engine}: {messages} messages sent, settled and dropped, {kept} more are there");
    say!(
        "journaled {:.1} MiB, written {:.2} times that",
        mib(journaled_bytes),
        written_bytes as f64 / journaled_bytes as f64
    );
    say!("alive {:.1} MiB; on disk at most {:.1} MiB", mib(live_bytes), mib(most_bytes));
    let mut before = None;
    for (second, bytes) in
        taken_bytes.into_iter().enumerate().filter(|(_, bytes)| before.replace(*bytes) != Some(*bytes))
    {
        say!("after {second:>3} s {:>8.1} MiB, {:.2} of what is alive", mib(bytes), bytes as f64 / live_bytes as f64);
    }
    Ok(())
}
