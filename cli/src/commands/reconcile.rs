//! `longshore reconcile`: how the journals of two endpoints stand to each other, both directions; and the one decision about
//! that which only a person can take. Showing changes nothing.

use clap::{Args, Subcommand};
use link::control::Question;
use messages::{AgentId, EndpointId};
use serde::Serialize;
use server::views::{DirectionView, LinkView, Schema};

use super::reconcile_ask::{self, Endpoint};
use super::reconcile_resolve::{self, ReconcileResolveArgs};
use crate::args::Global;
use crate::client::Client;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::home::Home;
use crate::output::{Cell, Clock, Column, Printer, Table, clean, state_style, took};

/// Commands about reconciling.
#[derive(Debug, Subcommand)]
pub(crate) enum ReconcileCommand {
    /// How two journals stand to each other; exit code 1 when streams are stopped
    Show(ReconcileShowArgs),
    /// Decide about stopped streams: this endpoint's journal goes on
    Resolve(ReconcileResolveArgs),
}

/// Arguments of `longshore reconcile show`.
#[derive(Debug, Args)]
#[command(
    long_about = "How two journals stand to each other, both streams; and when they are stopped, why and what to do.\n\n\
    With NAME alone, the server is asked over its API. Without NAME, or with --endpoint, an endpoint of this machine is asked \
    itself, which must be running; it shows all of its peers, or the one named.\n\n\
    The exit code is 1 when streams are stopped, else 0."
)]
pub(crate) struct ReconcileShowArgs {
    /// The other end: an agent, or server if an agent is asked
    #[arg(value_name = "NAME")]
    name: Option<EndpointId>,
    /// Ask this endpoint of this machine itself: server, or an agent [default without NAME: server]
    #[arg(long, env = "LONGSHORE_ENDPOINT", value_name = "ENDPOINT")]
    endpoint: Option<EndpointId>,
}

/// How an endpoint stands to its peers, as it says itself.
#[derive(Debug, Clone, Serialize)]
struct ReconcileView {
    endpoint: EndpointId,
    links: Vec<LinkView>,
}

impl Schema for ReconcileView {
    const SCHEMA: &'static str = "longshore.reconcile/1";
}

/// Does what was asked for.
pub(crate) fn run(command: &ReconcileCommand, global: &Global, printer: &Printer) -> Result<Exit, Failure> {
    match command {
        ReconcileCommand::Show(args) => match (&args.name, &args.endpoint) {
            (Some(EndpointId::Agent(name)), None) => of_server(name, global, printer),
            (Some(EndpointId::Server), None) => Err(Failure::words(
                Exit::Usage,
                "the server is the one that is asked",
                "nothing was changed",
                "give an agent's name, or ask an agent of this machine with --endpoint",
            )),
            (name, endpoint) => {
                let id = endpoint.clone().unwrap_or(EndpointId::Server);
                let endpoint = Endpoint::find(&Home::find(global.dir.as_deref())?, id);
                match name {
                    Some(peer) => of_peer(&endpoint, peer, printer),
                    None => of_endpoint(&endpoint, printer),
                }
            }
        },
        ReconcileCommand::Resolve(args) => {
            let endpoint = Endpoint::find(&Home::find(global.dir.as_deref())?, args.endpoint.clone());
            reconcile_resolve::run(args, &endpoint, global, printer)
        }
    }
}

fn of_server(name: &AgentId, global: &Global, printer: &Printer) -> Result<Exit, Failure> {
    let view: LinkView = Client::new(global)?.get(&format!("/v1/agents/{name}/link"))?;
    one(&EndpointId::Server, &view, printer)
}

fn of_peer(endpoint: &Endpoint, peer: &EndpointId, printer: &Printer) -> Result<Exit, Failure> {
    let (state, views) = reconcile_ask::links(endpoint, &Question::Link(vec![peer.clone()]))?;
    let view = views.first().ok_or_else(|| reconcile_ask::unknown_peer(endpoint, peer))?;
    one(&endpoint.id, &server::link_view(view, &state, link::wall_ms()), printer)
}

fn one(local: &EndpointId, view: &LinkView, printer: &Printer) -> Result<Exit, Failure> {
    printer.one(view, "", &table(local, std::slice::from_ref(view)))?;
    if printer.for_people() {
        let clock = &printer.clock;
        printer.text(&format!("{}\n{}{}", heard(view, clock), outages(view, clock), stopped(local, view)))?;
    }
    Ok(exit(std::slice::from_ref(view)))
}

/// Every peer of an endpoint of this machine.
fn of_endpoint(endpoint: &Endpoint, printer: &Printer) -> Result<Exit, Failure> {
    let (state, views) = reconcile_ask::links(endpoint, &Question::Links)?;
    let now = link::wall_ms();
    let links: Vec<LinkView> = views.iter().map(|view| server::link_view(view, &state, now)).collect();
    let table = table(&endpoint.id, &links);
    let view = ReconcileView { endpoint: endpoint.id.clone(), links };
    printer.list(&view, &view.links, &table)?;
    if printer.for_people() {
        let clock = &printer.clock;
        let mut text: String =
            view.links.iter().map(|link| format!("{}: {}\n", link.peer, heard(link, clock))).collect();
        // The connection is one for all peers, and so are its outages.
        text.extend(view.links.first().map(|link| outages(link, clock)));
        text.extend(view.links.iter().map(|link| stopped(&endpoint.id, link)));
        printer.text(&text)?;
    }
    Ok(exit(&view.links))
}

/// Somebody must look when streams are stopped.
fn exit(links: &[LinkView]) -> Exit {
    if links.iter().any(|link| link.frozen.is_some()) { Exit::Failed } else { Exit::Ok }
}

fn table(local: &EndpointId, links: &[LinkView]) -> Table {
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
    for link in links {
        table.row(row(format!("{local}→{}", link.peer), &link.outgoing, true));
        table.row(row(format!("{}→{local}", link.peer), &link.incoming, false));
    }
    table
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

fn heard(view: &LinkView, clock: &Clock) -> String {
    let heard = match view.seen_ms {
        Some(ms) if clock.is_relative() => format!("heard {} ago", clock.show(ms)),
        Some(ms) => format!("heard at {}", clock.show(ms)),
        None => "not heard yet".to_owned(),
    };
    format!("{heard} · resent {} · duplicates dropped {}", view.resent, view.duplicates)
}

fn outages(view: &LinkView, clock: &Clock) -> String {
    let mut text = String::new();
    if !view.broker_connected {
        text.push_str("the broker is not reached\n");
    }
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
    text
}

fn stopped(local: &EndpointId, view: &LinkView) -> String {
    let Some(reason) = &view.frozen else { return String::new() };
    let style = state_style("frozen");
    let mut text = format!("{style}FROZEN{style:#} {local}↔{}: {}\n", view.peer, clean(reason));
    if let Some(advice) = &view.advice {
        text.push_str(&format!("  {}\n", clean(advice)));
    }
    text
}
