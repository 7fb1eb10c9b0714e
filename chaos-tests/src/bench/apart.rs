//! One side in a process of its own, and what the two processes say to each other: the order as one line, then questions and answers,
//! then the figures. The part of a side never starts or kills a broker itself: it asks.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{BenchError, Benchmark, BrokerAt, Figures, Stage};
use crate::live::wait_for;

/// How long one run of one side may take. Only reached when something is broken, or the machine is.
const RUN_LIMIT: Duration = Duration::from_secs(600);

/// Bytes of what a process said that are shown when it failed.
const SAID_MAX: usize = 2_000;

/// What a part asks of the process that started it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ask {
    /// Kill the broker as a crash does. Its data stays.
    KillBroker,
    /// Kill the broker and wipe its data.
    WipeBroker,
    /// Start the broker again.
    StartBroker,
}

/// What a part says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Said {
    Ask(Ask),
    Figures(Box<Figures>),
}

/// A process that is ended with this value.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Stage<'_> {
    /// Runs [`Benchmark::part`] in a fresh process with that order, and carries out what it asks for.
    ///
    /// # Errors
    /// [`BenchError::Apart`] with what the process said, and what the broker does when it is asked for something.
    pub fn apart(&mut self, id: &str, order: &impl Serialize) -> Result<Figures, BenchError> {
        self.apart_with(id, order, &[])
    }

    /// The same with these variables in its environment.
    ///
    /// # Errors
    /// As [`Stage::apart`].
    pub fn apart_with(
        &mut self,
        id: &str,
        order: &impl Serialize,
        variables: &[(&str, &str)],
    ) -> Result<Figures, BenchError> {
        let log = self.options().dir.join(format!("{id}.log"));
        let mut command = Command::new(&self.options().program);
        command
            .envs(variables.iter().copied())
            .args(["bench", "--part", id])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(&log)?);
        let mut child = Ended(command.spawn()?);
        let (Some(mut orders), Some(answers)) = (child.0.stdin.take(), child.0.stdout.take()) else {
            return Err(io::Error::other("a process was started without the pipes that were asked for").into());
        };
        writeln!(orders, "{}", serde_json::to_string(order)?)?;
        let (lines, said) = mpsc::channel();
        let reader = std::thread::spawn(move || {
            for line in BufReader::new(answers).lines().map_while(Result::ok) {
                if lines.send(Some(line)).is_err() {
                    return;
                }
            }
            // It has closed its output.
            let _ = lines.send(None);
        });
        let outcome = loop {
            let waited = wait_for(&format!("a run of {id}"), RUN_LIMIT, || said.try_recv().ok());
            let Some(line) = waited.map_err(crate::live::FleetError::from)? else {
                let status = child.0.wait()?;
                let said = std::fs::read_to_string(&log)?;
                let from = said.char_indices().map(|(at, _)| at).find(|at| said.len() - at <= SAID_MAX);
                let said = said[from.unwrap_or(said.len())..].trim().to_owned();
                break Err(BenchError::Apart { id: id.to_owned(), status, said });
            };
            match serde_json::from_str(&line)? {
                Said::Figures(figures) => break Ok(*figures),
                Said::Ask(ask) => writeln!(orders, "{}", serde_json::to_string(&self.answer(ask)?)?)?,
            }
        };
        drop(child);
        // It has nothing more to read: the other end of the pipe is closed.
        let _ = reader.join();
        outcome
    }

    fn answer(&mut self, ask: Ask) -> Result<Option<BrokerAt>, BenchError> {
        match ask {
            Ask::KillBroker => self.node()?.kill()?,
            Ask::WipeBroker => {
                self.node()?.kill()?;
                self.node()?.wipe()?;
            }
            Ask::StartBroker => return Ok(Some(self.broker()?)),
        }
        Ok(None)
    }
}

/// Does a benchmark's part: what [`Stage::apart`] started this process for.
///
/// # Errors
/// [`BenchError`]
pub fn serve(benchmark: &Benchmark) -> Result<(), BenchError> {
    let mut order = String::new();
    io::stdin().lock().read_line(&mut order)?;
    let part = benchmark.part.ok_or(BenchError::NoPart { id: benchmark.id })?;
    let figures = part(&order)?;
    println!("{}", serde_json::to_string(&Said::Figures(Box::new(figures)))?);
    Ok(())
}

/// Asks the process that started this one, and waits until it is done. The answer is the broker, where it runs then.
///
/// # Errors
/// [`BenchError::Io`] and [`BenchError::Json`] when that process is gone.
pub fn ask(ask: Ask) -> Result<Option<BrokerAt>, BenchError> {
    println!("{}", serde_json::to_string(&Said::Ask(ask))?);
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    Ok(serde_json::from_str(&answer)?)
}
