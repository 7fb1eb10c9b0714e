//! P3: what is sent again is what was lost. Each copy of a message beyond its first must be paid for by the earlier ones: every
//! one of them was destroyed by the world, was taken out of its order by it (held back, overtaken), or was turned away by its
//! receiver. A copy that still waits where it was put, or that arrived, pays for nothing.
//!
//! Why the bound is exact for a broker that keeps order: a probe is published behind what it asks about, in the same queue, so an
//! answer is made after all of that has arrived or is gone. Nothing else than an answer makes a session send again. Where the world
//! breaks the order, a session cannot tell late from lost, and that copy is allowed one more.
//!
//! One copy more is allowed where a process was started with a smaller window than the one that sent the earlier copy had: what
//! lies beyond its own window it takes for never sent, since how far an earlier process came is nowhere recorded.

use std::collections::BTreeMap;

use messages::Seq;

use super::{Checker, Observation, Promise, Stream};
use crate::sim::broker::{CopyId, Fate};

#[derive(Default, Clone, Copy)]
struct Copy {
    queued: u32,
    arrived: bool,
    displaced: bool,
    /// It was gone once, destroyed or turned away, whether or not it came back from a snapshot since.
    lost: bool,
    window: u32,
}

impl Copy {
    const fn is_paid(self) -> bool {
        self.displaced || self.lost || (self.queued == 0 && !self.arrived)
    }
}

#[derive(Default)]
pub(super) struct ResentIsLost {
    copies: BTreeMap<CopyId, Copy>,
    of: BTreeMap<(Stream, Seq), Vec<CopyId>>,
}

impl Checker for ResentIsLost {
    fn promise(&self) -> Promise {
        Promise::P3
    }

    fn name(&self) -> &'static str {
        "resent-is-lost"
    }

    fn see(&mut self, seen: &Observation<'_>) -> Result<(), String> {
        match seen {
            Observation::Handed { stream, seq, copy, window, .. } => {
                let earlier = self.of.entry((*stream, *seq)).or_default();
                for id in earlier.iter() {
                    let known = self.copies.get(id).copied().unwrap_or_default();
                    if !known.is_paid() && known.window <= *window {
                        let where_it_is = if known.arrived { "had arrived" } else { "is still in the queue" };
                        let count = earlier.len() + 1;
                        return Err(format!(
                            "message {seq} of {stream} was sent {count} times; an earlier one {where_it_is}"
                        ));
                    }
                }
                earlier.push(*copy);
                self.copies.insert(*copy, Copy { window: *window, ..Copy::default() });
                Ok(())
            }
            Observation::Copy { copy, fate } => {
                let known = self.copies.entry(*copy).or_default();
                match fate {
                    Fate::Queued => known.queued += 1,
                    Fate::Destroyed => {
                        known.queued = known.queued.saturating_sub(1);
                        known.lost |= known.queued == 0 && !known.arrived;
                        // What is left of a copy that the broker had doubled is not where it was put.
                        known.displaced |= known.queued > 0;
                    }
                    Fate::Displaced => known.displaced = true,
                }
                Ok(())
            }
            Observation::Settled { copy: Some(copy), durable, turned_away, .. } => {
                // What was turned away may be durable by now because of another delivery of the same copy.
                let durable = *durable && !turned_away;
                let known = self.copies.entry(*copy).or_default();
                known.queued = known.queued.saturating_sub(1);
                known.arrived |= durable;
                known.lost |= known.queued == 0 && !known.arrived;
                // Of a copy that the broker had doubled one was turned away: what is left of it is not where it was put.
                known.displaced |= !durable && known.queued > 0;
                Ok(())
            }
            // The acknowledgement may be lost with the connection: then the copy comes again, and is taken, while word that it is
            // missing is on its way already.
            Observation::TurnedAway { from, to, seq } => {
                let meant = |(stream, at): &&(Stream, Seq)| (stream.from, stream.to, *at) == (*from, *to, *seq);
                for key in self.of.keys().filter(meant) {
                    for copy in self.of.get(key).into_iter().flatten() {
                        let known = self.copies.entry(*copy).or_default();
                        known.lost |= !known.arrived;
                    }
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }
}
