//! Damage at rest: one fault in one file of a journal that nobody has open. It says what it did, so that a failure can be
//! understood; it never looks into what it damages.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::plan::Fault;
use super::random::Random;

const PAGE: usize = 4_096;

/// Every file below a folder, in the order of their names.
pub(super) fn files(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() { folders.push(entry.path()) } else { found.push(entry.path()) }
        }
    }
    found.sort();
    Ok(found)
}

/// Damages one file, chosen by chance, the large ones more often. Says what was done.
pub(super) fn damage(dir: &Path, fault: Fault, random: &mut Random) -> io::Result<String> {
    let files = files(dir)?;
    let chosen = choose(&files, fault, random)?;
    let good = fs::read(&chosen)?;
    let mut bad = good.clone();
    // Engines write zeros ahead of what they hold; damage to those would be none.
    let held = good.iter().rposition(|byte| *byte != 0).map_or(good.len(), |last| last + 1);
    let how = match fault {
        Fault::MissingFile => {
            fs::remove_file(&chosen)?;
            "removed".to_owned()
        }
        Fault::UnreadableFile => {
            fs::remove_file(&chosen)?;
            fs::create_dir(&chosen)?;
            "replaced by a folder".to_owned()
        }
        Fault::FlippedBit => {
            let (place, bit) = (random.index(held), random.below(8));
            bad[place] ^= 1 << bit;
            format!("bit {bit} of byte {place} flipped")
        }
        Fault::CutTail => {
            // Half of them lose less than a page, the others anything.
            let most = if random.below(2) == 0 { held.min(PAGE) } else { held };
            let lost = good.len() - held + 1 + random.index(most);
            bad.truncate(good.len() - lost);
            format!("the last {lost} bytes cut off")
        }
        Fault::ZeroedPage => {
            let page = page(random.index(pages(&good[..held])), &good);
            bad[page.clone()].fill(0);
            format!("bytes {} to {} zeroed", page.start, page.end)
        }
        _ => misplace(&good, held, &mut bad, random),
    };
    if chosen.is_file() && bad != good {
        fs::write(&chosen, &bad)?;
    }
    let name = chosen.strip_prefix(dir).unwrap_or(&chosen).display();
    let nothing = if chosen.is_file() && bad == good { ", which changed nothing" } else { "" };
    Ok(format!("{name}, {} bytes: {how}{nothing}", good.len()))
}

/// The file to damage. Two in three times one of the largest, where nearly everything is.
fn choose(files: &[PathBuf], fault: Fault, random: &mut Random) -> io::Result<PathBuf> {
    let mut sized = Vec::new();
    for file in files {
        sized.push((fs::metadata(file)?.len(), file.clone()));
    }
    if !matches!(fault, Fault::MissingFile | Fault::UnreadableFile) {
        sized.retain(|(length, _)| *length > 0);
        if fault == Fault::MisplacedPage {
            sized.retain(|(length, _)| *length > PAGE as u64);
        }
        if random.below(3) > 0 {
            sized.sort();
            sized.drain(..sized.len().saturating_sub(2));
        }
    }
    if sized.is_empty() {
        return Err(io::Error::new(
            io::ErrorKind::NotFound,
            "the journal has no file that the fault could be put into",
        ));
    }
    Ok(sized.swap_remove(random.index(sized.len())).1)
}

fn pages(bytes: &[u8]) -> usize {
    bytes.len().div_ceil(PAGE)
}

fn page(number: usize, bytes: &[u8]) -> std::ops::Range<usize> {
    number * PAGE..bytes.len().min((number + 1) * PAGE)
}

/// Writes one page in the place of another; every second time that other in its place.
fn misplace(good: &[u8], held: usize, bad: &mut [u8], random: &mut Random) -> String {
    let whole = pages(&good[..held]).min(good.len() / PAGE);
    let (from, to) = (random.index(whole), random.index(whole));
    bad[page(to, good)].copy_from_slice(&good[page(from, good)]);
    if random.below(2) == 0 {
        return format!("page {from} also in the place of page {to}");
    }
    bad[page(from, good)].copy_from_slice(&good[page(to, good)]);
    format!("pages {from} and {to} swapped")
}

/// Copies a folder with everything in it.
pub(super) fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
