//! P1: what an endpoint says it has is on its disk.

use super::{Checker, Observation, Promise, Seat};

pub(super) struct HonestMarks;

impl Checker for HonestMarks {
    fn promise(&self) -> Promise {
        Promise::P1
    }

    fn name(&self) -> &'static str {
        "honest-marks"
    }

    fn see(&mut self, seen: &Observation<'_>) -> Result<(), String> {
        let Observation::Claimed { seat, peer, claim, durable } = seen else { return Ok(()) };
        let (through, settled) = durable.map_or((None, None), |row| (row.through, row.settled));
        let has = |seq| durable.is_some_and(|row| Some(seq) <= row.through || row.ranges.contains(seq));
        let ranges = claim.ranges.iter().all(|(from, to)| has(from) && has(to));
        if claim.through > through || claim.settled_through > settled || !ranges {
            let (said, has) = (messages::Seq::count(claim.through), messages::Seq::count(through));
            return Err(format!(
                "{} says that it has {said} of {}, on its disk is {has} (or of what lies beyond, or of what is settled)",
                Seat(*seat),
                Seat(*peer)
            ));
        }
        Ok(())
    }
}
