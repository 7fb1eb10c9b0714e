//! What one process of a trial does. It says on standard output, line by line, how far it came: its parent expects it to die at
//! any moment.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use journal::{Engine, Journal, Seams, WriteAhead};
use rustix::process::{Signal, getpid, kill_process};

use super::engine::open;
use super::failing::{Failing, seams};
use super::history::{History, drops_rows, steps_of};
use super::judge::{Written, chain, judge, rows_of};
use super::plan::{Ending, Fault, Phase, Trial};
use super::verdict::{Judgement, Verdict};

/// Bytes of the file system that a trial gets for itself: room for the journal several times over.
const MOUNT_BYTES: u64 = 24 * 1024 * 1024;

/// Steps that are tried while a fault lasts.
const UNDER_FAULT: u64 = 60;

/// The name of the file that fills a disk.
const FILLER: &str = "filler";

/// Does one phase of a trial. The journal is in `dir`, in a folder of its own.
pub fn run_phase(engine: Engine, trial: &Trial, phase: Phase, dir: &Path) -> io::Result<()> {
    std::panic::set_hook(Box::new(|panic| {
        let thread = std::thread::current().name().unwrap_or("unnamed").to_owned();
        say("panic", &format!("{thread}: {}", panic.to_string().replace('\n', " ")));
    }));
    let journal = dir.join("journal");
    match phase {
        Phase::Build => build(engine, trial, &journal)?,
        Phase::Judge { acknowledged } => verdict(&judge(engine, &journal, written(trial, acknowledged))),
        Phase::Mounted => mounted(engine, trial, dir)?,
        Phase::Seam => seam(engine, trial, &journal),
        Phase::UntilRefused => until_refused(engine, trial, &journal),
    }
    say("ended", "");
    Ok(())
}

fn say(what: &str, detail: &str) {
    let mut out = io::stdout().lock();
    // A parent that is gone wants to hear nothing more.
    let _ = writeln!(out, "{what} {detail}").and_then(|()| out.flush());
}

fn verdict(judgement: &Judgement) {
    say("verdict", &format!("{} {}", judgement.verdict, judgement.detail));
}

/// One commit more than was acknowledged may have been handed in.
const fn written(trial: &Trial, acknowledged: u64) -> Written {
    Written { seed: trial.seed, acknowledged, submitted: acknowledged + 1 }
}

fn failed(error: &dyn std::error::Error) -> io::Error {
    io::Error::other(chain(error))
}

/// Commits that many steps more.
fn commit(journal: &Journal, history: &mut History, steps: u64) -> io::Result<()> {
    for _ in 0..steps {
        journal.commit(WriteAhead::new(history.step(), ())).wait().map_err(|error| failed(&error))?;
    }
    Ok(())
}

fn build(engine: Engine, trial: &Trial, dir: &Path) -> io::Result<()> {
    let (journal, _) = open(engine, dir, Seams::default()).map_err(|error| failed(&error))?;
    let mut history = History::new(trial.seed);
    commit(&journal, &mut history, trial.steps)?;
    say("acknowledged", &history.steps.to_string());
    if trial.ending == Ending::Killed {
        // On its way; nobody ever hears what became of it.
        let _under_way = journal.commit(WriteAhead::new(history.step(), ()));
        kill_process(getpid(), Signal::KILL)?;
    }
    Ok(())
}

/// Commits until the journal refuses. Gives the steps acknowledged and the refusal.
fn commit_until_refused(journal: &Journal, history: &mut History, steps: u64) -> (u64, Option<String>) {
    let mut acknowledged = history.steps;
    for _ in 0..steps {
        if let Err(error) = journal.commit(WriteAhead::new(history.step(), ())).wait() {
            return (acknowledged, Some(chain(&error)));
        }
        acknowledged = history.steps;
        say("acknowledged", &acknowledged.to_string());
    }
    (acknowledged, None)
}

/// A journal that has refused a commit must refuse every later one.
fn stays_closed(journal: &Journal) -> Option<Judgement> {
    let later = journal.commit(WriteAhead::new(vec![journal::put_app(b"later".to_vec(), Vec::new())], ()));
    later.wait().ok().map(|()| Judgement::new(Verdict::WrongData, "it took a commit after it had failed one"))
}

fn until_refused(engine: Engine, trial: &Trial, dir: &Path) {
    let (journal, _) = match open(engine, dir, Seams::default()) {
        Ok(opened) => opened,
        Err(error) => return say("refused", &chain(&error)),
    };
    let steps = match rows_of(&journal) {
        Ok(rows) => steps_of(&rows),
        Err(error) => return say("refused", &chain(&error)),
    };
    let mut history = History::after(trial.seed, steps);
    let (_, refusal) = commit_until_refused(&journal, &mut history, UNDER_FAULT);
    if let Some(refusal) = refusal {
        say("refused", &refusal);
        if let Some(judgement) = stays_closed(&journal) {
            verdict(&judgement);
        }
    }
}

