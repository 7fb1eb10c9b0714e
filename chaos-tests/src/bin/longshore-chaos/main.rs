//! `longshore-chaos`: the harness that breaks things. Never packaged with agents.

#![deny(clippy::print_stdout, clippy::print_stderr)]

#[macro_use]
mod say;

mod bench;
mod commits;
mod cutoff;
mod explore;
mod gaps;
mod logs;
mod opening;
mod work;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use chaos_tests::damage::{self, Options, Phase, Trial};
use chaos_tests::demo::{self, Report};
use chaos_tests::live::{interrupt, wait_for};
use chaos_tests::out;
use chaos_tests::simulate::Simulate;
use clap::{Args, Parser, Subcommand, ValueEnum};
use journal::Engine;
use tokio::signal::unix::{SignalKind, signal};

/// Breaks things around Longshore and counts what is lost.
#[derive(Debug, Parser)]
#[command(name = "longshore-chaos", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// One job over two agents while the broker, an agent and the server die; exit code 1 if anything is lost or runs twice
    Demo {
        /// Where to keep everything; emptied first
        #[arg(long, default_value = ".demo")]
        dir: PathBuf,
        /// Leave it running at the end, until Ctrl-C
        #[arg(long)]
        keep: bool,
    },
    /// Every order in which a small world can go; exit code 1 if a promise is broken, or not everything was visited
    Explore(explore::Args),
    /// What a session makes of every input in every state, as a page
    Table,
    /// Very many journaled messages, three of them missing at the other end: what finding and mending that costs
    Gaps(gaps::Args),
    /// Synced commits a second of both engines, beside a bare log of the same bytes, measured by turns
    Commits(commits::Args),
    /// Longshore and a real reference by turns: ratios with their spread, CPU time for each message, and whether the goals are reached
    Bench(bench::Args),
    /// Opening a very long journal of a killed process, beside the recovery of a bare log of the same bytes
    Opening(opening::OpeningArgs),
    /// What a journal takes on disk after very many messages were settled and dropped
    Space(opening::SpaceArgs),
    /// Real journals, each broken in one way; exit code 1 on a panic, a silent loss or wrong data
    Damage(DamageArgs),
    /// Journals and protocol in a simulated world where everything goes wrong, by seed; exit code 1 if a promise is broken
    Simulate(Simulate),
    /// Steps that write very much at the same time; exit code 1 unless every log is whole at both ends
    Logs(logs::Args),
    /// Worker, monitor, server, broker or shim killed in each phase of a step; exit code 1 if one fares otherwise than the table says
    Work(work::Args),
    /// An agent that cannot reach its broker for a while, and all that it reports afterwards; exit code 1 if not all of it comes, in
    /// order and once
    Cutoff(cutoff::Args),
}

#[derive(Debug, Args)]
struct DamageArgs {
    /// The engine under the journals
    #[arg(long, default_value_t = Engine::Sled, value_name = "sled|segments")]
    engine: Engine,
    /// How many
    #[arg(long, default_value_t = 200, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    trials: u64,
    /// What everything follows from
    #[arg(long, default_value_t = 1, value_name = "N")]
    seed: u64,
    /// Just the trial of this number, with what was seen
    #[arg(long, value_name = "K")]
    only: Option<u64>,
    /// Where the trials keep their journals; those that failed are left there. Without it a temporary folder, removed at the end
    #[arg(long)]
    dir: Option<PathBuf>,
    /// How to print the outcome
    #[arg(short, long, value_enum, default_value = "table", value_name = "FORMAT")]
    output: Format,
    /// What one process of a trial does; the program starts itself with this
    #[arg(long, hide = true)]
    phase: Option<Phase>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people
    Table,
    /// Every trial, for programs
    Json,
}

fn main() -> ExitCode {
    let code = run(Cli::parse().command);
    // Whoever reads a file that is cut off by a full disk is to know.
    if out::is_whole() { code } else { ExitCode::FAILURE }
}

fn run(command: Command) -> ExitCode {
    match command {
        Command::Demo { dir, keep } => run_demo(&dir, keep),
        Command::Explore(args) => explore::run(&args),
        Command::Table => {
            out::print(chaos_tests::explore::table());
            ExitCode::SUCCESS
        }
        Command::Gaps(args) => gaps::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Commits(args) => commits::run(&args),
        Command::Opening(args) => opening::opening(&args),
        Command::Space(args) => opening::space(&args),
        Command::Damage(args) => run_damage(&args).unwrap_or_else(|error| {
            note!("The trials could not be carried out: {}", chain(error.as_ref()));
            ExitCode::FAILURE
        }),
        Command::Simulate(simulate) => simulate.execute(),
        Command::Logs(args) => logs::run(&args),
        Command::Work(args) => work::run(&args),
        Command::Cutoff(args) => cutoff::run(&args),
    }
}

