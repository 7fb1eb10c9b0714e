//! `longshore fleet`: the agents that the server knows, and how it stands with each.

use clap::{Args, Subcommand};
use messages::AgentId;
use server::views::{AgentCounts, AgentOrderWord, AgentView, AgentsView};

use super::fleet_orders::{self, DrainArgs, HoldArgs, ReleaseArgs};
use crate::args::Global;
use crate::client::Client;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::{Cell, Clock, Column, Printer, Table, clean};

/// Commands about agents.
#[derive(Debug, Subcommand)]
pub(crate) enum FleetCommand {
    /// Every agent
    List,
    /// One agent
    Show(FleetShowArgs),
    /// Give an agent nothing more; what it has goes on
    Pause(HoldArgs),
    /// Let a paused agent work again
    Resume(ReleaseArgs),
    /// Give an agent nothing more, and wait until what it has is done
    Drain(DrainArgs),
    /// Let a drained agent work again
    Undrain(ReleaseArgs),
}

/// Arguments of `longshore fleet show`.
#[derive(Debug, Args)]
pub(crate) struct FleetShowArgs {
    /// The agent's name
    #[arg(value_name = "NAME")]
    name: AgentId,
}

/// Prints what was asked for.
pub(crate) fn run(command: &FleetCommand, global: &Global, printer: &Printer) -> Result<Exit, Failure> {
    let client = Client::new(global)?;
    match command {
        FleetCommand::List => {
            let view: AgentsView = client.get("/v1/agents")?;
            printer.list(&view, &view.agents, &table(&view.agents, &printer.clock))?;
            if printer.for_people() {
                printer.note(&summary(&view.agents));
            }
        }
        FleetCommand::Show(args) => {
            let view: AgentView = client.get(&format!("/v1/agents/{}", args.name))?;
            print(&view, printer)?;
        }
        FleetCommand::Pause(args) => return fleet_orders::pause(args, global, printer),
        FleetCommand::Resume(args) => return fleet_orders::release(args, AgentOrderWord::Resume, global, printer),
        FleetCommand::Drain(args) => return fleet_orders::drain(args, global, printer),
        FleetCommand::Undrain(args) => return fleet_orders::release(args, AgentOrderWord::Undrain, global, printer),
    }
    Ok(Exit::Ok)
}

/// Prints one agent.
pub(super) fn print(agent: &AgentView, printer: &Printer) -> Result<(), Failure> {
    Ok(printer.one(agent, &frozen(agent), &table(std::slice::from_ref(agent), &printer.clock))?)
}

/// Why its streams are stopped, and what to do.
fn frozen(agent: &AgentView) -> String {
    let reason = agent.frozen_reason.iter().map(|reason| format!("frozen: {}\n", clean(reason)));
    let advice = agent.frozen_advice.iter().map(|advice| format!("next: {}\n", clean(advice)));
    reason.chain(advice).collect()
}

fn table(agents: &[AgentView], clock: &Clock) -> Table {
    let mut table = Table::new([
        Column::new("NAME"),
        Column::new("POOL"),
        Column::new("STATE"),
        Column::number("SLOTS"),
        Column::number("RUNS"),
        Column::number("LAG"),
        Column::new(clock.heading("SEEN", "SEEN AT")).raw("seen_ms"),
        Column::new("VERSION"),
        Column::new("LABELS").wide(),
        Column::new("NOTE"),
    ]);
    for agent in agents {
        // An agent that is draining still is what it is to the link, so both are said.
        let state = match (agent.draining, &agent.paused) {
            (true, _) => format!("{}, draining", agent.state),
            (false, Some(_)) => format!("{}, paused", agent.state),
            (false, None) => agent.state.to_string(),
        };
        let busy = agent.slots.saturating_sub(agent.slots_free);
        table.row([
            Cell::new(&agent.name),
            agent.pool.as_ref().map_or_else(Cell::none, Cell::new),
            Cell::both(state, agent.state),
            if agent.slots == 0 { Cell::none() } else { Cell::new(format!("{busy}/{}", agent.slots)) },
            Cell::new(agent.runs_active),
            Cell::new(agent.lag),
            agent.seen_ms.map_or_else(Cell::none, |ms| Cell::both(clock.show(ms), ms)),
            if agent.version.is_empty() { Cell::none() } else { Cell::new(&agent.version) },
            labels(agent),
            note(agent),
        ]);
    }
    table
}

fn labels(agent: &AgentView) -> Cell {
    let labels: Vec<String> = agent.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
    if labels.is_empty() { Cell::none() } else { Cell::new(labels.join(",")) }
}

/// Why it is given nothing, if so.
fn note(agent: &AgentView) -> Cell {
    let paused = agent.paused.as_ref().filter(|note| !note.is_empty());
    let refusing = agent.refusing.as_ref().map(|why| format!("takes no work: {why}"));
    let note = agent.frozen_reason.clone().or_else(|| paused.cloned()).or(refusing);
    note.map_or_else(Cell::none, Cell::new)
}

fn summary(agents: &[AgentView]) -> String {
    let counts = AgentCounts::of(agents);
    let parts: Vec<String> = [
        (counts.online, "online"),
        (counts.unreachable, "unreachable (their work goes on; outcomes arrive when they are back)"),
        (counts.never_seen, "never seen"),
        (counts.frozen, "frozen (look at `longshore reconcile show NAME`)"),
    ]
    .into_iter()
    .filter(|(count, _)| *count > 0)
    .map(|(count, word)| format!("{count} {word}"))
    .collect();
    let plural = if agents.len() == 1 { "" } else { "s" };
    let details = if parts.is_empty() { String::new() } else { format!(": {}", parts.join(", ")) };
    format!("{} agent{plural}{details}", agents.len())
}
