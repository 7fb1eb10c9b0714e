//! `longshore-chaos logs`: prints what it costs when many steps write much at the same time. Decides nothing.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use chaos_tests::loud::{self, Options, Report};

use crate::Format;

/// How much, and where.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Steps that write at the same time
    #[arg(long, default_value_t = 10, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1_000))]
    steps: u16,
    /// Bytes that each writes; three times as much is needed on the disk, for all steps
    #[arg(long, default_value_t = 100_000_000, value_name = "BYTES", value_parser = clap::value_parser!(u64).range(1..))]
    bytes: u64,
    /// Where to keep everything, an empty folder; it is left there. Without it a temporary folder, removed at the end
    #[arg(long)]
    dir: Option<PathBuf>,
    /// How to print it
    #[arg(short, long, value_enum, default_value = "table", value_name = "FORMAT")]
    output: Format,
}

pub(crate) fn run(args: &Args) -> ExitCode {
    match carry_out(args) {
        Ok(report) if report.is_right() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            note!("The logs could not be carried: {}", crate::chain(error.as_ref()));
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
    let options = Options { dir: dir.to_owned(), steps: args.steps, bytes: args.bytes };
    let report = loud::run(&options, &mut |line| note!("  {:5.1} s  {line}", began.elapsed().as_secs_f64()))?;
    match args.output {
        Format::Table => print(&report),
        Format::Json => say!("{}", serde_json::to_string_pretty(&report)?),
    }
    Ok(report)
}

fn print(report: &Report) {
    say!("{} steps of {} bytes each, over one agent and RabbitMQ", report.steps, report.bytes);
    say!(
        "every run ended after {:.1} s, every log was at the server after {:.1} s: {:.1} MB/s",
        report.ended_after,
        report.arrived_after,
        report.rate()
    );
    say!("runs that had ended before their log had arrived: {}", report.ended_first);
    say!("{:<8}{:>12}{:>12}{:>12}", "MEMORY", "IDLE MiB", "PEAK MiB", "GREW MiB");
    for peak in &report.memory {
        let (who, idle, most, grew) = (format!("{:?}", peak.who), mib(peak.idle), mib(peak.peak), mib(peak.growth()));
        say!("{:<8}{idle:>12.1}{most:>12.1}{grew:>12.1}", who.to_lowercase());
    }
    for (when, times) in [("idle", &report.small_idle), ("meanwhile", &report.small_loud)] {
        let mut times = times.clone();
        times.sort_by(f64::total_cmp);
        if let (Some(median), Some(most)) = (times.get(times.len() / 2), times.last()) {
            say!("a small job, {when}: median {median:.2} s, most {most:.2} s, of {}", times.len());
        }
    }
    report.wrong.iter().for_each(|wrong| say!("WRONG {wrong}"));
    say!("{} of {} logs have the size and the SHA-256 of what was written, at both ends", report.equal, report.steps);
    say!("{}", if report.is_right() { "PASS" } else { "FAIL" });
}

#[allow(clippy::cast_precision_loss, reason = "a number for people")]
fn mib(bytes: u64) -> f64 {
    bytes as f64 / 1_048_576.0
}
