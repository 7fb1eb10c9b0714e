//! What came of each step of an endpoint, worked out once, in 60 bytes each: there are tens of millions in a large search. It works out
//! nothing itself.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;

use messages::{MessageId, Seq};

use super::flight::{Flight, Renaming};
use super::parts::{CopyId, EndId, Folding, Local};
use super::violation::Violation;

/// What came of it.
#[derive(Debug, Clone)]
pub(super) struct Outcome {
    pub(super) end: EndId,
    pub(super) renaming: Renaming,
    pub(super) published: Vec<Flight>,
    pub(super) submitted: Option<(Seq, bool)>,
    pub(super) taken: Option<(Seq, MessageId)>,
    pub(super) consumed: bool,
}

/// The same as it is kept.
#[derive(Debug, Clone, Copy)]
pub(super) struct Worked {
    pub(super) end: EndId,
    pub(super) renaming: Renaming,
    pub(super) published: Published,
    /// The number of the place in the journal, and whether the submitter was told; or 0.
    submitted: u16,
    /// The number of the place in the journal, or 0.
    taken: u16,
    /// Which message that is, by its place in a list.
    message: u8,
    pub(super) consumed: bool,
}

/// Where what was published is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Published {
    first: u32,
    count: u8,
}

/// Everything that was worked out.
#[derive(Debug, Default)]
pub(super) struct Steps {
    numbers: HashMap<[u32; 3], u32, BuildHasherDefault<Folding>>,
    known: Vec<Result<Worked, Box<Violation>>>,
    flights: Vec<Flight>,
    messages: Vec<MessageId>,
    /// Places in journals, which may be anything: a restored journal leaves out many. Their numbers begin with 1.
    places: Vec<Seq>,
}

impl Steps {
    pub(super) const fn len(&self) -> usize {
        self.known.len()
    }

    /// What came of it, if it was worked out.
    pub(super) fn get(&self, of: EndId, local: Local) -> Option<Result<Worked, Violation>> {
        let number = *self.numbers.get(&key(of, local))?;
        Some(self.known[number as usize].as_ref().map(|known| *known).map_err(|wrong| (**wrong).clone()))
    }

    pub(super) fn published(&self, Published { first, count }: Published) -> &[Flight] {
        &self.flights[first as usize..first as usize + usize::from(count)]
    }

    /// What an application took, if it took anything.
    pub(super) fn taken(&self, known: &Worked) -> Option<(Seq, MessageId)> {
        let place = usize::from(known.taken).checked_sub(1)?;
        Some((self.places[place], self.messages[usize::from(known.message)]))
    }

    /// What was submitted, if anything was, and whether whoever did so was told.
    pub(super) fn submitted(&self, known: &Worked) -> Option<(Seq, bool)> {
        let place = usize::from(known.submitted >> 1).checked_sub(1)?;
        Some((self.places[place], known.submitted & 1 == 1))
    }

    /// Keeps what was worked out.
    pub(super) fn add(
        &mut self,
        of: EndId,
        local: Local,
        outcome: Result<Outcome, Violation>,
    ) -> Result<Worked, Violation> {
        let number = u32::try_from(self.known.len()).expect("no small world has so many outcomes");
        self.numbers.insert(key(of, local), number);
        let known = outcome.map(|outcome| self.packed(&outcome)).map_err(Box::new);
        let answer = known.as_ref().map(|known| *known).map_err(|wrong| (**wrong).clone());
        self.known.push(known);
        answer
    }

    fn packed(&mut self, outcome: &Outcome) -> Worked {
        let first = u32::try_from(self.flights.len()).expect("no small world has so many envelopes on their way");
        self.flights.extend(&outcome.published);
        let place = |places: &mut Vec<Seq>, seq| small(u64::from(number_in(places, seq)) + 1);
        let taken = outcome.taken.map_or(0, |(seq, _)| place(&mut self.places, seq).into());
        let message = outcome.taken.map_or(0, |(_, id)| number_in(&mut self.messages, id));
        let submitted =
            outcome.submitted.map_or(0, |(seq, told)| u16::from(place(&mut self.places, seq)) << 1 | u16::from(told));
        Worked {
            end: outcome.end,
            renaming: outcome.renaming,
            published: Published { first, count: small(outcome.published.len() as u64) },
            submitted,
            taken,
            message,
            consumed: outcome.consumed,
        }
    }
}

/// The number of that in a short list, to which it is added if it is not there.
fn number_in<T: PartialEq>(list: &mut Vec<T>, of: T) -> u8 {
    let known = list.iter().position(|known| *known == of).unwrap_or(list.len());
    if known == list.len() {
        list.push(of);
    }
    small(known as u64)
}

fn small(number: u64) -> u8 {
    u8::try_from(number).expect("a small world has few messages")
}

/// All of it in three words: two different ones never have the same.
fn key(EndId(of): EndId, local: Local) -> [u32; 3] {
    let (kind, which, what) = match local {
        Local::Do { step, dies, flight, number } => {
            (0, u32::from(dies) | (step as u32) << 1 | u32::from(small(number as u64)) << 8, flight.word())
        }
        Local::Crash => (1, 0, 0),
        Local::Restore(CopyId(copy)) => (2, 0, copy),
        Local::Disconnect => (3, 0, 0),
        Local::Keep(live) => (4, 0, u32::from(live)),
        Local::Owe(mark) => (5, 0, u32::from(mark.word())),
    };
    [of, kind << 24 | which, what]
}
