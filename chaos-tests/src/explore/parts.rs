//! What worlds are made of: each endpoint, copy, envelope and ledger that occurs, once, and what each endpoint makes of each step,
//! worked out once. There are thousands of times as many worlds as endpoints, so a step is mostly looked up. Nothing is looked up by
//! less than all that it depends on, so it is the same as working it out each time.

use std::collections::HashMap;
use std::hash::Hasher;

use super::action::Step;
use super::end::{Copy, End, Journal};
use super::facts::Facts;
use super::flight::{Flight, Letter, Mark, Parcel, Renaming, print};
use super::ledger::{Known, Ledgers};
use super::offers::Offers;
use super::plant::Plant;
use super::scope::{Scope, Side, TIMERS, id};
use super::step::Acting;
use super::steps::{Outcome, Published, Steps, Worked};
use super::violation::Violation;
use journal::State;
use link::session::{Millis, Session};
use messages::{Envelope, MessageId, ProbeId, Seq};

/// The number of an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct EndId(pub(super) u32);

/// The number of a copy of a journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct CopyId(pub(super) u32);

/// The number of a pair of ledgers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct LedgersId(pub(super) u32);

/// An endpoint that nothing happens to now. Its journal and what its session knows beyond it are each kept once.
#[derive(Debug)]
struct Parked {
    /// The number of the session, without what is durable.
    session: u32,
    /// What is durable as the session has it, if the journal is not the same. That takes a defect.
    durable: Option<Box<State>>,
    connected: bool,
    loads: Box<[(Seq, Seq)]>,
    held: Box<[Seq]>,
    processes: u8,
    restored: Option<Known>,
}

/// An endpoint, and what is asked of it for every world that has it.
#[derive(Debug)]
pub(super) struct EndRow {
    parked: Parked,
    /// Its journal as it is.
    pub(super) journal: CopyId,
    pub(super) facts: Facts,
    pub(super) offers: Offers,
    /// How many probes it waits for.
    pub(super) probes: u8,
    /// The probe of the peer that it is to answer.
    pub(super) owed: Mark,
}

/// What an endpoint does, or what is done to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Local {
    /// A step. What is delivered is [`Flight::NONE`] where nothing is, and the number is 0 where nothing is submitted.
    Do { step: Step, dies: bool, flight: Flight, number: usize },
    /// Its process dies and starts again.
    Crash,
    /// Its journal is restored from that copy.
    Restore(CopyId),
    /// It loses its connection.
    Disconnect,
    /// Only the probes with these bits can still be answered.
    Keep(u16),
    /// The probe that it is to answer has that place now.
    Owe(Mark),
}

/// Things of a kind, each once, by their fingerprints.
#[derive(Debug)]
struct Table<T> {
    numbers: HashMap<u128, u32>,
    rows: Vec<T>,
}

impl<T> Table<T> {
    fn new() -> Self {
        Self { numbers: HashMap::new(), rows: Vec::new() }
    }

    fn known(&self, print: u128) -> Option<u32> {
        self.numbers.get(&print).copied()
    }

    fn add(&mut self, print: u128, row: T) -> u32 {
        let number = u32::try_from(self.rows.len()).expect("no small world has thousands of millions of parts");
        self.numbers.insert(print, number);
        self.rows.push(row);
        number
    }
}

/// Everything that occurs in the worlds of one search.
#[derive(Debug)]
pub(super) struct Parts<'a> {
    pub(super) scope: &'a Scope,
    plant: Option<Plant>,
    ends: Table<EndRow>,
    sessions: Table<Session>,
    copies: Table<Copy>,
    parcels: Table<Parcel>,
    ledgers: Table<Ledgers>,
    steps: Steps,
}

impl<'a> Parts<'a> {
    pub(super) fn new(scope: &'a Scope, plant: Option<Plant>) -> Self {
        Self {
            scope,
            plant,
            ends: Table::new(),
            sessions: Table::new(),
            copies: Table::new(),
            parcels: Table::new(),
            ledgers: Table::new(),
            steps: Steps::default(),
        }
    }

    pub(super) fn end(&self, EndId(number): EndId) -> &EndRow {
        &self.ends.rows[number as usize]
    }

