//! The worlds that were visited: of each a fingerprint of 96 bits, how it was first reached, and one way on without a fault. Nothing
//! else is kept of a world: 20 bytes, and 6 to 12 in the table by which it is found. It never forgets one.
//!
//! Two worlds of one fingerprint are taken for one. Of a thousand million different ones some two meet with a probability of
//! about 10^-11: half of (10^9)^2, divided by 2^96.

/// The number of a visited world, in the order of visits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct At(pub(super) u32);

impl At {
    /// None.
    pub(super) const NOWHERE: Self = Self(u32::MAX);
}

/// Every visited world.
#[derive(Debug)]
pub(super) struct Visited {
    /// An open table of numbers, with as many places as a power of two.
    slots: Vec<u32>,
    /// Of the fingerprint of each 64 bits, and the 32 that say where it is looked for.
    prints: Vec<u64>,
    homes: Vec<u32>,
    /// From which world each was first reached.
    from: Vec<At>,
    /// One way on without a fault. The world itself, where nothing is left to wish for.
    on: Vec<At>,
}

const FREE: u32 = u32::MAX;
/// Places to begin with.
const SLOTS: usize = 1 << 16;

impl Visited {
    pub(super) fn new() -> Self {
        Self { slots: vec![FREE; SLOTS], prints: Vec::new(), homes: Vec::new(), from: Vec::new(), on: Vec::new() }
    }

    pub(super) const fn len(&self) -> usize {
        self.prints.len()
    }

    /// The world with that fingerprint, or the place at which it belongs.
    pub(super) fn find(&self, print: [u64; 2]) -> Result<At, usize> {
        let mask = self.slots.len() - 1;
        let mut slot = print[0] as u32 as usize & mask;
        loop {
            match self.slots[slot] {
                FREE => return Err(slot),
                at if self.prints[at as usize] == print[1] && self.homes[at as usize] == print[0] as u32 => {
                    return Ok(At(at));
                }
                _ => slot = (slot + 1) & mask,
            }
        }
    }

    /// Adds a world at the place that [`Self::find`] just gave for it; nothing where there is no number left for it.
    pub(super) fn add(&mut self, slot: usize, print: [u64; 2], from: At) -> Option<At> {
        let number = u32::try_from(self.prints.len()).ok().filter(|number| *number < FREE)?;
        self.slots[slot] = number;
        self.prints.push(print[1]);
        self.homes.push(print[0] as u32);
        self.from.push(from);
        self.on.push(At::NOWHERE);
        // Beyond two thirds an open table becomes slow.
        if self.prints.len() * 3 > self.slots.len() * 2 {
            self.grow();
        }
        Some(At(number))
    }

    fn grow(&mut self) {
        let mask = self.slots.len() * 2 - 1;
        self.slots = Vec::new();
        self.slots.resize(mask + 1, FREE);
        for (number, home) in (0_u32..).zip(&self.homes) {
            let mut slot = *home as usize & mask;
            while self.slots[slot] != FREE {
                slot = (slot + 1) & mask;
            }
            self.slots[slot] = number;
        }
    }

    /// Whether the world of that number has that fingerprint.
    pub(super) fn is(&self, at: At, print: [u64; 2]) -> bool {
        self.prints[at.0 as usize] == print[1] && self.homes[at.0 as usize] == print[0] as u32
    }

    pub(super) fn from(&self, at: At) -> At {
        self.from[at.0 as usize]
    }

    pub(super) fn go_on(&mut self, at: At, to: At) {
        self.on[at.0 as usize] = to;
    }

    pub(super) fn is_end(&self, at: At) -> bool {
        self.on[at.0 as usize] == at
    }

    /// For each world, whether its one way on leads to one that leads to itself, and on and on.
    pub(super) fn saved(&self) -> Vec<bool> {
        const OPEN: u8 = 0;
        const UNDER_WAY: u8 = 1;
        const SAVED: u8 = 2;
        const LOST: u8 = 3;
        let mut fate = vec![OPEN; self.len()];
        let mut path = Vec::new();
        for first in 0..self.len() {
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
        }
        fate.into_iter().map(|fate| fate == SAVED).collect()
    }
}
