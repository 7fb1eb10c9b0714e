//! `longshore fleet pause | resume | drain | undrain`: giving an agent nothing more, or something again. What it has goes on.

use std::time::{Duration, Instant};

use clap::Args;
use messages::AgentId;
use server::views::{AgentOrderWord, AgentState, AgentView, OrderAgent};

use crate::args::Global;
use crate::client::Client;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::Printer;

/// How often it is looked whether an agent is drained.
const LOOK: Duration = Duration::from_millis(500);

/// Arguments of `longshore fleet pause` and `drain`.
#[derive(Debug, Args)]
pub(crate) struct HoldArgs {
    /// The agent's name
    #[arg(value_name = "NAME")]
    name: AgentId,
    /// Why, for whoever looks later
    #[arg(long, value_name = "TEXT", default_value = "")]
    note: String,
}

/// Arguments of `longshore fleet drain`.
#[derive(Debug, Args)]
pub(crate) struct DrainArgs {
    #[command(flatten)]
    hold: HoldArgs,
    /// Do not wait until its runs have ended
    #[arg(long)]
    no_wait: bool,
    /// Wait at most so many seconds, then end with exit code 124; the drain stays
    #[arg(long, value_name = "SECONDS")]
    deadline: Option<u64>,
}

/// Arguments of `longshore fleet resume` and `undrain`.
#[derive(Debug, Args)]
pub(crate) struct ReleaseArgs {
    /// The agent's name
    #[arg(value_name = "NAME")]
    name: AgentId,
}

fn order(client: &Client, name: &AgentId, order: AgentOrderWord, note: &str) -> Result<AgentView, Failure> {
    let order = OrderAgent { order, note: note.to_owned() };
    let (_, agent) = client.post(&format!("/v1/agents/{name}/orders"), &order)?;
    Ok(agent)
}

/// Gives an agent nothing more.
pub(crate) fn pause(args: &HoldArgs, global: &Global, printer: &Printer) -> Result<Exit, Failure> {
    let agent = order(&Client::new(global)?, &args.name, AgentOrderWord::Pause, &args.note)?;
    super::fleet::print(&agent, printer)?;
    if printer.for_people() {
        let runs = agent.runs_active;
        printer.note(&format!(
            "{} is given nothing more; {runs} runs go on. `longshore fleet resume {0}` ends it",
            agent.name
        ));
    }
    Ok(Exit::Ok)
}

/// Lets an agent work again.
pub(crate) fn release(
    args: &ReleaseArgs,
    word: AgentOrderWord,
    global: &Global,
    printer: &Printer,
) -> Result<Exit, Failure> {
    let agent = order(&Client::new(global)?, &args.name, word, "")?;
    super::fleet::print(&agent, printer)?;
    if printer.for_people()
        && let Some(note) = &agent.paused
    {
        let still = if note.is_empty() { String::new() } else { format!(": {note}") };
        printer.note(&format!("{} is still held back by another order{still}", agent.name));
    }
    Ok(Exit::Ok)
}

/// Gives an agent nothing more, tells it to take nothing, and waits until its runs have ended.
pub(crate) fn drain(args: &DrainArgs, global: &Global, printer: &Printer) -> Result<Exit, Failure> {
    let client = Client::new(global)?;
    let name = &args.hold.name;
    let mut agent = order(&client, name, AgentOrderWord::Drain, &args.hold.note)?;
    if printer.for_people() {
        printer.note(&format!("{name}: no new runs. {} under way.", agent.runs_active));
    }
    let began = Instant::now();
    let mut told = agent.runs_active;
    while agent.runs_active > 0 && !args.no_wait {
        if args.deadline.is_some_and(|seconds| began.elapsed() >= Duration::from_secs(seconds)) {
            super::fleet::print(&agent, printer)?;
            let left = agent.runs_active;
            printer
                .note(&format!("{name} has {left} runs left; the drain stays until `longshore fleet undrain {name}`"));
            return Ok(Exit::WaitTimedOut);
        }
        std::thread::sleep(LOOK);
        agent = client.get(&format!("/v1/agents/{name}"))?;
        if agent.runs_active != told && printer.for_people() && printer.progress() {
            told = agent.runs_active;
            let away = if agent.state == AgentState::Online { "" } else { " (it cannot be reached now)" };
            printer.note(&format!("{name}: {told} runs left{away}"));
        }
    }
    super::fleet::print(&agent, printer)?;
    if printer.for_people() && agent.runs_active == 0 {
        printer.note(&format!("{name} is drained. `longshore fleet undrain {name}` lets it work again"));
    }
    Ok(Exit::Ok)
}
