//! `longshore-chaos gaps`: prints what reconciling and opening a very long journal cost. The opening is measured in a process
//! of its own, so that nothing else is in its memory.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

use chaos_tests::gaps::{Cost, EXCHANGE_BYTES_MAX, LOST, Opened, Part, measure_opening, reconcile};
use journal::Engine;

/// How many messages, under which engine, and where.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Messages to journal. A quarter of them is journaled, too, so that one sees what grows
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(400..=1_000_000))]
    messages: u64,
    /// The engine under the journals
    #[arg(long, default_value_t = Engine::Sled, value_name = "sled|segments")]
    engine: Engine,
    /// Where to put the journals, which are kept; otherwise they go to a temporary folder and away
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Print the figures as JSON
    #[arg(long)]
    json: bool,
    /// Only open the server's journal in `dir`, or a part of it, and print as JSON what that took
    #[arg(long, requires = "dir", value_parser = part, value_name = "engine|rows|journal")]
    open_only: Option<Part>,
}

fn part(text: &str) -> Result<Part, String> {
    let found = Part::ALL.into_iter().find(|part| part.name() == text);
    found.ok_or_else(|| format!("{text} is no part of an opening"))
}

/// One size: what mending it cost, and what opening it took.
#[derive(Debug, serde::Serialize)]
struct Size {
    cost: Cost,
    opened: Vec<Opened>,
}

pub(crate) fn run(args: &Args) -> ExitCode {
    match carry_out(args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            note!("The figures cannot be had: {}", crate::chain(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

fn carry_out(args: &Args) -> Result<bool, Box<dyn std::error::Error>> {
    if let (Some(part), Some(dir)) = (args.open_only, &args.dir) {
        say!("{}", serde_json::to_string(&measure_opening(dir, args.engine, part)?)?);
        return Ok(true);
    }
    let temporary;
    let dir = if let Some(dir) = &args.dir {
        dir.as_path()
    } else {
        temporary = tempfile::tempdir()?;
        temporary.path()
    };
    let began = Instant::now();
    let mut sizes = Vec::new();
    for messages in [args.messages / 4, args.messages] {
        let dir = dir.join(messages.to_string());
        let cost = reconcile(&dir, messages, args.engine, &mut |line| {
            if !args.json {
                say!("  {:5.1} s  {line}", began.elapsed().as_secs_f64());
            }
        })?;
        let opened = Part::ALL.map(|part| open_apart(&dir, args.engine, part));
        sizes.push(Size { cost, opened: opened.into_iter().collect::<Result<_, _>>()? });
    }
    let kept = sizes.iter().all(|size| size.cost.is_kept());
    if args.json {
        say!("{:#}", serde_json::json!({ "engine": args.engine.to_string(), "sizes": sizes, "kept": kept }));
    } else {
        print(args.engine, &sizes);
        say!("{}", if kept { "PASS" } else { "FAIL" });
    }
    Ok(kept)
}

/// Opens the journal, or a part of it, in a fresh process.
fn open_apart(dir: &Path, engine: Engine, part: Part) -> Result<Opened, Box<dyn std::error::Error>> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["gaps", "--engine", &engine.to_string(), "--open-only", part.name(), "--dir"]).arg(dir);
    let output = command.output()?;
    if !output.status.success() {
        return Err(format!("opening failed: {}", String::from_utf8_lossy(&output.stderr).trim()).into());
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn mib(kib: u64) -> f64 {
    kib as f64 / 1_024.0
}

fn print(engine: Engine, sizes: &[Size]) {
    for Size { cost, .. } in sizes {
        say!(
            "{} messages: {} bytes to and fro, fewer than {EXCHANGE_BYTES_MAX} are allowed; {} resent, {LOST} were lost; {} received",
            cost.messages,
            cost.exchange_bytes,
            cost.resent,
            cost.received
        );
    }
    say!("opening, each in a process of its own, {engine}:");
    say!("{:>10}  {:<8}{:>10}{:>8}{:>10}{:>10}", "MESSAGES", "PART", "ROWS", "TIME s", "DISK MiB", "PEAK MiB");
    for Size { cost, opened } in sizes {
        for opened in opened {
            say!(
                "{:>10}  {:<8}{:>10}{:>8.2}{:>10.1}{:>10.1}",
                cost.messages,
                opened.part.name(),
                opened.rows,
                opened.time.as_secs_f64(),
                mib(opened.bytes / 1_024),
                mib(opened.peak_kib)
            );
        }
    }
    if let [small, large] = sizes {
        for (before, after) in small.opened.iter().zip(&large.opened) {
            // Each message has a header and a body.
            let rows = 2 * (large.cost.messages - small.cost.messages);
            let grown = (after.peak_kib.saturating_sub(before.peak_kib)) * 1_024;
            say!("{}: {:.1} bytes more for each row more", after.part.name(), grown as f64 / rows as f64);
        }
    }
}
