//! `longshore reconcile resolve`: a person's decision about streams that are stopped. Explains before it asks, asks before it
//! changes anything, and changes nothing but that.

use std::io::{IsTerminal as _, Write as _};

use clap::Args;
use link::control::{Question, Reply, Unresolved};
use link::session::{PeerView, ResolveError};
use messages::EndpointId;
use serde::Serialize;
use server::views::Schema;

use super::reconcile_ask::{self, Endpoint};
use crate::args::Global;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::{Cell, Column, Printer, Table, clean};

/// Arguments of `longshore reconcile resolve`.
#[derive(Debug, Args)]
#[command(
    long_about = "Decide about stopped streams: the journal of this endpoint goes on, under another name, and the other end \
    takes it over.\n\n\
    The endpoint must be running. Stop the other copy first: see `longshore reconcile show`. It explains what will happen and \
    asks; with --yes it does not ask, and without a terminal it needs --yes.\n\n\
    Journals that contradict each other cannot be reconciled like this; it says what to do then."
)]
pub(crate) struct ReconcileResolveArgs {
    /// The other end of the streams: an agent, or server
    #[arg(value_name = "PEER")]
    peer: EndpointId,
    /// Whose journal goes on: server, or an agent of this machine
    #[arg(long, env = "LONGSHORE_ENDPOINT", value_name = "ENDPOINT", default_value = "server")]
    pub(crate) endpoint: EndpointId,
}

/// What was decided.
#[derive(Debug, Clone, Serialize)]
struct ResolvedView {
    /// Whose journal goes on.
    endpoint: EndpointId,
    /// With whom.
    peer: EndpointId,
    /// Why the streams had been stopped.
    was: String,
}

impl Schema for ResolvedView {
    const SCHEMA: &'static str = "longshore.resolved/1";
}

/// Explains, asks, and has it carried out.
pub(crate) fn run(
    args: &ReconcileResolveArgs,
    endpoint: &Endpoint,
    global: &Global,
    printer: &Printer,
) -> Result<Exit, Failure> {
    let peer = &args.peer;
    let (_, views) = reconcile_ask::links(endpoint, &Question::Link(vec![peer.clone()]))?;
    let view = views.into_iter().next().ok_or_else(|| reconcile_ask::unknown_peer(endpoint, peer))?.streams;
    let Some(was) = view.frozen.clone() else { return Err(not_stopped(endpoint, peer)) };
    if !view.resolvable {
        return Err(undecidable(&view, &was));
    }
    printer.note(&explanation(&endpoint.id, peer, &was));
    if !global.yes && !confirmed(&endpoint.id, peer)? {
        printer.note("nothing was changed; the streams stay stopped");
        return Ok(Exit::Failed);
    }
    let unknown = "whether the decision was carried out is not known";
    match endpoint.ask(&Question::Resolve(peer.clone()), unknown)? {
        Reply::Resolve(Ok(())) => {}
        Reply::Resolve(Err(Unresolved::Refused(ResolveError::UnknownPeer { .. }))) => {
            return Err(reconcile_ask::unknown_peer(endpoint, peer));
        }
        Reply::Resolve(Err(Unresolved::Refused(ResolveError::NotStopped { .. }))) => {
            return Err(not_stopped(endpoint, peer));
        }
        Reply::Resolve(Err(Unresolved::Refused(
            error @ (ResolveError::Diverged { .. } | ResolveError::NotWhole { .. }),
        ))) => {
            return Err(Failure::new(Exit::Failed, &error, "nothing was changed", endpoint.look()));
        }
        Reply::Resolve(Err(error @ Unresolved::Failed(_))) => {
            return Err(Failure::new(Exit::Unreachable, &error, unknown, endpoint.look()));
        }
        Reply::Journal(_) | Reply::Link(..) => return Err(reconcile_ask::misfit(endpoint, unknown)),
    }
    print(ResolvedView { endpoint: endpoint.id.clone(), peer: peer.clone(), was }, printer)
}

fn print(view: ResolvedView, printer: &Printer) -> Result<Exit, Failure> {
    let mut table = Table::new([Column::new("PEER"), Column::new("ENDPOINT"), Column::new("WAS")]);
    table.row([Cell::new(&view.peer), Cell::new(&view.endpoint), Cell::new(&view.was)]);
    if !printer.for_people() {
        printer.one(&view, "", &table)?;
        return Ok(Exit::Ok);
    }
    let (id, peer) = (&view.endpoint, &view.peer);
    printer.text(&format!(
        "resolved: the journal of {id} goes on with {peer}, under another name\n\
         next: {peer} takes it over as soon as both reach the broker; `longshore reconcile show {peer} --endpoint {id}` shows it. \
         If the streams stop again, another copy is still running.\n"
    ))?;
    Ok(Exit::Ok)
}

fn explanation(local: &EndpointId, peer: &EndpointId, was: &str) -> String {
    format!(
        "The streams between {local} and {peer} are stopped: {}.\n\
         If you go on:\n  \
         - the journal of {local} goes on under another name, and {peer} takes it over; both keep what they have;\n  \
         - what is open between them is sent again where it may be missing, marked as perhaps done;\n  \
         - whatever speaks next as {peer} is taken for it, and another copy of {local} is no longer listened to.\n\
         Every copy that is not to go on must have been stopped before.",
        clean(was)
    )
}

/// Asks on the terminal. Without one nobody could answer.
fn confirmed(local: &EndpointId, peer: &EndpointId) -> Result<bool, Failure> {
    let terminal = std::io::stdin().is_terminal() && std::io::stderr().is_terminal();
    if !terminal {
        return Err(Failure::words(
            Exit::Usage,
            "this needs a person's yes, and there is no terminal to ask on",
            "nothing was changed; the streams stay stopped, nothing is lost",
            format!("run `longshore reconcile resolve {peer} --endpoint {local} --yes`"),
        ));
    }
    let failed = |error: std::io::Error| {
        Failure::new(Exit::Failed, &error, "nothing was changed", "answer with --yes instead of on the terminal")
    };
    let mut asked = std::io::stderr();
    write!(asked, "Let the journal of {local} go on with {peer}? [y/N] ")
        .and_then(|()| asked.flush())
        .map_err(failed)?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).map_err(failed)?;
    Ok(is_yes(&answer))
}

fn is_yes(answer: &str) -> bool {
    matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes")
}

fn not_stopped(endpoint: &Endpoint, peer: &EndpointId) -> Failure {
    let id = &endpoint.id;
    Failure::words(
        Exit::Usage,
        format!("the streams between {id} and {peer} are not stopped"),
        "nothing was changed; if they were stopped before a restart and the cause is still there, that is found again",
        format!("`longshore reconcile show --endpoint {id}` shows how they stand"),
    )
}

/// Streams that a decision at this end does not help.
fn undecidable(view: &PeerView, was: &str) -> Failure {
    let next = view.advice.clone().unwrap_or_default();
    Failure::words(Exit::Failed, was, "nothing was changed; this cannot be decided here", next)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_clear_yes_is_one() {
        assert!(["y\n", "Yes\n", " YES "].iter().all(|answer| is_yes(answer)));
        assert!(!["", "\n", "n\n", "yes please\n", "ja\n"].iter().any(|answer| is_yes(answer)));
    }

    #[test]
    fn what_will_happen_is_said_without_control_characters() {
        let text = explanation(&EndpointId::Server, &EndpointId::Server, "why\u{1b}[2J");
        assert!(text.contains("why\u{fffd}[2J") && text.contains("perhaps done"));
    }
}
