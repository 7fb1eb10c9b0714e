//! P1: damage is never silent, and nothing else is taken for damage.

use super::{Checker, Observation, Promise, Seat};

pub(super) struct NotSilent;

impl Checker for NotSilent {
    fn promise(&self) -> Promise {
        Promise::P1
    }

    fn name(&self) -> &'static str {
        "damage-not-silent"
    }

    fn see(&mut self, seen: &Observation<'_>) -> Result<(), String> {
        match seen {
            Observation::Opened { seat, damaged: Some(how), state: Ok(_), .. } => {
                Err(format!("the journal of {} was opened although {how}", Seat(*seat)))
            }
            Observation::Opened { seat, damaged: None, state: Err(error), .. } => {
                Err(format!("the journal of {} was refused although nothing is wrong with it: {error}", Seat(*seat)))
            }
            Observation::Complained { seat, peer, why } => {
                Err(format!("{} {why} (shared with {}), for nothing that happened to them", Seat(*seat), Seat(*peer)))
            }
            _ => Ok(()),
        }
    }
}