fn run_damage(args: &DamageArgs) -> Result<ExitCode, Box<dyn std::error::Error>> {
    let temporary;
    let dir = match &args.dir {
        Some(dir) => dir.as_path(),
        None => {
            temporary = tempfile::tempdir()?;
            temporary.path()
        }
    };
    if let (Some(phase), Some(number)) = (args.phase, args.only) {
        damage::run_phase(args.engine, &Trial::of(args.seed, number), phase, dir)?;
        return Ok(ExitCode::SUCCESS);
    }
    std::fs::create_dir_all(dir)?;
    let (engine, seed, trials, only) = (args.engine, args.seed, args.trials, args.only);
    let program = std::env::current_exe()?;
    let options = Options { engine, seed, trials, only, program, dir: dir.canonicalize()? };
    let outcomes = damage::run(&options, &mut |outcome| {
        let judgement = &outcome.judgement;
        if only.is_some() && args.output == Format::Table {
            say!("{}: {}", outcome.trial.fault, outcome.injected);
            say!(
                "{} steps, {:?}; {}: {}\n",
                outcome.trial.steps,
                outcome.trial.ending,
                judgement.verdict,
                judgement.detail
            );
        }
    })?;
    match args.output {
        Format::Table => out::print(damage::report(&options, &outcomes)),
        Format::Json => say!("{}", serde_json::to_string_pretty(&outcomes)?),
    }
    let failed = outcomes.iter().any(|outcome| outcome.judgement.verdict.is_failure());
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn run_demo(dir: &Path, keep: bool) -> ExitCode {
    if let Err(error) = end_in_order() {
        note!("signals cannot be waited for: {error}");
        return ExitCode::FAILURE;
    }
    if let Err(error) = clear(dir) {
        note!("{} cannot be emptied: {error}", dir.display());
        return ExitCode::FAILURE;
    }
    match demo::run(dir, &mut |line| say!("  {line}")) {
        Ok((report, fleet)) => {
            let clean = print(&report);
            if keep {
                say!("Left running. In another terminal, from this folder:");
                say!("  target/debug/longshore --dir {} job list", fleet.home().display());
                say!("  target/debug/longshore --dir {} reconcile show a1", fleet.home().display());
                say!("  target/debug/longshore --dir {} journal list --endpoint a1", fleet.home().display());
                say!("Ctrl-C ends it.");
                // Only an interruption ends this wait.
                let _ = wait_for("Ctrl-C", Duration::MAX, || None::<()>);
                say!("Stopping …");
            }
            drop(fleet);
            if clean { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            note!("The demonstration could not be carried out: {}", chain(&error));
            note!("The logs of all processes are in {}.", dir.join("logs").display());
            ExitCode::FAILURE
        }
    }
}

fn print(report: &Report) -> bool {
    say!(
        "  {} of {} steps marked once; the server's books say {} with {} succeeded; {} logs whole",
        report.tally.once,
        report.steps,
        report.job,
        report.booked,
        report.logs_whole
    );
    for (what, names) in [
        ("lost", &report.tally.lost),
        ("ran twice", &report.tally.twice),
        ("nobody asked for", &report.tally.unexpected),
    ] {
        if !names.is_empty() {
            say!("  {what}: {}", names.join(" "));
        }
    }
    say!("lost {} · ran twice {}", report.tally.lost.len(), report.tally.twice.len());
    say!("{}", if report.is_clean() { "PASS" } else { "FAIL" });
    report.is_clean()
}

/// Empties the folder, if it is one of ours.
fn clear(dir: &Path) -> std::io::Result<()> {
    let marker = dir.join("longshore-demo");
    if dir.is_dir() && !marker.is_file() && std::fs::read_dir(dir)?.next().is_some() {
        let why = "it is not empty and no demonstration made it; give another with --dir";
        return Err(std::io::Error::other(why));
    }
    for endpoint in ["server", "agents/a1", "agents/a2"] {
        let journal = dir.join("home").join(endpoint).join(link::JOURNAL_DIR);
        if journal::is_running(&journal).unwrap_or(false) {
            let pid = std::fs::read_to_string(journal.join("lock")).unwrap_or_default();
            let why = format!("a demonstration still runs in it: end process {} first", pid.trim());
            return Err(std::io::Error::other(why));
        }
    }
    if dir.is_dir() {
        std::fs::remove_dir_all(dir)?;
    }
    std::fs::create_dir_all(dir)?;
    std::fs::write(marker, "made by longshore-chaos demo; emptied at its next run\n")
}

/// Lets Ctrl-C, a closed terminal and SIGTERM end the demonstration in order, so that nothing of it is left running.
fn end_in_order() -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut signals = Vec::new();
    {
        let _entered = runtime.enter();
        for kind in [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()] {
            signals.push(signal(kind)?);
        }
    }
    std::thread::spawn(move || {
        runtime.block_on(async {
            let [first, second, third] = signals.as_mut_slice() else { return };
            tokio::select! {
                _ = first.recv() => {}
                _ = second.recv() => {}
                _ = third.recv() => {}
            }
            note!("Interrupted; ending everything that was started …");
            interrupt();
        });
    });
    Ok(())
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}
