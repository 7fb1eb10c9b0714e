//! `longshore-chaos cutoff`: prints what came of an agent that was cut off from its broker for a while. Decides nothing.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use chaos_tests::cutoff::{self, HowLong, Report};
use chaos_tests::live::Shut;

/// For how long, and where.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How long the agent cannot reach its broker; its steps are spread over that
    #[arg(long, default_value_t = 60, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: u64,
    /// Where to keep everything, an empty folder; it is left there. Without it a temporary folder, removed at the end
    #[arg(long)]
    dir: Option<PathBuf>,
}

pub(crate) fn run(args: &Args) -> ExitCode {
    match carry_out(args) {
        Ok(report) => {
            print(&report);
            if report.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            note!("The agent could not be cut off: {}", crate::chain(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

fn carry_out(args: &Args) -> Result<Report, Box<dyn std::error::Error>> {
    crate::end_in_order()?;
    let temporary;
    let dir = match &args.dir {
        Some(dir) => crate::work::empty(dir)?,
        None => {
            temporary = tempfile::tempdir()?;
            temporary.path()
        }
    };
    let began = Instant::now();
    let how_long = HowLong::AtLeast(Duration::from_secs(args.seconds));
    // As a network without a way: nobody is told.
    let report = cutoff::run(dir, how_long, Shut::Silently, &mut |line| {
        note!("  {:5.1} s  {line}", began.elapsed().as_secs_f64());
    })?;
    Ok(report)
}

fn print(report: &Report) {
    let Report { steps, steps_ended, waited, resent, duplicates, logs_whole, tally, .. } = report;
    say!(
        "cut off for {:.1} s: {steps_ended} of {steps} steps ended meanwhile, {waited} messages waited",
        report.cut_off.as_secs_f64()
    );
    say!(
        "meanwhile the server called its jobs {}; now they are {}",
        report.jobs_meanwhile.join(", "),
        report.jobs.join(", ")
    );
    say!(
        "resent {resent} · received twice {duplicates} · in order {} · logs whole {logs_whole} of {steps}",
        report.in_order
    );
    say!("lost {} · ran twice {}", tally.lost.len(), tally.twice.len());
    say!("{}", if report.is_clean() { "PASS" } else { "FAIL" });
}