fn seam(engine: Engine, trial: &Trial, dir: &Path) {
    let failing = Arc::new(Failing::of(trial.fault, &mut trial.random()));
    say("injected", &failing.to_string());
    let mut history = History::new(trial.seed);
    let (mut acknowledged, mut refusals) = (0, Vec::new());
    // Twice, so that opening a journal that holds something is made to fail as well.
    for steps in [trial.steps / 2, trial.steps - trial.steps / 2] {
        match open(engine, dir, seams(&failing)) {
            Ok((journal, _)) => {
                let (reached, refusal) = commit_until_refused(&journal, &mut history, steps);
                acknowledged = reached;
                if refusal.is_some() {
                    if let Some(judgement) = stays_closed(&journal) {
                        return verdict(&judgement);
                    }
                    refusals.extend(refusal);
                    break;
                }
            }
            Err(error) => refusals.push(chain(&error)),
        }
    }
    verdict(&judge(engine, dir, written(trial, acknowledged)).after(&refusals, false));
}

/// Fills the disk until only that many bytes are left.
fn fill(dir: &Path, spare: u64) -> io::Result<()> {
    let mut file = File::create(dir.join(FILLER))?;
    let zeros = [0; 4_096];
    let full = loop {
        match file.write_all(&zeros) {
            Ok(()) => {}
            Err(error) => break error,
        }
    };
    if full.kind() != io::ErrorKind::StorageFull {
        return Err(full);
    }
    let length = file.metadata()?.len();
    file.set_len(length.saturating_sub(spare))
}

fn mount(dir: &Path, options: &str) -> io::Result<bool> {
    let mut command = Command::new("mount");
    command.args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(dir).stdin(Stdio::null());
    Ok(command.output()?.status.success())
}

fn mounted(engine: Engine, trial: &Trial, dir: &Path) -> io::Result<()> {
    // The parent has started this process with a mount table of its own, which goes with it.
    let options = format!("size={MOUNT_BYTES},mode=700");
    if !mount(dir, &options)? {
        say("skipped", "a file system in memory cannot be mounted here; it needs root or user namespaces");
        return Ok(());
    }
    let journal = dir.join("journal");
    let (acknowledged, mut refusals) = match trial.fault {
        Fault::ReadOnlyMount => {
            build(engine, &Trial { ending: Ending::Closed, ..*trial }, &journal)?;
            if !mount(dir, &format!("remount,ro,{options}"))? {
                say("skipped", "a file system cannot be made read-only here");
                return Ok(());
            }
            (trial.steps, Vec::new())
        }
        _ => full_disk(engine, trial, dir, &journal)?,
    };
    // Whoever tries again while the fault lasts is refused, or has everything.
    match open(engine, &journal, Seams::default()) {
        Ok(opened) => drop(opened),
        Err(error) => refusals.push(format!("opening: {}", chain(&error))),
    }
    match trial.fault {
        Fault::ReadOnlyMount if !mount(dir, &format!("remount,rw,{options}"))? => {
            return Err(io::Error::other("the file system cannot be made writable again"));
        }
        Fault::ReadOnlyMount => {}
        _ => fs::remove_file(dir.join(FILLER))?,
    }
    verdict(&judge(engine, &journal, written(trial, acknowledged)).after(&refusals, false));
    Ok(())
}

/// Commits into a disk that fills up. Gives the steps acknowledged, and what was refused.
fn full_disk(engine: Engine, trial: &Trial, dir: &Path, journal: &Path) -> io::Result<(u64, Vec<String>)> {
    let (open, _) = open(engine, journal, Seams::default()).map_err(|error| failed(&error))?;
    let mut random = trial.random();
    let mut history = History::new(trial.seed);
    commit(&open, &mut history, trial.steps)?;
    match trial.fault {
        Fault::FullOnTruncation => {
            // On to the first step that drops rows, which is then the first on the full disk.
            let (mut ahead, mut before) = (History::after(trial.seed, trial.steps), 0);
            while !drops_rows(&ahead.step()) {
                before += 1;
            }
            commit(&open, &mut history, before)?;
            fill(dir, 0)?;
        }
        Fault::FullOnMark => fill(dir, 0)?,
        _ => fill(dir, random.below(64 * 1024))?,
    }
    let steps = if trial.fault == Fault::FullOnMark { 0 } else { UNDER_FAULT };
    let (acknowledged, refusal) = commit_until_refused(&open, &mut history, steps);
    if refusal.is_some()
        && let Some(judgement) = stays_closed(&open)
    {
        verdict(&judgement);
    }
    // Closing writes the high-water file, or says that it cannot.
    drop(open);
    Ok((acknowledged, refusal.into_iter().collect()))
}
