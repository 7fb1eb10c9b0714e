//! P1 and P2, per stream: what an application is given is the stream, in its order, from its durable mark on, without holes or
//! repetitions within one process, and each message is what its sender numbered.

use std::collections::BTreeMap;

use messages::{Frame, Seq};

use super::{Checker, Observation, Promise, Stream};

#[derive(Default)]
pub(super) struct InOrder {
    /// What each process is to be given next, by node and sender.
    next: BTreeMap<(usize, usize), Seq>,
    numbered: BTreeMap<(Stream, Seq), Frame>,
}

impl Checker for InOrder {
    fn promise(&self) -> Promise {
        Promise::P2
    }

    fn name(&self) -> &'static str {
        "in-order"
    }

    fn see(&mut self, seen: &Observation<'_>) -> Result<(), String> {
        match seen {
            Observation::Opened { node, state: Ok(state), .. } => {
                self.next.retain(|(of, _), _| of != node);
                for (peer, streams) in &state.peers {
                    let applied = streams.incoming.as_ref().and_then(|incoming| incoming.applied);
                    let from = super::super::seat_of(peer);
                    self.next.insert((*node, from), Seq::after(applied));
                }
                Ok(())
            }
            Observation::Numbered { stream, seq, message } => {
                self.numbered.insert((*stream, *seq), message.frame.clone());
                Ok(())
            }
            Observation::Offered { node, stream, place, seq, bytes } => {
                let next = self.next.entry((*node, stream.from)).or_insert(Seq::FIRST);
                if next != place {
                    return Err(format!("the application was given message {place} of {stream} where {next} is next"));
                }
                *next = place.next();
                if self.numbered.get(&(*stream, *seq)).is_none_or(|numbered| numbered.bytes() != *bytes) {
                    return Err(format!("message {seq} of {stream} is not what its sender numbered"));
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }
}
