//! P1: journal first, then act. What is handed to the broker is on the sender's disk, and it is the same bytes each time.

use std::collections::BTreeMap;

use messages::{Frame, Seq};

use super::{Checker, Observation, Promise, Stream};

#[derive(Default)]
pub(super) struct JournalFirst {
    numbered: BTreeMap<(Stream, Seq), Frame>,
}

impl Checker for JournalFirst {
    fn promise(&self) -> Promise {
        Promise::P1
    }

    fn name(&self) -> &'static str {
        "journal-first"
    }

    fn see(&mut self, seen: &Observation<'_>) -> Result<(), String> {
        match seen {
            Observation::Numbered { stream, seq, message } => {
                let known = self.numbered.entry((*stream, *seq)).or_insert_with(|| message.frame.clone());
                if *known == message.frame {
                    Ok(())
                } else {
                    Err(format!("place {seq} of {stream} was given to two messages"))
                }
            }
            Observation::Handed { stream, seq, bytes, .. } => match self.numbered.get(&(*stream, *seq)) {
                None => Err(format!("message {seq} of {stream} was published before it was on disk")),
                Some(known) if known.bytes() != *bytes => {
                    Err(format!("message {seq} of {stream} was published with other bytes than those on disk"))
                }
                Some(_) => Ok(()),
            },
            _ => Ok(()),
        }
    }
}
