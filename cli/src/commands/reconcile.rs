//! `longshore reconcile show`: how the journals of the server and one agent stand to each other, both directions.

use clap::{Args, Subcommand};
use messages::AgentId;
use server::views::{DirectionView, LinkView};

use crate::args::Global;
use crate::client::Client;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::{Cell, Clock, Column, Printer, Table, clean, took};

/// Commands about reconciling.
#[derive(Debug, Subcommand)]
pub(crate) enum ReconcileCommand {
    /// Both streams between the server and an agent
    Show(ReconcileShowArgs),
}

/// Arguments of `longshore reconcile show`.
#[derive(Debug, Args)]
pub(crate) struct ReconcileShowArgs {
    /// The agent's name
    #[arg(value_name = "NAME")]
    name: AgentId,
}

/// Prints the streams. Exit code 1 when they are frozen: somebody must look.
pub(crate) fn run(command: &ReconcileCommand, global: &Global, printer: &Printer) -> Result<Exit, Failure> {
    let ReconcileCommand::Show(args) = command;
    let view: LinkView = Client::new(global)?.get(&format!("/v1/agents/{}/link", args.name))?;
    let mut table = Table::new([
        Column::new("LINK"),
        Column::number("SENT"),
        Column::number("CONFIRMED"),
        Column::number("RECEIVED"),
        Column::number("SETTLED"),
        Column::number("FORGOTTEN"),
        Column::new("GAP"),
        Column::new("EPOCH").wide(),
        Column::new("INCARNATION").wide(),
    ]);
    table.row(row(format!("server→{}", view.peer), &view.outgoing, true));
    table.row(row(format!("{}→server", view.peer), &view.incoming, false));
    printer.one(&view, "", &table)?;
    if printer.for_people() {
        printer.text(&rest(&view, &printer.clock))?;
    }
    Ok(if view.frozen.is_some() { Exit::Failed } else { Exit::Ok })
}

fn row(name: String, direction: &DirectionView, outgoing: bool) -> Vec<Cell> {
    let gaps: Vec<String> = direction
        .gaps
        .iter()
        .map(|(from, to)| if from == to { from.to_string() } else { format!("{from}-{to}") })
        .collect();
    vec![
        Cell::new(name),
        Cell::new(direction.last_seq),
        if outgoing { Cell::new(direction.confirmed) } else { Cell::none() },
        Cell::new(direction.received),
        Cell::new(direction.settled),
        Cell::new(direction.forgotten),
        if gaps.is_empty() { Cell::both("none", "") } else { Cell::new(gaps.join(" ")) },
        direction.epoch.map_or_else(Cell::none, Cell::new),
        direction.incarnation.map_or_else(Cell::none, Cell::new),
    ]
}

fn rest(view: &LinkView, clock: &Clock) -> String {
    let mut text = format!("resent {} · duplicates dropped {}", view.resent, view.duplicates);
    if !view.broker_connected {
        text.push_str(" · the broker is not reached");
    }
    text.push('\n');
    for outage in &view.outages {
        let from = clock.absolute(outage.from_ms);
        match outage.to_ms {
            Some(to) => {
                let length = took(to.saturating_sub(outage.from_ms));
                text.push_str(&format!("outage {from} +{length} · {} resent\n", outage.resent));
            }
            None => text.push_str(&format!("outage {from}, still going on\n")),
        }
    }
    if let Some(reason) = &view.frozen {
        text.push_str(&format!("FROZEN: {}\n", clean(reason)));
    }
    text
}
