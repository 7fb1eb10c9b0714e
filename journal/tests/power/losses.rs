//! Which losses are tried: of the changes that may be lost nothing, everything, every beginning, torn ones, and any others. It
//! chooses by numbers that it is given, and looks into no file.

use std::collections::BTreeSet;

use super::content::Kept;
use super::disk::Pending;

/// Changes from which on not every beginning is tried, but as many by chance.
const BEGINNINGS: usize = 12;

/// Sectors of a page: the kernel writes no more than this at a time where it matters.
const PAGE_SECTORS: u64 = 8;

/// What has come to the disk.
type Which = Box<dyn Fn(u64, u64) -> bool>;

/// One loss of power.
pub(crate) struct Loss {
    /// In words.
    pub(crate) how: String,
    sector: Which,
    length: Which,
    name: Which,
}

impl Loss {
    /// The same, with the names of each folder in the order in which they changed, as a file system with a journal keeps them: the
    /// first that is lost takes those after it along.
    pub(crate) fn with_names_in_order(self, pending: &[Pending]) -> Self {
        let names = || pending.iter().filter(|pending| pending.folder.is_some());
        let kept: BTreeSet<u64> = names()
            .filter(|change| {
                let before = names().filter(|other| other.folder == change.folder && other.change <= change.change);
                before.into_iter().all(|other| self.name(other.change))
            })
            .map(|change| change.change)
            .collect();
        Self { name: Box::new(move |change, _| kept.contains(&change)), ..self }
    }
}

impl Kept for Loss {
    fn sector(&self, change: u64, sector: u64) -> bool {
        (self.sector)(change, sector)
    }

    fn length(&self, change: u64) -> bool {
        (self.length)(change, 0)
    }

    fn name(&self, change: u64) -> bool {
        (self.name)(change, 0)
    }
}

fn loss<F: Fn(u64) -> bool + Clone + 'static>(how: String, kept: F) -> Loss {
    let (sector, length, name) = (kept.clone(), kept.clone(), kept);
    Loss {
        how,
        sector: Box::new(move |change, _| sector(change)),
        length: Box::new(move |change, _| length(change)),
        name: Box::new(move |change, _| name(change)),
    }
}

/// A coin for each of many things, the same one each time it is looked at.
fn coin(seed: u64, change: u64, part: u64) -> bool {
    let mut mixed = seed ^ change.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ part.wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (mixed >> 33) & 1 == 1
}

/// Losses of what may be lost: first nothing and everything, then at most that many others. Changes after `since` are new since
/// the last moment that was looked at, and are looked at more closely.
pub(crate) fn losses(
    pending: &[Pending],
    since: Option<u64>,
    others: usize,
    below: &mut dyn FnMut(u64) -> u64,
) -> Vec<Loss> {
    let mut losses = vec![loss("nothing of it".to_owned(), |_| false)];
    if pending.is_empty() {
        return losses;
    }
    losses.push(loss("all of it".to_owned(), |_| true));
    let mut chosen: Vec<Loss> = Vec::new();
    let new: Vec<&Pending> = pending.iter().filter(|pending| Some(pending.change) > since).collect();
    for place in 0..new.len() {
        let change = new[place].change;
        if new.len() > BEGINNINGS && below(new.len() as u64) >= BEGINNINGS as u64 {
            continue;
        }
        let what = &new[place].what;
        chosen.push(loss(format!("all before [{what}]"), move |id| id < change));
        chosen.push(loss(format!("all from [{what}] on"), move |id| id >= change));
        chosen.push(loss(format!("only [{what}]"), move |id| id == change));
        chosen.push(loss(format!("all but [{what}]"), move |id| id != change));
        if let Some((first, last)) = new[place].sectors.filter(|(first, last)| first < last) {
            chosen.extend(torn(what, change, first + 1 + below(last - first), below));
        }
    }
    let seed = below(u64::MAX);
    chosen.push(loss("any of it".to_owned(), move |id| coin(seed, id, 0)));
    chosen.extend(by_kind(below(u64::MAX)));
    // A draw without putting back.
    while !chosen.is_empty() && losses.len() < 2 + others {
        let place = usize::try_from(below(chosen.len() as u64)).unwrap();
        losses.push(chosen.swap_remove(place));
    }
    losses
}

/// A write of which some sectors are there, with everything before it, and with everything after it.
fn torn(what: &str, change: u64, middle: u64, below: &mut dyn FnMut(u64) -> u64) -> [Loss; 4] {
    let seed = below(u64::MAX);
    let cut = |how: &str, later: bool, there: Which| {
        let whole = move |id: u64| id < change || (later && id > change);
        let with = loss(format!("[{what}] torn: {how}{}", if later { ", and all after it" } else { "" }), whole);
        // The length says nothing about what is there.
        let long = below_coin(seed, change);
        Loss {
            sector: Box::new(move |id, sector| if id == change { there(id, sector) } else { whole(id) }),
            length: Box::new(move |id, _| if id == change { long } else { whole(id) }),
            ..with
        }
    };
    [
        cut("its beginning", false, Box::new(move |_, sector| sector < middle)),
        cut("its end", false, Box::new(move |_, sector| sector >= middle)),
        cut("some pages", true, Box::new(move |id, sector| coin(seed, id, sector / PAGE_SECTORS))),
        cut("some sectors", true, Box::new(move |id, sector| coin(seed, id, sector))),
    ]
}

/// Mostly so.
fn below_coin(seed: u64, change: u64) -> bool {
    coin(seed, change, 1) || coin(seed, change, 2)
}

/// Names without what is in them, and the other way round; pages and sectors by chance.
fn by_kind(seed: u64) -> Vec<Loss> {
    let never = || -> Which { Box::new(|_, _| false) };
    let always = || -> Which { Box::new(|_, _| true) };
    let some = || -> Which { Box::new(move |id, _| coin(seed, id, 0)) };
    let kinds: [(&str, Which, Which, Which); 6] = [
        ("names without content", never(), never(), always()),
        ("content without names", always(), always(), never()),
        ("names and lengths without content", never(), always(), always()),
        ("content without lengths", always(), never(), some()),
        ("any pages", Box::new(move |id, sector| coin(seed, id, sector / PAGE_SECTORS)), some(), some()),
        ("any sectors", Box::new(move |id, sector| coin(seed, id, sector)), some(), some()),
    ];
    kinds.into_iter().map(|(how, sector, length, name)| Loss { how: how.to_owned(), sector, length, name }).collect()
}
