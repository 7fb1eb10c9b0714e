//! An envelope on its way, in one word: which one it is, and the probes that it asks and answers, which are renamed all the time.
//! It never says what becomes of it.

use std::hash::{Hash, Hasher};

use messages::{Envelope, Frame, MessageId, ProbeId, decode};

use super::violation::Violation;
use super::world::FACTORS;

/// Stands for every probe whose answer nobody waits for any more.
pub(super) const DEAD: ProbeId = ProbeId::new(u64::MAX);

/// Which probe: its place among those that its asker waits for, which is its number in a normal form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Mark(u8);

impl Mark {
    pub(super) const NONE: Self = Self(0);
    pub(super) const DEAD: Self = Self(1);
    /// More than a session remembers probes, and few enough for four bits.
    pub(super) const PLACES: usize = 12;

    pub(super) fn at(place: usize) -> Self {
        assert!(place < Self::PLACES, "a session remembers fewer probes");
        Self(u8::try_from(place).unwrap_or_default() + 2)
    }

    pub(super) fn of(probe: Option<ProbeId>) -> Self {
        match probe {
            None => Self::NONE,
            Some(DEAD) => Self::DEAD,
            Some(probe) => {
                let place = (0..Self::PLACES).find(|place| ProbeId::new(*place as u64) == probe);
                Self::at(place.unwrap_or(usize::MAX))
            }
        }
    }

    pub(super) fn probe(self) -> Option<ProbeId> {
        match self {
            Self::NONE => None,
            Self::DEAD => Some(DEAD),
            Self(place) => Some(ProbeId::new(u64::from(place - 2))),
        }
    }

    /// As a number that no other mark has.
    pub(super) const fn word(self) -> u8 {
        self.0
    }

    pub(super) const fn place(self) -> Option<u8> {
        self.0.checked_sub(2)
    }

    /// As one bit among the places; no bit for what has no place.
    pub(super) const fn bit(self) -> u16 {
        match self.0.checked_sub(2) {
            Some(place) => 1 << place,
            None => 0,
        }
    }
}

/// What becomes of the places of a side's probes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Renaming([Mark; Mark::PLACES]);

impl Renaming {
    /// From a list of places that stay, in order.
    pub(super) fn keeping(places: impl Iterator<Item = usize>) -> Self {
        let mut all = [Mark::DEAD; Mark::PLACES];
        for (to, from) in places.enumerate() {
            all[from] = Mark::at(to);
        }
        Self(all)
    }

    /// Whether the first so many places stay what they are.
    pub(super) fn keeps(&self, count: u8) -> bool {
        (0..usize::from(count)).all(|place| self.0[place] == Mark::at(place))
    }

    pub(super) fn of(&self, mark: Mark) -> Mark {
        mark.place().map_or(mark, |place| self.0[usize::from(place)])
    }
}

/// An envelope without its probes.
#[derive(Debug)]
pub(super) struct Parcel {
    pub(super) envelope: Envelope,
    pub(super) is_status: bool,
    pub(super) message: Option<MessageId>,
}

/// An envelope that was just published.
#[derive(Debug)]
pub(super) struct Letter {
    pub(super) parcel: Parcel,
    pub(super) print: u128,
    pub(super) probe: Option<ProbeId>,
    pub(super) answers: Option<ProbeId>,
}

impl Letter {
    pub(super) fn new(frame: &Frame) -> Result<Self, Violation> {
        let mut envelope = decode(frame.bytes().to_vec()).map_err(|_| Violation::Unreadable)?;
        let (mut probe, mut answers, mut message) = (None, None, None);
        let print = match &mut envelope {
            Envelope::Status(status) => {
                (probe, answers) = (status.probe.take(), status.answers.take());
                print(Frame::status(status).map_err(|_| Violation::Unreadable)?.bytes())
            }
            Envelope::Message(carried) => {
                message = Some(carried.header.id);
                print(frame.bytes())
            }
            Envelope::Log(_) => print(frame.bytes()),
        };
        let is_status = matches!(envelope, Envelope::Status(_));
        Ok(Self { parcel: Parcel { envelope, is_status, message }, print, probe, answers })
    }
}

/// An envelope on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Flight(u32);

impl Flight {
    /// Nothing is under way.
    pub(super) const NONE: Self = Self(u32::MAX);
    const PARCELS: u32 = 1 << 23;

    pub(super) fn new(parcel: u32, probe: Mark, answers: Mark) -> Self {
        assert!(parcel < Self::PARCELS - 1, "no small world has so many different envelopes");
        Self(parcel << 9 | u32::from(probe.0) << 5 | u32::from(answers.0) << 1)
    }

    pub(super) const fn of_word(word: u32) -> Self {
        Self(word)
    }

    pub(super) const fn word(self) -> u32 {
        self.0
    }

    pub(super) fn parcel(self) -> Option<usize> {
        (self.0 < Self::NONE.0).then_some((self.0 >> 9) as usize)
    }

    pub(super) const fn probe(self) -> Mark {
        Mark((self.0 >> 5 & 15) as u8)
    }

    pub(super) const fn answers(self) -> Mark {
        Mark((self.0 >> 1 & 15) as u8)
    }

    /// Its sender's journal was restored since.
    pub(super) const fn of_lost_life(self) -> bool {
        self.0 & 1 == 1
    }

    pub(super) fn mark_lost_life(&mut self) {
        if self.parcel().is_some() {
            self.0 |= 1;
        }
    }

    /// As its receiver sees it.
    pub(super) const fn seen(self) -> Self {
        Self(self.0 & !1)
    }

    pub(super) fn rename_probe(&mut self, renaming: &Renaming) {
        let probe = renaming.of(self.probe());
        self.0 = self.0 & !(15 << 5) | u32::from(probe.0) << 5;
    }

    /// The answer to a probe that nobody remembers is as good as none.
    pub(super) fn rename_answer(&mut self, renaming: &Renaming) {
        let answers = match renaming.of(self.answers()) {
            Mark::DEAD => Mark::NONE,
            mark => mark,
        };
        self.0 = self.0 & !(15 << 1) | u32::from(answers.0) << 1;
    }
}

/// A fingerprint of 128 bits.
pub(super) fn print(of: &(impl Hash + ?Sized)) -> u128 {
    let mut hasher = Wide([0x243f_6a88_85a3_08d3, 0x1319_8a2e_0370_7344]);
    of.hash(&mut hasher);
    hasher.write_u64(0);
    let Wide([high, low]) = hasher;
    u128::from(high) << 64 | u128::from(low)
}

/// Two hashes at once, of different odd factors.
struct Wide([u64; 2]);

impl Hasher for Wide {
    fn finish(&self) -> u64 {
        self.0[0]
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word));
        }
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

    fn write_u64(&mut self, word: u64) {
        for (half, factor) in self.0.iter_mut().zip(FACTORS) {
            let wide = u128::from(*half ^ word) * u128::from(factor);
            *half = (wide as u64 ^ (wide >> 64) as u64).wrapping_add(word.rotate_left(23)) ^ factor.rotate_left(7);
        }
    }
}
