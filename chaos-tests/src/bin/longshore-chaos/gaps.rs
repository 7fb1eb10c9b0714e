//! `longshore-chaos gaps`: prints what reconciling and opening a very long journal cost. The opening is measured in a process
//! of its own, so that nothing else is in its memory.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

use chaos_tests::gaps::{Cost, EXCHANGE_BYTES_MAX, LOST, Opened, measure_opening, reconcile};
use messages::EndpointId;

/// How many messages, and where.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Messages to journal
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(100..=1_000_000))]
    messages: u64,
    /// Where to put the two journals, which are kept; otherwise they go to a temporary folder and away
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Print the figures as JSON
    #[arg(long)]
    json: bool,
    /// Only open the server's journal in `dir` and print as JSON what that took
    #[arg(long, requires = "dir")]
    open_only: bool,
}

pub(crate) fn run(args: &Args) -> ExitCode {
    match carry_out(args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("The figures cannot be had: {}", crate::chain(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

fn carry_out(args: &Args) -> Result<bool, Box<dyn std::error::Error>> {
    if let (true, Some(dir)) = (args.open_only, &args.dir) {
        println!("{}", serde_json::to_string(&measure_opening(&dir.join("server"), EndpointId::Server)?)?);
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
    let cost = reconcile(dir, args.messages, &mut |line| {
        if !args.json {
            println!("  {:5.1} s  {line}", began.elapsed().as_secs_f64());
        }
    })?;
    let opened = open_apart(dir)?;
    if args.json {
        println!("{:#}", serde_json::json!({ "cost": cost, "opened": opened, "kept": cost.is_kept() }));
    } else {
        print(&cost, &opened);
    }
    Ok(cost.is_kept())
}

/// Opens the journal in a fresh process.
fn open_apart(dir: &Path) -> Result<Opened, Box<dyn std::error::Error>> {
    let mut command = Command::new(std::env::current_exe()?);
    let output = command.args(["gaps", "--open-only", "--dir"]).arg(dir).output()?;
    if !output.status.success() {
        return Err(format!("opening failed: {}", String::from_utf8_lossy(&output.stderr).trim()).into());
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn print(cost: &Cost, opened: &Opened) {
    println!("exchange  {} bytes, fewer than {EXCHANGE_BYTES_MAX} are allowed", cost.exchange_bytes);
    println!("resent    {} of {} messages, {LOST} were lost", cost.resent, cost.messages);
    println!("received  {}", cost.received);
    println!("journal   {} rows, {:.1} MiB on disk", opened.rows, opened.bytes as f64 / 1_048_576.0);
    println!(
        "opening   {:.2} s, {:.1} MiB of memory at most, {:.1} MiB of them before it",
        opened.time.as_secs_f64(),
        opened.peak_kib as f64 / 1_024.0,
        opened.before_kib as f64 / 1_024.0
    );
    println!("{}", if cost.is_kept() { "PASS" } else { "FAIL" });
}
