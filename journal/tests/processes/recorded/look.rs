//! Looks at what a loss of power left: opens it, compares it with the history, goes on with it, and opens it once more. It says
//! what it found; whether that is allowed is not known here.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::process::ExitCode;

use journal::{Engine, Journal, WriteAhead, put_app, quarantine, verify};

use super::life::{Script, open, place};
use crate::history::{Rows, rows_of, write};
use crate::kill::count_of;

/// What the rows of each number of steps come to, so that they are made up once.
struct Known(Vec<u64>);

impl Known {
    fn new(seed: u64, most: u64) -> Self {
        let mut script = Script::after(seed, 0);
        let mut known = vec![digest(&script.history.rows)];
        for _ in 0..most {
            script.step();
            known.push(digest(&script.history.rows));
        }
        Self(known)
    }
}

fn digest(rows: &Rows) -> u64 {
    let mut hasher = DefaultHasher::new();
    rows.hash(&mut hasher);
    hasher.finish()
}

/// Why a journal is not what it should be.
enum Not {
    /// It does not open.
    Refused(String),
    /// It opens, and should not have, or not so.
    Wrong(String),
}

/// The child: looks at the images one after the other, and says what each holds.
pub(crate) fn look_at_all(engine: Engine, dir: &Path, seed: u64, most: u64) -> ExitCode {
    let known = Known::new(seed, most);
    for number in 0.. {
        let image = dir.join(number.to_string());
        if !image.is_dir() {
            break;
        }
        println!("{}", look(engine, &place(&image), &known));
    }
    ExitCode::SUCCESS
}

/// One line: what was found, whether it was refused before and put aside, and what lies aside.
fn look(engine: Engine, dir: &Path, known: &Known) -> String {
    let mut line = match found(engine, dir, known) {
        Ok((epoch, steps)) => format!("found {epoch} {steps}"),
        Err(Not::Wrong(what)) => format!("wrong: {what}"),
        Err(Not::Refused(why)) => {
            let anew = quarantine(dir).map_err(|error| error.to_string()).map(|_| found(engine, dir, known));
            match anew {
                Ok(Ok((epoch, steps))) => format!("refused {epoch} {steps} ({why})"),
                Ok(Err(Not::Refused(again) | Not::Wrong(again))) => {
                    format!("wrong: {why}; put aside, and then {again}")
                }
                Err(error) => format!("wrong: {why}; and it cannot be put aside: {error}"),
            }
        }
    };
    for number in 1.. {
        let aside = dir.join(format!("damaged-{number}"));
        if !aside.is_dir() {
            break;
        }
        if aside.join("store").is_dir() {
            match found(engine, &aside, known) {
                Ok((_, steps)) => line.push_str(&format!(" aside {steps}")),
                Err(Not::Refused(why) | Not::Wrong(why)) => line.push_str(&format!(" aside-bad {why}")),
            }
        }
    }
    line.replace('\n', " ")
}

/// Which opening it was, and how many whole steps there are.
fn found(engine: Engine, dir: &Path, known: &Known) -> Result<(u64, u64), Not> {
    let journal = opened(engine, dir).map_err(Not::Refused)?;
    let mut rows = rows_of(journal.store()).map_err(|error| Not::Wrong(error.to_string()))?;
    let (epoch, steps) = (journal.meta().epoch.value(), count_of(&rows));
    let expected = usize::try_from(steps).ok().and_then(|steps| known.0.get(steps));
    if expected != Some(&digest(&rows)) {
        return Err(Not::Wrong(format!("not the rows of {steps} steps")));
    }
    check(&journal)?;
    let row = put_app(b"afterwards".to_vec(), vec![7; 3_000]);
    write(&mut rows, &row);
    let committed = journal.commit(WriteAhead::new(vec![row], ())).wait();
    committed.map_err(|error| Not::Wrong(format!("it does not go on: {error:?}")))?;
    drop(journal);
    let journal = opened(engine, dir).map_err(|why| Not::Wrong(format!("it does not open again: {why}")))?;
    if rows_of(journal.store()).ok().as_ref() != Some(&rows) {
        return Err(Not::Wrong("it holds something else when it is opened again".to_owned()));
    }
    check(&journal)?;
    Ok((epoch, steps))
}

fn opened(engine: Engine, dir: &Path) -> Result<Journal, String> {
    open(engine, dir).map(|(journal, _)| journal).map_err(|error| format!("{error}: {error:?}"))
}

fn check(journal: &Journal) -> Result<(), Not> {
    match verify(journal.store()) {
        Ok(report) if report.problems.is_empty() => Ok(()),
        Ok(report) => Err(Not::Wrong(format!("{:?}", report.problems))),
        Err(error) => Err(Not::Wrong(error.to_string())),
    }
}