    pub(super) fn ledgers(&self, LedgersId(number): LedgersId) -> &Ledgers {
        &self.ledgers.rows[number as usize]
    }

    /// The envelope without its probes; nothing for one that nobody will get.
    pub(super) fn parcel(&self, flight: Flight) -> Option<&Parcel> {
        flight.parcel().map(|parcel| &self.parcels.rows[parcel])
    }

    pub(super) fn is_status(&self, flight: Flight) -> bool {
        self.parcel(flight).is_none_or(|parcel| parcel.is_status)
    }

    /// The envelope whole.
    pub(super) fn envelope(&self, flight: Flight) -> Option<Envelope> {
        let mut envelope = self.parcel(flight)?.envelope.clone();
        if let Envelope::Status(status) = &mut envelope {
            (status.probe, status.answers) = (flight.probe().probe(), flight.answers().probe());
        }
        Some(envelope)
    }

    /// How many different endpoints, envelopes and outcomes there are.
    pub(super) fn counts(&self) -> [usize; 3] {
        [self.ends.rows.len(), self.parcels.rows.len(), self.steps.len()]
    }

    /// How many different journals there are, with what their applications remember.
    pub(super) fn journals_count(&self) -> usize {
        self.copies.rows.len()
    }

    pub(super) fn add_end(&mut self, side: Side, mut end: End) -> EndId {
        let durable = end.session.park();
        let of_session = print(&end.session);
        let of_copy = print(&(&end.disk, &end.taken));
        let other = Some(&durable).filter(|durable| **durable != end.disk.state);
        let rest = (end.connected, &end.loads, &end.held, end.processes, end.restored);
        let print = print(&(side, of_session, of_copy, other, rest));
        if let Some(number) = self.ends.known(print) {
            return EndId(number);
        }
        let other = other.cloned().map(Box::new);
        end.session.unpark(durable);
        let offers = Offers::of(side, &end, self.scope);
        let peer = id(side.other());
        let probes = u8::try_from(end.session.probes(&peer).count()).expect("a session remembers few probes");
        let owed = Mark::of(end.session.owed(&peer));
        let facts = Facts::of(side, &end);
        let End { mut session, connected, disk, loads, taken, held, processes, restored } = end;
        session.park();
        let session = self.sessions.known(of_session).unwrap_or_else(|| self.sessions.add(of_session, session));
        let copy = self.copies.known(of_copy);
        let journal = CopyId(copy.unwrap_or_else(|| self.copies.add(of_copy, Copy { disk, taken })));
        let (loads, held) = (Vec::from(loads).into(), held.into());
        let parked = Parked { session, durable: other, connected, loads, held, processes, restored };
        EndId(self.ends.add(print, EndRow { parked, journal, facts, offers, probes, owed }))
    }

    /// The whole endpoint.
    pub(super) fn whole(&self, end: EndId) -> End {
        let EndRow { parked, journal: CopyId(copy), .. } = self.end(end);
        let Copy { disk, taken } = self.copies.rows[*copy as usize].clone();
        let mut session = self.sessions.rows[parked.session as usize].clone();
        session.unpark(parked.durable.as_deref().unwrap_or(&disk.state).clone());
        End {
            session,
            connected: parked.connected,
            disk,
            loads: parked.loads.iter().copied().collect(),
            taken,
            held: parked.held.to_vec(),
            processes: parked.processes,
            restored: parked.restored,
        }
    }

