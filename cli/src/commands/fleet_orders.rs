//! `longshore fleet pause | resume | drain | undrain`: giving an agent nothing more, or something again. What it has goes on.

use std::time::{Duration, Instant};

use clap::Args;
use messages::AgentId;
use server::views::{AgentOrderWord, AgentState, AgentView, OrderAgent, counted};

use crate::args::{Global, wait};
use crate::client::Client;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::{Printer, clean};

/// How often it is looked whether an agent is drained.
const LOOK: Duration = Duration::from_millis(500);

/// Arguments of `longshore fleet pause` and `drain`.
#[derive(Debug, Args)]
pub(crate) struct HoldArgs {
    /// The agent's name
    #[arg(value_name = "NAME")]
    name: AgentId,
    /// Why, for whoever looks later [default: as it is]
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
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
    /// Wait at most so long, for example 10m, then end with exit code 124; the drain stays
    #[arg(long, value_name = "TIME", value_parser = wait)]
    deadline: Option<Duration>,
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
        let name = &agent.name;
        printer.note(&format!("{name} is given nothing more{}", under_way(&agent)));
        printer.note(&format!("`longshore fleet resume {name}` lets it work again"));
    }
    Ok(Exit::Ok)
}

/// What it still does, behind other words.
fn under_way(agent: &AgentView) -> String {
    match agent.runs_active {
        0 => String::new(),
        runs => format!("; {} under way", counted(runs, "run")),
    }
}

/// Lets an agent work again.
pub(crate) fn release(
    args: &ReleaseArgs,
    word: AgentOrderWord,
    global: &Global,
    printer: &Printer,
) -> Result<Exit, Failure> {
    let client = Client::new(global)?;
    let before: AgentView = client.get(&format!("/v1/agents/{}", args.name))?;
    let agent = order(&client, &args.name, word, "")?;
    super::fleet::print(&agent, printer)?;
    if printer.for_people() {
        printer.note(&released(&before, &agent, word));
    }
    Ok(Exit::Ok)
}

/// What became of a pause or a drain that was to end.
fn released(before: &AgentView, agent: &AgentView, word: AgentOrderWord) -> String {
    let name = &agent.name;
    let undrain = word == AgentOrderWord::Undrain;
    if let Some(note) = &agent.paused {
        // One of the two was ended, so it is the other.
        let (still, end) = if undrain { ("paused", "resume") } else { ("drained", "undrain") };
        let why = if note.is_empty() { String::new() } else { format!(": {}", clean(note)) };
        return format!("{name} is still {still}{why}\n`longshore fleet {end} {name}` lets it work again");
    }
    if before.paused.is_none() && !(undrain && before.draining) {
        let word = if undrain { "drained" } else { "paused" };
        return format!("{name} was not {word}; nothing was changed");
    }
    match agent.state {
        // It is told by a message, and has not said yet that it heard.
        AgentState::Online if agent.draining => format!("{name} was told to take work again"),
        AgentState::Online => format!("{name} is given work again"),
        AgentState::Unreachable | AgentState::NeverSeen => {
            format!("{name} is given work again as soon as it can be reached")
        }
        AgentState::Frozen => format!("{name} is given work again when its streams go on"),
    }
}

/// Gives an agent nothing more, tells it to take nothing, and waits until its runs have ended.
pub(crate) fn drain(args: &DrainArgs, global: &Global, printer: &Printer) -> Result<Exit, Failure> {
    let client = Client::new(global)?;
    let name = &args.hold.name;
    let undrain = format!("`longshore fleet undrain {name}` lets it work again");
    let mut agent = order(&client, name, AgentOrderWord::Drain, &args.hold.note)?;
    if printer.for_people() && agent.runs_active > 0 {
        printer.note(&format!("{name} is given nothing more{}", under_way(&agent)));
    }
    let began = Instant::now();
    let mut told = agent.runs_active;
    while agent.runs_active > 0 && !args.no_wait {
        if args.deadline.is_some_and(|limit| began.elapsed() >= limit) {
            super::fleet::print(&agent, printer)?;
            let left = counted(agent.runs_active, "run");
            printer.note(&format!("{left} still under way on {name}; the drain stays\n{undrain}"));
            return Ok(Exit::WaitTimedOut);
        }
        std::thread::sleep(LOOK);
        agent = client.get(&format!("/v1/agents/{name}"))?;
        if agent.runs_active != told && printer.for_people() && printer.progress() {
            told = agent.runs_active;
            let away = if agent.state == AgentState::Online { "" } else { " (it cannot be reached now)" };
            printer.note(&format!("{name}: {} left{away}", counted(told, "run")));
        }
    }
    super::fleet::print(&agent, printer)?;
    if printer.for_people() {
        if agent.runs_active == 0 {
            printer.note(&format!("{name} is drained"));
        }
        printer.note(&undrain);
    }
    Ok(Exit::Ok)
}
