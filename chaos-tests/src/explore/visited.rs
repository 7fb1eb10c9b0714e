//! The worlds that were visited: of each 64 bits of a fingerprint, at a place that the other 64 choose. Nothing else of a world stays in
//! memory: 9 bytes. It never forgets one, and never grows: whoever fills it begins again with a larger one.
//!
//! Two worlds with the same 64 bits are taken for one if their places are in one stretch of taken places, of which a full table has some
//! thirty in a row. For a thousand million worlds that happens with a probability of about 10^-9: 10^9 times 30, divided by 2^64.

/// The place of a visited world.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct At(pub(super) u32);

impl At {
    /// None.
    pub(super) const NOWHERE: Self = Self(u32::MAX);
    /// From there an end can be reached, or not: no places, but what is known of one.
    const SAVED: Self = Self(u32::MAX - 1);
    const LOST: Self = Self(u32::MAX - 2);
}

/// Every visited world.
#[derive(Debug)]
pub(super) struct Visited {
    /// An open table of halves of fingerprints.
    prints: Vec<u64>,
    len: usize,
    room: usize,
}

/// Where nothing is. A fingerprint that is this is taken for the next one.
const FREE: u64 = 0;

impl Visited {
    /// Room for so many worlds, and no more than have numbers.
    pub(super) fn new(room: usize) -> Self {
        // Beyond seven eighths an open table becomes slow.
        let places = (room.saturating_add(room / 7).saturating_add(16)).min(At::LOST.0 as usize);
        // Memory that nothing was written to is not taken.
        Self { prints: vec![FREE; places], len: 0, room: room.min(places - places / 8) }
    }

    pub(super) const fn places(&self) -> usize {
        self.prints.len()
    }

    /// The world with that fingerprint, or the place at which it belongs.
    pub(super) fn find(&self, print: [u64; 2]) -> Result<At, usize> {
        let wanted = kept(print);
        let scaled = u128::from(print[0]) * self.prints.len() as u128;
        let mut place = (scaled >> 64) as usize;
        loop {
            match self.prints[place] {
                FREE => return Err(place),
                print if print == wanted => return Ok(At(place as u32)),
                _ => place = if place + 1 == self.prints.len() { 0 } else { place + 1 },
            }
        }
    }

    /// Adds a world at the place that [`Self::find`] just gave for it; nothing where there is no room for it.
    pub(super) fn add(&mut self, place: usize, print: [u64; 2]) -> Option<At> {
        if self.len == self.room {
            return None;
        }
        self.prints[place] = kept(print);
        self.len += 1;
        Some(At(place as u32))
    }

    /// Whether the world at that place is the one of that fingerprint.
    pub(super) fn is(&self, at: At, print: [u64; 2]) -> bool {
        self.find(print) == Ok(at)
    }

    /// The worlds whose one way on without a fault does not lead to one that leads to itself, and on and on. `on` has the way of each place.
    pub(super) fn lost(&self, mut on: Vec<At>) -> Vec<At> {
        let (mut path, mut lost) = (Vec::new(), Vec::new());
        for first in (0..self.prints.len()).filter(|place| self.prints[*place] != FREE) {
            let mut at = first;
            let found = loop {
                let next = on[at];
                match next {
                    At::SAVED | At::LOST => break next,
                    // There is none, or it is this very path: it goes round in a circle.
                    At::NOWHERE => break At::LOST,
                    At(next) if next as usize == at => break At::SAVED,
                    At(next) => {
                        on[at] = At::NOWHERE;
                        path.push(at);
                        at = next as usize;
                    }
                }
            };
            on[at] = found;
            for at in path.drain(..) {
                on[at] = found;
            }
            if found == At::LOST {
                lost.push(At(first as u32));
            }
        }
        lost
    }
}

/// The half of a fingerprint that is kept.
const fn kept(print: [u64; 2]) -> u64 {
    if print[1] == FREE { FREE + 1 } else { print[1] }
}
