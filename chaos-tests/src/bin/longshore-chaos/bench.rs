//! `longshore-chaos bench`: runs benchmarks and prints what came of them. It says what it measured; a goal that is not reached is no
//! failure of the program.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use broker_config::QueueType;
use chaos_tests::bench::{self, ALL, Benchmark, Options, Outcome, PAGE, Stage};
use chaos_tests::live::longshore;

use crate::Format;

/// Asks for every benchmark.
const EVERY: &str = "all";

/// Where `all` writes its tables, from the top of the source.
const DOCS: &str = "docs";

/// What to measure, how often, and where.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Benchmarks by id, as R1, which take a minute or two each; or `all`, which takes a quarter of an hour and, begun at the top of the
    /// source, writes docs/performance.md. Without any they are listed. The exit code does not depend on goals
    #[arg(value_name = "ID")]
    ids: Vec<String>,
    /// Pairs of runs of each case. Cases that take long have fewer
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=1_000))]
    pairs: u64,
    /// The type of every queue, on both sides
    #[arg(long, default_value_t = QueueType::Quorum, value_name = "quorum|classic")]
    queue_type: QueueType,
    /// How much of the usual amount to do in a run. Less only shows that everything works: nothing is judged then, and no page written
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=1_000))]
    percent: u64,
    /// Where to put journals and the broker, in a folder of their own that goes away; without it where temporary files are. The disk is a
    /// part of what is measured: in memory syncs cost nothing
    #[arg(long)]
    dir: Option<PathBuf>,
    /// How to print the outcome; JSON has every run
    #[arg(short, long, value_enum, default_value = "table", value_name = "FORMAT")]
    output: Format,
    /// As `--output json`
    #[arg(long)]
    json: bool,
    /// Write the tables into `performance.md` in this folder. `all` does so in `docs` without being asked, if that is there
    #[arg(long, value_name = "FOLDER")]
    docs: Option<PathBuf>,
    /// Measure although this is a debug build; the figures say nothing about Longshore, and no page is written
    #[arg(long)]
    debug_build: bool,
    /// Do one side of a benchmark, as told on standard input; the program starts itself with this
    #[arg(long, hide = true, value_name = "ID")]
    part: Option<String>,
}

/// The exit code for what cannot be asked for, as that of the argument parser.
const USAGE: u8 = 2;

