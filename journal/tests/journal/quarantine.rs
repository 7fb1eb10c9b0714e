//! Putting a damaged journal aside: nothing of it is lost, and a new one begins.

use std::fs;

use journal::{Engine, Journal, OpenError, Opening, Quarantined, WriteAhead, quarantine};
use messages::{Epoch, Incarnation};

use crate::history::{History, opening, rows_of};

#[test]
fn a_damaged_journal_is_put_aside_whole_and_a_new_one_begins() {
    for engine in Engine::ALL {
        let dir = tempfile::tempdir().unwrap();
        let (journal, _) = Journal::open_as(dir.path(), &opening(), engine).unwrap();
        let mut history = History::new(5);
        for _ in 0..20 {
            journal.commit(WriteAhead::new(history.step(), ())).wait().unwrap();
        }
        let refused = quarantine(dir.path()).unwrap_err();
        assert!(matches!(refused, OpenError::Locked { .. }), "while it is open it stays: {refused:?}");
        drop(journal);
        let mark = fs::read(dir.path().join("high-water")).unwrap();
        fs::write(dir.path().join("high-water"), "damaged").unwrap();
        Journal::open(dir.path(), &opening()).err().expect("it must not open");

        let kept = dir.path().join("damaged-1");
        let moved = vec!["store", "high-water", "tail"];
        assert_eq!(quarantine(dir.path()).unwrap(), Some(Quarantined { kept: kept.clone(), moved }));
        let fresh = Opening { incarnation: Incarnation::from_u128(0xf), ..opening() };
        let (journal, state) = Journal::open_as(dir.path(), &fresh, engine).unwrap();
        assert!(state.peers.is_empty());
        assert_eq!((journal.meta().incarnation, journal.meta().epoch), (fresh.incarnation, Epoch::FIRST));
        drop(journal);
        assert_eq!(quarantine(dir.path()).unwrap().unwrap().kept, dir.path().join("damaged-2"));
        assert_eq!(quarantine(dir.path()).unwrap(), None, "there is nothing left");

        // With its mark mended, what was put aside is the journal that it was.
        fs::write(kept.join("high-water"), mark).unwrap();
        let (journal, _) = Journal::open(&kept, &opening()).unwrap();
        assert!(rows_of(journal.store()).unwrap() == history.rows);
    }
}

#[test]
fn a_quarantine_that_was_cut_off_does_not_let_a_new_journal_begin() {
    let dir = tempfile::tempdir().unwrap();
    drop(Journal::open(dir.path(), &opening()).unwrap());
    // The store is moved first, and then the power is lost.
    fs::rename(dir.path().join("store"), dir.path().join("elsewhere")).unwrap();
    let refused = Journal::open(dir.path(), &opening()).err().unwrap();
    assert!(matches!(refused, OpenError::Shorter { .. }), "{refused:?}");
    quarantine(dir.path()).unwrap().expect("the marks and the store that was just made are moved, too");
    Journal::open(dir.path(), &opening()).unwrap();
    assert_eq!(quarantine(&dir.path().join("nowhere")).unwrap(), None);
}
