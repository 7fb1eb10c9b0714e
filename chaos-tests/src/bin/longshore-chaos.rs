//! `longshore-chaos`: the harness that breaks things. Never packaged with agents.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use chaos_tests::demo::{self, Report};
use chaos_tests::live::{interrupt, wait_for};
use chaos_tests::simulate::Simulate;
use clap::{Parser, Subcommand};
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
    /// Journals and protocol in a simulated world where everything goes wrong, by seed; exit code 1 if a promise is broken
    Simulate(Simulate),
}

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Demo { dir, keep } => run_demo(&dir, keep),
        Command::Simulate(simulate) => simulate.execute(),
    }
}

fn run_demo(dir: &Path, keep: bool) -> ExitCode {
    if let Err(error) = end_in_order() {
        eprintln!("signals cannot be waited for: {error}");
        return ExitCode::FAILURE;
    }
    if let Err(error) = clear(dir) {
        eprintln!("{} cannot be emptied: {error}", dir.display());
        return ExitCode::FAILURE;
    }
    match demo::run(dir, &mut |line| println!("  {line}")) {
        Ok((report, fleet)) => {
            let clean = print(&report);
            if keep {
                println!("Left running. In another terminal, from this folder:");
                println!("  target/debug/longshore --dir {} job list", fleet.home().display());
                println!("  target/debug/longshore --dir {} reconcile show a1", fleet.home().display());
                println!("  target/debug/longshore --dir {} journal list --endpoint a1", fleet.home().display());
                println!("Ctrl-C ends it.");
                // Only an interruption ends this wait.
                let _ = wait_for("Ctrl-C", Duration::MAX, || None::<()>);
                println!("Stopping …");
            }
            drop(fleet);
            if clean { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("The demonstration could not be carried out: {}", chain(&error));
            eprintln!("The logs of all processes are in {}.", dir.join("logs").display());
            ExitCode::FAILURE
        }
    }
}

fn print(report: &Report) -> bool {
    println!(
        "  {} of {} steps marked once; the server's books say {} with {} succeeded; {} logs whole",
        report.tally.once, report.steps, report.job, report.booked, report.logs_whole
    );
    for (what, names) in [
        ("lost", &report.tally.lost),
        ("ran twice", &report.tally.twice),
        ("nobody asked for", &report.tally.unexpected),
    ] {
        if !names.is_empty() {
            println!("  {what}: {}", names.join(" "));
        }
    }
    println!("lost {} · ran twice {}", report.tally.lost.len(), report.tally.twice.len());
    println!("{}", if report.is_clean() { "PASS" } else { "FAIL" });
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
            eprintln!("Interrupted; ending everything that was started …");
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
