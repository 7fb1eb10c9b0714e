//! `longshore-chaos commits`: prints how many synced commits a second each engine takes, and its ratio to a bare log in the same
//! round. It says what it measured and judges nothing.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use chaos_tests::bench::journal_commits::{COMMIT_BYTES, Rate, Subject, measure};

fn tasks(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(tasks @ 1..=10_000) => Ok(tasks),
        Ok(_) | Err(_) => Err("1 to 10000 tasks can commit at the same time".to_owned()),
    }
}

/// How long, how often, and where.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Tasks that commit at the same time, one number for each table
    #[arg(long, value_delimiter = ',', default_values_t = [1, 16, 256], value_parser = tasks)]
    tasks: Vec<usize>,
    /// Rounds, in each of which everybody has a turn
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=1_000))]
    rounds: u64,
    /// Milliseconds of a turn
    #[arg(long, default_value_t = 1_000, value_name = "MS", value_parser = clap::value_parser!(u64).range(1..))]
    turn: u64,
    /// Where to put logs and journals, in a folder of their own that goes away; the disk is what is measured
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Print every turn as JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> ExitCode {
    match carry_out(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            note!("The commits cannot be measured: {}", crate::chain(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

fn carry_out(args: &Args) -> Result<(), Box<dyn std::error::Error>> {
    let dir = match &args.dir {
        Some(dir) => tempfile::tempdir_in(dir)?,
        None => tempfile::tempdir()?,
    };
    let rounds = usize::try_from(args.rounds)?;
    let mut rates = Vec::new();
    measure(dir.path(), &args.tasks, rounds, Duration::from_millis(args.turn), &mut |rate| rates.push(rate))?;
    if args.json {
        say!("{}", serde_json::to_string_pretty(&rates)?);
        return Ok(());
    }
    say!("synced commits of {COMMIT_BYTES} bytes a second, median of {rounds} turns of {} ms each", args.turn);
    say!(
        "{:<22}{:>7}{:>12}{:>8}{:>18}{:>12}{:>14}",
        "WHO",
        "TASKS",
        "COMMITS/S",
        "RATIO",
        "LEAST TO MOST",
        "CPU µs EACH",
        "WRITTEN/BYTE"
    );
    for tasks in &args.tasks {
        Subject::ALL.into_iter().for_each(|subject| print(&rates, subject, *tasks));
    }
    Ok(())
}

fn print(rates: &[Rate], subject: Subject, tasks: usize) {
    let of = |subject, figure: fn(&Rate) -> f64| {
        let its = rates.iter().filter(move |rate| rate.tasks == tasks && rate.subject == subject);
        its.map(figure).collect::<Vec<_>>()
    };
    let rate = |rate: &Rate| rate.per_second;
    let own = of(subject, rate);
    let ratios: Vec<f64> = own.iter().zip(of(Subject::ALL[0], rate)).map(|(own, bare)| own / bare).collect();
    let (per_second, [least, ratio, most]) = (spread(own)[1], spread(ratios));
    let between = format!("{least:.2} to {most:.2}");
    let cpu = spread(of(subject, |rate| rate.cpu_per_commit().as_secs_f64() * 1e6))[1];
    let written = spread(of(subject, |rate| rate.written as f64 / (rate.commits as f64 * COMMIT_BYTES as f64)))[1];
    say!("{:<22}{tasks:>7}{per_second:>12.0}{ratio:>8.2}{between:>18}{cpu:>12.2}{written:>14.2}", subject.name());
}

/// The least, the median and the most.
fn spread(mut values: Vec<f64>) -> [f64; 3] {
    values.sort_by(f64::total_cmp);
    let at = |place: usize| values.get(place).copied().unwrap_or(f64::NAN);
    [at(0), at(values.len() / 2), at(values.len().saturating_sub(1))]
}
