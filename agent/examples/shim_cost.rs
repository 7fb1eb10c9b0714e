//! What a shim costs: `cargo run --release -p agent --example shim_cost -- target/release/longshore [N]`. Prints the time from
//! launching a step `true` to the record of its end, beside that of a bare `true`, and the memory of N shims that sit above
//! `sleep`. It judges nothing, and leaves nothing behind.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use agent::attempt::{Attempt, AttemptState, Plan, Settled, ShimCommand, Shims, boot_id};
use messages::Program;
use messages::limits::LOG_BYTES_DEFAULT;

/// Steps one after the other.
const STARTS: usize = 200;

/// Shims at once when nothing is said.
const MANY: usize = 100;

fn main() -> Result<(), Box<dyn Error>> {
    let mut words = std::env::args().skip(1);
    let program = words.next().ok_or("name the longshore binary")?;
    let many = words.next().map_or(Ok(MANY), |word| word.parse())?;
    let shim = ShimCommand::new(fs::canonicalize(program)?, ["agent", "shim"]);
    let folder = tempfile::tempdir()?;
    starts(folder.path(), &shim)?;
    at_once(folder.path(), &shim, many)
}

fn plan(dir: &Path, words: &[&str]) -> Plan {
    Plan {
        program: Program::Exec(words.iter().map(|word| (*word).to_owned()).collect()),
        env: BTreeMap::from([("PATH".to_owned(), "/usr/bin:/bin".to_owned())]),
        dir: dir.to_owned(),
        timeout_ms: None,
        output_bytes_max: LOG_BYTES_DEFAULT,
        run_as: None,
        memory_bytes_max: None,
        group: None,
        hands_on: false,
    }
}

fn starts(dir: &Path, shim: &ShimCommand) -> Result<(), Box<dyn Error>> {
    let boot = boot_id()?;
    let (mut whole, mut stayed, mut prepared, mut bare) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut settled = Settled::folder(dir);
    let shims = Shims::new(shim.clone());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_io().build()?;
    for number in 0..STARTS {
        let begun = Instant::now();
        let attempt = Attempt::prepare(&dir.join(format!("start-{number}")), &plan(dir, &["true"]), &mut settled)?;
        prepared.push(begun.elapsed());
        let begun = Instant::now();
        attempt.launch(shim)?;
        let AttemptState::Ended(_) = attempt.wait_blocking(boot)? else { return Err("a step did not end".into()) };
        whole.push(begun.elapsed());
        let attempt = Attempt::prepare(&dir.join(format!("stay-{number}")), &plan(dir, &["true"]), &mut settled)?;
        let begun = Instant::now();
        let AttemptState::Ended(_) = runtime.block_on(attempt.run(&shims, boot))?? else {
            return Err("a step did not end".into());
        };
        stayed.push(begun.elapsed());
        let begun = Instant::now();
        Command::new("true").status()?;
        bare.push(begun.elapsed());
    }
    println!("{STARTS} steps `true`, one after the other (median, 99th of 100)");
    for (name, times) in [
        ("prepare the attempt", prepared),
        ("executed, to recorded end", whole),
        ("by one that stayed, to recorded end", stayed),
        ("a bare `true`", bare),
    ] {
        let (median, late) = middle(times);
        println!("  {name:<35} {:>7.2} ms {:>7.2} ms", median.as_secs_f64() * 1e3, late.as_secs_f64() * 1e3);
    }
    Ok(())
}

fn middle(mut times: Vec<Duration>) -> (Duration, Duration) {
    times.sort();
    (times[times.len() / 2], times[times.len() * 99 / 100])
}

fn at_once(dir: &Path, shim: &ShimCommand, many: usize) -> Result<(), Box<dyn Error>> {
    let begun = Instant::now();
    let mut attempts = Vec::new();
    let mut settled = Settled::folder(dir);
    for number in 0..many {
        let plan = plan(dir, &["sleep", "1000"]);
        let attempt = Attempt::prepare(&dir.join(format!("many-{number}")), &plan, &mut settled)?;
        attempt.launch(shim)?;
        attempts.push(attempt);
    }
    let boot = boot_id()?;
    let mut shims: Vec<PathBuf> = Vec::new();
    for attempt in &attempts {
        shims.push(loop {
            match attempt.state(boot)? {
                AttemptState::Running { started: Some(started) } if has_step(started.pid) => {
                    break format!("/proc/{}", started.pid).into();
                }
                AttemptState::Running { .. } => std::thread::yield_now(),
                other => return Err(format!("a shim is not running: {other:?}").into()),
            }
        });
    }
    println!("{many} shims at once, each above a `sleep`: all up after {:.0} ms", begun.elapsed().as_secs_f64() * 1e3);
    for (name, file, line) in [
        ("VmRSS", "status", "VmRSS:"),
        ("RssAnon", "status", "RssAnon:"),
        ("PSS", "smaps_rollup", "Pss:"),
        ("private and written", "smaps_rollup", "Private_Dirty:"),
        ("threads", "status", "Threads:"),
    ] {
        let mut found: Vec<u64> = shims.iter().filter_map(|shim| number(&shim.join(file), line)).collect();
        found.sort_unstable();
        println!("  {name:<35} median {:>6}, most {:>6}", found[found.len() / 2], found[found.len() - 1]);
    }
    for attempt in &attempts {
        attempt.cancel()?;
    }
    for attempt in &attempts {
        attempt.wait_blocking(boot)?;
    }
    Ok(())
}

fn has_step(shim: i32) -> bool {
    fs::read_to_string(format!("/proc/{shim}/task/{shim}/children")).is_ok_and(|children| !children.trim().is_empty())
}

fn number(file: &Path, line: &str) -> Option<u64> {
    let text = fs::read_to_string(file).ok()?;
    let rest = text.lines().find_map(|found| found.strip_prefix(line))?;
    rest.split_whitespace().next()?.parse().ok()
}