    /// What is durable of an endpoint.
    pub(super) fn journal(&self, end: EndId) -> Journal<'_> {
        let EndRow { parked, journal: CopyId(copy), .. } = self.end(end);
        let Copy { disk, taken } = &self.copies.rows[*copy as usize];
        Journal { disk, taken, restored: parked.restored }
    }

    pub(super) fn add_ledgers(&mut self, ledgers: Ledgers) -> LedgersId {
        let print = print(&ledgers);
        LedgersId(self.ledgers.known(print).unwrap_or_else(|| self.ledgers.add(print, ledgers)))
    }

    /// What comes of it.
    ///
    /// # Errors
    /// [`Violation`]
    pub(super) fn local(&mut self, side: Side, of: EndId, local: Local) -> Result<Worked, Violation> {
        if let Some(known) = self.steps.get(of, local) {
            return known;
        }
        let outcome = self.work_out(side, of, local);
        self.steps.add(of, local, outcome)
    }

    /// What was published then.
    pub(super) fn published(&self, published: Published) -> &[Flight] {
        self.steps.published(published)
    }

    /// What was submitted then, if anything was, and whether whoever did so was told.
    pub(super) fn submitted(&self, worked: &Worked) -> Option<(Seq, bool)> {
        self.steps.submitted(worked)
    }

    /// What an application took then, if it took anything.
    pub(super) fn taken(&self, worked: &Worked) -> Option<(Seq, MessageId)> {
        self.steps.taken(worked)
    }

    fn work_out(&mut self, side: Side, of: EndId, local: Local) -> Result<Outcome, Violation> {
        let (peer, plant) = (id(side.other()), self.plant);
        let mut end = self.whole(of);
        let mut renaming = Renaming::keeping(0..Mark::PLACES);
        match local {
            Local::Do { step, dies, flight, number } => {
                let envelope = self.envelope(flight);
                let acting = Acting { side, step, dies, envelope: envelope.as_ref(), number, scope: self.scope, plant };
                let acted = acting.act(end)?;
                let end = self.add_end(side, acted.end);
                let published = acted.published.into_iter().map(|letter| self.post(letter)).collect();
                let (submitted, taken) = (acted.submitted, acted.taken);
                let (renaming, consumed) = (acted.renaming, acted.consumed);
                return Ok(Outcome { end, renaming, published, submitted, taken, consumed });
            }
            Local::Crash => {
                renaming = Renaming::keeping(std::iter::empty());
                end.restart(side, plant)?;
            }
            Local::Restore(CopyId(copy)) => {
                renaming = Renaming::keeping(std::iter::empty());
                end.restore(side, &self.copies.rows[copy as usize], plant)?;
            }
            Local::Disconnect => end.disconnect(),
            Local::Keep(live) => {
                let places = (0..Mark::PLACES).filter(|place| live >> place & 1 == 1);
                renaming = Renaming::keeping(places);
                let keep = |probe: ProbeId| match renaming.of(Mark::of(Some(probe))) {
                    Mark::DEAD => None,
                    mark => mark.probe(),
                };
                end.session.normalize(&peer, (Millis(0), TIMERS), keep, |theirs| theirs);
            }
            Local::Owe(mark) => {
                let theirs = |owed| mark.probe().unwrap_or(owed);
                end.session.normalize(&peer, (Millis(0), TIMERS), Some, theirs);
            }
        }
        let end = self.add_end(side, end);
        Ok(Outcome { end, renaming, published: Vec::new(), submitted: None, taken: None, consumed: false })
    }

    fn post(&mut self, letter: Letter) -> Flight {
        let Letter { parcel, print, probe, answers } = letter;
        let parcel = self.parcels.known(print).unwrap_or_else(|| self.parcels.add(print, parcel));
        let answers = match Mark::of(answers) {
            Mark::DEAD => Mark::NONE,
            mark => mark,
        };
        Flight::new(parcel, Mark::of(probe), answers)
    }
}

/// A quick hash for keys of a few small numbers that no enemy chooses.
#[derive(Debug, Default)]
pub(super) struct Folding(u64);

impl Hasher for Folding {
    fn finish(&self) -> u64 {
        self.0 ^ self.0 >> 29
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }

    fn write_u8(&mut self, word: u8) {
        self.write_u64(u64::from(word));
    }

    fn write_u16(&mut self, word: u16) {
        self.write_u64(u64::from(word));
    }

    fn write_u32(&mut self, word: u32) {
        self.write_u64(u64::from(word));
    }

    fn write_usize(&mut self, word: usize) {
        self.write_u64(word as u64);
    }

    fn write_isize(&mut self, word: isize) {
        self.write_u64(word as u64);
    }

    fn write_u64(&mut self, word: u64) {
        let wide = u128::from(self.0.rotate_left(5) ^ word ^ 0x51_7c_c1) * 0x9e37_79b9_7f4a_7c15_u128;
        self.0 = wide as u64 ^ (wide >> 64) as u64;
    }
}
