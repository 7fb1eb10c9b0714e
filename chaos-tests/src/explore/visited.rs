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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// Fingerprints that all want the last place of a table.
    fn last(number: u64) -> [u64; 2] {
        [u64::MAX, number]
    }

    fn add(visited: &mut Visited, print: [u64; 2]) -> At {
        let place = visited.find(print).unwrap_err();
        visited.add(place, print).unwrap()
    }

    #[test]
    fn a_table_is_filled_to_its_room_and_finds_each_again_beyond_its_end() {
        let mut visited = Visited::new(40);
        let places: Vec<At> = (1..=40).map(|number| add(&mut visited, last(number))).collect();
        assert_eq!(places[0].0 as usize, visited.places() - 1);
        assert_eq!(places[1].0, 0, "what finds the end taken goes on at the beginning");
        for (number, at) in (1..).zip(&places) {
            assert_eq!(visited.find(last(number)), Ok(*at));
        }
        assert_eq!(visited.find(last(0)), Ok(places[0]), "nothing is kept as a free place");
        let one_more = last(77);
        let place = visited.find(one_more).unwrap_err();
        assert_eq!(visited.add(place, one_more), None);
    }

    #[test]
    fn lost_are_those_whose_ways_go_round_or_end_before_an_end() {
        let mut visited = Visited::new(40);
        let at: Vec<At> = (1..=8).map(|number| add(&mut visited, [number << 60, number])).collect();
        let mut on = vec![At::NOWHERE; visited.places()];
        // 0 is an end, 1 and 2 lead there; 3 and 4 go round, 5 leads to them; 6 leads nowhere, 7 leads to 6.
        for (from, to) in [(0, 0), (1, 0), (2, 1), (3, 4), (4, 3), (5, 4), (7, 6)] {
            on[at[from].0 as usize] = at[to];
        }
        let mut lost = visited.lost(on);
        lost.sort_unstable();
        let mut expected = vec![at[3], at[4], at[5], at[6], at[7]];
        expected.sort_unstable();
        assert_eq!(lost, expected);
    }
}
