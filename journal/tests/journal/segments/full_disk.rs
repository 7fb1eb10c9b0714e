//! A disk that fills up, a real one: a small file system in memory, which only root can mount.

use std::fs;
use std::path::Path;
use std::process::Command;

use journal::{Engine, Journal, SegmentStore, Store, WriteAhead, put_app};
use tempfile::TempDir;

use super::{commit, put, rows};
use crate::history::opening;

/// A small disk; dropping it unmounts it.
struct Disk(TempDir);

impl Disk {
    fn mount(bytes: u32) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new("mount");
        command.args(["-t", "tmpfs", "-o", &format!("size={bytes}"), "journal-test"]).arg(dir.path());
        match command.output() {
            Ok(output) if output.status.success() => Some(Self(dir)),
            Ok(_) | Err(_) => {
                println!("skipped: no file system can be mounted here; run the tests as root to include this one");
                None
            }
        }
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("--lazy").arg(self.0.path()).status();
        assert!(unmounted.is_ok_and(|status| status.success()), "{:?} stays mounted", self.0.path());
    }
}

#[test]
fn a_full_disk_ends_the_store_and_nothing_that_was_synced_is_lost() {
    let Some(disk) = Disk::mount(512 * 1024) else { return };
    let dir = disk.path().join("store");
    for length in [100, 5_000, 70_000] {
        let ballast = disk.path().join("ballast");
        fs::write(&ballast, vec![0; 100 * 1024]).unwrap();
        let store = SegmentStore::open(&dir).unwrap();
        let mut synced = rows(&store);
        let mut number = 0_u64;
        let failed = loop {
            number += 1;
            let batch = put(&number.to_be_bytes(), &vec![7; length]);
            if let Err(error) = store.apply(&batch).and_then(|()| store.sync()) {
                break error;
            }
            synced = rows(&store);
        };
        let journal::StoreError::Io { source, .. } = failed else { panic!("{failed:?}") };
        assert_eq!(source.kind(), std::io::ErrorKind::StorageFull);
        // Even when there is space again: what was half-written is not gone on with.
        fs::remove_file(&ballast).unwrap();
        assert!(store.apply(&put(b"k", b"")).is_err() && store.sync().is_err());
        assert!(rows(&store) == synced, "it can still be read");
        drop(store);
        let store = SegmentStore::open(&dir).unwrap();
        assert!(rows(&store) == synced);
        commit(&store, &put(b"more", b"x"));
        drop(store);
        fs::remove_dir_all(&dir).unwrap();
    }
}

#[test]
fn a_journal_on_a_disk_that_was_full_goes_on_with_all_that_it_acknowledged() {
    let Some(disk) = Disk::mount(512 * 1024) else { return };
    let dir = disk.path().join("journal");
    let (journal, _) = Journal::open_as(&dir, &opening(), Engine::Segments).unwrap();
    let mut acknowledged = 0_u64;
    let note = |number: u64| WriteAhead::new(vec![put_app(number.to_be_bytes().to_vec(), vec![1; 3_000])], ());
    while journal.commit(note(acknowledged)).wait().is_ok() {
        acknowledged += 1;
    }
    drop(journal);
    assert!(Journal::open(&dir, &opening()).is_err() || acknowledged > 0);
    // Whatever the full disk left: once there is space, everything acknowledged is there.
    let grown = Command::new("mount").args(["-o", "remount,size=2097152"]).arg(disk.path()).status().unwrap();
    assert!(grown.success());
    let (journal, _) = Journal::open(&dir, &opening()).unwrap();
    let mut found = 0;
    journal.app_rows(b"", &mut |_, _| found += 1).unwrap();
    assert_eq!(found, acknowledged);
    journal.commit(note(acknowledged)).wait().unwrap();
}

#[test]
fn a_disk_without_space_for_zeros_takes_frames_until_it_is_full() {
    let Some(disk) = Disk::mount(512 * 1024) else { return };
    let dir = disk.path().join("store");
    let store = SegmentStore::open(&dir).unwrap();
    // Less than the first zeros take; a page for each file is taken already.
    fs::write(disk.path().join("ballast"), vec![0; 472 * 1024]).unwrap();
    for number in 0..60_u8 {
        commit(&store, &put(&[number], &[number; 300]));
    }
    let synced = rows(&store);
    drop(store);
    assert!(rows(&SegmentStore::open(&dir).unwrap()) == synced);
}
