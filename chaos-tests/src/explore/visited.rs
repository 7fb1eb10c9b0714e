//! The worlds that were visited: of each 64 bits of a fingerprint, at a place that the other 64 choose, and one way on without a fault.
//! Nothing else of a world stays in memory: 14 bytes. It never forgets one, and never grows: whoever fills it begins again with
//! a larger one.
//!
//! Two worlds with the same 64 bits are taken for one if their places are in one stretch of taken places, of which a full table has some
//! thirty in a row. For a thousand million worlds that happens with a probability of about 10^-9: 10^9 times 30, divided by 2^64.

/// The place of a visited world.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct At(pub(super) u32);

impl At {
    /// None.
    pub(super) const NOWHERE: Self = Self(u32::MAX);
}

/// Every visited world.
#[derive(Debug)]
pub(super) struct Visited {
    /// An open table of halves of fingerprints.
    prints: Vec<u64>,
    /// One way on without a fault. The world itself, where nothing is left to wish for.
    on: Vec<At>,
    len: usize,
    room: usize,
}

/// Where nothing is. A fingerprint that is this is taken for the next one.
const FREE: u64 = 0;

impl Visited {
    /// Room for so many worlds, and no more than have numbers.
    pub(super) fn new(room: usize) -> Self {
        // Beyond seven eighths an open table becomes slow.
        let places = (room.saturating_add(room / 7).saturating_add(16)).min(u32::MAX as usize);
        // Memory that nothing was written to is not taken.
        Self { prints: vec![FREE; places], on: vec![At(0); places], len: 0, room: room.min(places - places / 8) }
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
        let at = At(place as u32);
        // Nothing is known yet; that no way on was noted is told by one to nowhere.
        self.on[place] = At::NOWHERE;
        self.len += 1;
        Some(at)
    }

    /// Whether the world at that place is the one of that fingerprint.
    pub(super) fn is(&self, at: At, print: [u64; 2]) -> bool {
        self.find(print) == Ok(at)
    }

    pub(super) fn go_on(&mut self, at: At, to: At) {
        self.on[at.0 as usize] = to;
    }

    pub(super) fn is_end(&self, at: At) -> bool {
        self.on[at.0 as usize] == at
    }

    /// The worlds whose one way on does not lead to one that leads to itself, and on and on.
    pub(super) fn lost(&self) -> Vec<At> {
        const OPEN: u8 = 0;
        const UNDER_WAY: u8 = 1;
        const SAVED: u8 = 2;
        const LOST: u8 = 3;
        let mut fate = vec![OPEN; self.prints.len()];
        let (mut path, mut lost) = (Vec::new(), Vec::new());
        for first in (0..self.prints.len()).filter(|place| self.prints[*place] != FREE) {
            let mut at = first;
            let found = loop {
                match fate[at] {
                    OPEN => {}
                    UNDER_WAY => break LOST,
                    known => break known,
                }
                let on = self.on[at];
                if on == At::NOWHERE {
                    break LOST;
                }
                if on.0 as usize == at {
                    break SAVED;
                }
                fate[at] = UNDER_WAY;
                path.push(at);
                at = on.0 as usize;
            };
            fate[at] = if fate[at] == OPEN { found } else { fate[at] };
            for at in path.drain(..) {
                fate[at] = found;
            }
            if fate[first] == LOST {
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
