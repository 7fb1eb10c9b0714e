//! What a disk may hold after a loss of power: files as they were synced, and any part of what was written since. It makes
//! such images; it does not judge them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::history::Random;

/// A disk writes this whole or not at all.
const SECTOR: usize = 512;
/// The kernel writes no more than this at a time where it matters.
const PAGE: usize = 4_096;

/// Writes of which every subset is tried.
const EXHAUSTIVE: usize = 4;
/// Prefixes, torn prefixes and subsets that are tried of a longer tail, of each as many.
const OF_EACH: usize = 8;

/// Files by their path below a folder.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Files(BTreeMap<PathBuf, Vec<u8>>);

impl Files {
    pub(crate) fn read(dir: &Path) -> Self {
        let mut files = Self::default();
        let mut folders = vec![dir.to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
                if entry.file_type().unwrap().is_dir() {
                    folders.push(entry.path());
                } else {
                    let name = entry.path().strip_prefix(dir).unwrap().to_owned();
                    files.0.insert(name, fs::read(entry.path()).unwrap());
                }
            }
        }
        files
    }

    pub(crate) fn write(&self, dir: &Path) {
        for (name, bytes) in &self.0 {
            let path = dir.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
    }

    /// Puts bytes where they belong; what lies before them and was never written is zeros.
    fn put(&mut self, write: &Extent) {
        let file = self.0.entry(write.file.clone()).or_default();
        let end = write.offset + write.bytes.len();
        if file.len() < end {
            file.resize(end, 0);
        }
        file[write.offset..end].copy_from_slice(&write.bytes);
    }
}

/// Bytes written to one place of one file since the last sync, at most a page.
#[derive(Debug, Clone)]
pub(crate) struct Extent {
    file: PathBuf,
    offset: usize,
    bytes: Vec<u8>,
}

/// The difference between two states of the files, in sectors that follow each other within one page.
fn extents(before: &Files, after: &Files) -> Vec<Extent> {
    let mut found: Vec<Extent> = Vec::new();
    for (file, new) in &after.0 {
        let old = before.0.get(file).map_or(&[][..], Vec::as_slice);
        for (number, sector) in new.chunks(SECTOR).enumerate() {
            let offset = number * SECTOR;
            if old.get(offset..offset + sector.len()) == Some(sector) {
                continue;
            }
            // Zeros behind the old end are what is there without any write; that the file is longer is tried apart.
            if offset >= old.len() && sector.iter().all(|byte| *byte == 0) {
                continue;
            }
            match found.last_mut() {
                Some(last)
                    if last.file == *file
                        && last.offset + last.bytes.len() == offset
                        && !offset.is_multiple_of(PAGE) =>
                {
                    last.bytes.extend_from_slice(sector);
                }
                _ => found.push(Extent { file: file.clone(), offset, bytes: sector.to_vec() }),
            }
        }
    }
    found
}

/// Images of the disk between two syncs, none of them twice, the first without anything new. The last is what was synced: there
/// alone files are gone or shorter, because an engine removes only what it has made superfluous and synced before.
pub(crate) fn images(before: &Files, after: &Files, random: &mut Random) -> Vec<Files> {
    let extents = extents(before, after);
    let mut chosen: Vec<Vec<Extent>> = Vec::new();
    let count = extents.len();
    let some = |random: &mut Random| usize::try_from(random.below(count as u64 + 1)).unwrap();
    let every = count <= OF_EACH;
    for place in 0..if every { count } else { OF_EACH } {
        let place = if every { place } else { some(random) };
        chosen.push(extents[..place].to_vec());
        // Of the next one a part: whole sectors of it.
        if let Some(torn) = extents.get(place).filter(|extent| extent.bytes.len() > SECTOR) {
            let sectors = 1 + random.below((torn.bytes.len() / SECTOR).max(2) as u64 - 1);
            let bytes = torn.bytes[..usize::try_from(sectors).unwrap() * SECTOR].to_vec();
            chosen.push([&extents[..place], &[Extent { bytes, ..torn.clone() }]].concat());
        }
    }
    let subsets = if count <= EXHAUSTIVE { 1_u64 << count } else { OF_EACH as u64 };
    for number in 0..subsets {
        let mask = if count <= EXHAUSTIVE { number } else { random.next() };
        let taken = |place: &usize| mask >> (place % 64) & 1 == 1;
        chosen.push((0..count).filter(taken).map(|place| extents[place].clone()).collect());
    }
    let mut images = vec![before.clone()];
    for writes in chosen {
        let mut image = before.clone();
        writes.iter().for_each(|write| image.put(write));
        if random.below(3) == 0 {
            lengths(&mut image, after);
        }
        if !images.contains(&image) && image != *after {
            images.push(image);
        }
    }
    images.push(after.clone());
    images
}

/// The length of a file may have come to the disk before what is in it.
fn lengths(image: &mut Files, after: &Files) {
    for (file, new) in &after.0 {
        let bytes = image.0.entry(file.clone()).or_default();
        if bytes.len() < new.len() {
            bytes.resize(new.len(), 0);
        }
    }
}
