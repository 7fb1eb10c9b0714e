//! P6: what is on disk is what is known. The rows, read anew, amount to the state of the session and of the writer, and every
//! message is there with its header and body for as long as the marks say.

use journal::{PeerState, State};

use super::{Checker, Observation, Promise};

pub(super) struct ReplayIsState;

/// The states without what has no rows: entries for peers of whom nothing is known, and totals, which only the writer keeps.
fn essence(state: &State) -> State {
    let nothing = PeerState::default();
    let peers = state.peers.iter().filter(|(_, streams)| **streams != nothing);
    let peers = peers.map(|(peer, streams)| (peer.clone(), streams.clone())).collect();
    State { meta: state.meta.clone(), peers, totals: journal::Totals::default() }
}

impl Checker for ReplayIsState {
    fn promise(&self) -> Promise {
        Promise::P6
    }

    fn name(&self) -> &'static str {
        "replay-is-state"
    }

    fn see(&mut self, seen: &Observation<'_>) -> Result<(), String> {
        let Observation::Committed { node, session, written, replay, .. } = seen else { return Ok(()) };
        if session.is_some_and(|session| session != *written && essence(session) != essence(written)) {
            return Err(format!("the session of process {node} and its journal are not in the same state"));
        }
        let Some(replay) = replay else { return Ok(()) };
        if essence(&replay.state) != essence(written) {
            return Err(format!("the rows of process {node}, read anew, are not the state that it is in"));
        }
        match replay.problems.first() {
            Some(problem) => Err(format!("the journal of process {node}: {problem}")),
            None => Ok(()),
        }
    }
}