pub(crate) fn run(args: &Args) -> ExitCode {
    let asked = match Asked::of(args) {
        Ok(asked) => asked,
        Err(reason) => {
            note!("{reason}; nothing was measured");
            return USAGE.into();
        }
    };
    match carry_out(args, asked) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            note!("The benchmarks could not be carried out: {}", crate::chain(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

/// What is to be done.
enum Asked {
    Part(&'static Benchmark),
    List,
    /// These; and the tables go into a page in that folder.
    Measure(Vec<&'static Benchmark>, Option<PathBuf>),
}

impl Asked {
    fn of(args: &Args) -> Result<Self, String> {
        if let Some(id) = &args.part {
            return Ok(Self::Part(benchmark(id)?));
        }
        if args.ids.is_empty() {
            return Ok(Self::List);
        }
        let every = args.ids.iter().any(|id| id == EVERY);
        let chosen = if every {
            ALL.iter().collect()
        } else {
            args.ids.iter().map(|id| benchmark(id)).collect::<Result<_, _>>()?
        };
        if DEBUG && !args.debug_build {
            let ids = args.ids.join(" ");
            return Err(format!(
                "this is a debug build, whose figures say nothing about Longshore; use `cargo build --release --workspace && \
                 target/release/longshore-chaos bench {ids}`"
            ));
        }
        Ok(Self::Measure(chosen, page(args, every)?))
    }
}

/// Whether this is a debug build.
const DEBUG: bool = cfg!(debug_assertions);

fn list(json: bool) {
    if json {
        let all = ALL.iter().map(|benchmark| serde_json::json!({ "id": benchmark.id, "what": benchmark.what }));
        say!("{:#}", serde_json::Value::from_iter(all));
        return;
    }
    for benchmark in ALL {
        say!("{:<5}{}", benchmark.id, benchmark.what);
    }
    say!(
        "\n`longshore-chaos bench {}` measures one, in a minute or two; several may be named. `bench {EVERY}` takes a quarter of",
        ALL[0].id
    );
    say!("an hour, and writes docs/performance.md if it is begun at the top of the source.");
}

fn benchmark(id: &str) -> Result<&'static Benchmark, String> {
    let known = || ALL.iter().map(|benchmark| benchmark.id).collect::<Vec<_>>().join(", ");
    Benchmark::of(id).ok_or_else(|| format!("there is no benchmark {id}; there are {}, and {EVERY}", known()))
}

fn carry_out(args: &Args, asked: Asked) -> Result<(), Box<dyn std::error::Error>> {
    let json = args.json || matches!(args.output, Format::Json);
    let (chosen, docs) = match asked {
        Asked::Part(benchmark) => return Ok(bench::serve(benchmark)?),
        Asked::List => {
            list(json);
            return Ok(());
        }
        Asked::Measure(chosen, docs) => (chosen, docs),
    };
    // Looked for before anything is started that would have to be waited for.
    longshore()?;
    if let Some(docs) = &docs {
        note!("The tables will be written into {}.", docs.join(PAGE).display());
    }
    crate::end_in_order()?;
    let dir = match &args.dir {
        Some(dir) => {
            std::fs::create_dir_all(dir)?;
            tempfile::tempdir_in(dir)?
        }
        None => tempfile::tempdir()?,
    };
    let options = Options {
        pairs: usize::try_from(args.pairs)?,
        queue_type: args.queue_type,
        dir: dir.path().canonicalize()?,
        program: std::env::current_exe()?,
        percent: args.percent,
    };
    let outcomes = measure(&options, &chosen)?;
    if json {
        let all = serde_json::json!({ "machine": bench::machine(), "debug_build": DEBUG, "benchmarks": outcomes });
        say!("{all:#}");
    } else {
        print(&outcomes);
    }
    if let Some(docs) = docs {
        bench::write(&docs, &outcomes)?;
        note!("{} is written", docs.join(PAGE).display());
    }
    Ok(())
}

/// Where to write the page, if anywhere.
fn page(args: &Args, every: bool) -> Result<Option<PathBuf>, String> {
    let usual = Path::new(DOCS);
    let docs = match &args.docs {
        Some(docs) if docs.join(PAGE).is_file() => Some(docs.clone()),
        Some(docs) => return Err(format!("there is no {}", docs.join(PAGE).display())),
        None => Some(usual.to_owned()).filter(|docs| every && docs.join(PAGE).is_file()),
    };
    if DEBUG || args.percent != 100 {
        if args.docs.is_some() {
            return Err("a page is written from whole runs of a release build only".to_owned());
        }
        return Ok(None);
    }
    Ok(docs)
}

fn measure(options: &Options, chosen: &[&Benchmark]) -> Result<Vec<Outcome>, Box<dyn std::error::Error>> {
    let began = Instant::now();
    let mut say = |line: &str| note!("  {:5.1} s  {line}", began.elapsed().as_secs_f64());
    let mut stage = Stage::new(options, &mut say);
    let mut outcomes = Vec::new();
    for benchmark in chosen {
        outcomes.push(bench::run(benchmark, &mut stage)?);
    }
    Ok(outcomes)
}

fn print(outcomes: &[Outcome]) {
    say!("{}", bench::machine());
    if DEBUG {
        say!("THIS IS A DEBUG BUILD: the figures say nothing about Longshore.");
    }
    for outcome in outcomes {
        say!("\n{}", bench::text(outcome));
    }
    if outcomes.iter().any(|outcome| outcome.percent < 100) {
        say!("less than the usual amount was done, so nothing is judged");
        return;
    }
    let reached = outcomes.iter().filter(|outcome| outcome.is_reached()).count();
    say!("{reached} of {} benchmarks reached all their goals", outcomes.len());
}
