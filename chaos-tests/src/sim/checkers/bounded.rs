//! P7: what is under way, what is kept in memory and what is kept on disk stay within the limits of the configuration.

use messages::Seq;
use messages::limits::RANGES_MAX;

use super::{Checker, Observation, Promise, Seat};

pub(super) struct Bounded;

impl Checker for Bounded {
    fn promise(&self) -> Promise {
        Promise::P7
    }

    fn name(&self) -> &'static str {
        "bounded"
    }

    fn see(&mut self, seen: &Observation<'_>) -> Result<(), String> {
        match seen {
            // What the receiver has can only be more than what the sender knows of it.
            Observation::Handed { stream, seq, received, window, .. } => {
                let limit = Seq::count(*received) + u64::from(*window);
                if seq.value() > limit {
                    return Err(format!("message {seq} of {stream} is under way, the window ends at {limit}"));
                }
                Ok(())
            }
            Observation::Committed { written, config, .. } => {
                for (peer, streams) in &written.peers {
                    let peer = Seat(super::super::seat_of(peer));
                    let outgoing = &streams.outgoing;
                    // One more than the history, for the one that the window's edge was moved by.
                    let kept = Seq::count(outgoing.settled) - Seq::count(outgoing.forgotten);
                    if kept > config.history {
                        return Err(format!("{kept} settled headers to {peer} are kept, {} may be", config.history));
                    }
                    let ranges = streams.incoming.as_ref().map_or(0, |incoming| incoming.ranges.iter().count());
                    if ranges > RANGES_MAX {
                        return Err(format!("{ranges} ranges from {peer} are kept"));
                    }
                    // A window may have been smaller before this process.
                    let beyond = streams.beyond.len();
                    if beyond > 64 {
                        return Err(format!("{beyond} links from {peer} are held, no window was larger than 64"));
                    }
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }
}
