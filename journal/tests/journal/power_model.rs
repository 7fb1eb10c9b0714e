//! The model of a disk that the losses of power are tried on: what it takes for certain, and what it can leave. And the reading of
//! a trace, by hand-written ones.

use std::path::Path;

use crate::power_loss::content::{Kept, SECTOR};
use crate::power_loss::disk::{Disk, Tree};
use crate::power_loss::losses::losses;
use crate::power_loss::recording::{Moment, replay};
use crate::power_loss::strace;

/// What comes to the disk: changes by their number, sectors of them by theirs.
struct Only<'a> {
    changes: &'a [u64],
    sectors: Option<&'a [u64]>,
}

impl Kept for Only<'_> {
    fn sector(&self, change: u64, sector: u64) -> bool {
        self.changes.contains(&change) && self.sectors.is_none_or(|sectors| sectors.contains(&sector))
    }

    fn length(&self, change: u64) -> bool {
        self.changes.contains(&change)
    }

    fn name(&self, change: u64) -> bool {
        self.changes.contains(&change)
    }
}

fn only(changes: &[u64]) -> Only<'_> {
    Only { changes, sectors: None }
}

/// Replays lines of a trace whose paths are in clear, over an empty folder, and calls for each moment of loss.
fn replayed(lines: &[&str], mut look: impl FnMut(&Disk)) -> Vec<String> {
    let dir = tempfile::tempdir().unwrap();
    let (root, trace) = (dir.path().join("d"), dir.path().join("trace"));
    std::fs::create_dir(&root).unwrap();
    let escaped = |text: &str| text.bytes().map(|byte| format!("\\x{byte:02x}")).collect::<String>();
    let line = |line: &&str| {
        let mut parts = line.split('\'');
        let mut out = parts.next().unwrap().to_owned();
        while let (Some(text), Some(rest)) = (parts.next(), parts.next()) {
            out += &escaped(&text.replace("~", root.to_str().unwrap()));
            out += rest;
        }
        out + "\n"
    };
    std::fs::write(&trace, lines.iter().map(line).collect::<String>()).unwrap();
    let mut said = Vec::new();
    replay(&strace::read(&trace), &root, &mut Disk::load(&root), &mut |moment| match moment {
        Moment::Said(line) => said.push(line.to_owned()),
        Moment::Loss(disk) => look(disk),
    });
    said
}

/// What is left at the last moment when nothing uncertain has come to the disk, and when all of it has.
fn ends(lines: &[&str]) -> [Tree; 2] {
    let mut ends = [Tree::new(), Tree::new()];
    replayed(lines, |disk| ends = [disk.after(&only(&[])), disk.live()]);
    ends
}

fn file<'a>(tree: &'a Tree, name: &str) -> Option<&'a [u8]> {
    tree.get(Path::new(name)).map(|content| content.as_deref().unwrap_or_default())
}

const MAKE: &str = "7 openat(AT_FDCWD<'/'>, \"'~/a'\", O_RDWR|O_CREAT|O_CLOEXEC, 0600) = 3<'~/a'>";
const WRITE: &str = "7 write(3<'~/a'>, \"'hello'\", 5) = 5";
const FSYNC: &str = "7 fsync(3<'~/a'>) = 0";
const FDATASYNC: &str = "7 fdatasync(3<'~/a'>) = 0";
const FSYNC_FOLDER: &str = "7 fsync(4<'~'>) = 0";

#[test]
fn a_file_is_certain_by_its_own_sync_and_its_name_by_that_of_its_folder() {
    let none: Option<&[u8]> = None;
    for (lines, certain) in [
        (vec![MAKE, WRITE], none),
        (vec![MAKE, WRITE, FSYNC], none),
        (vec![MAKE, WRITE, FSYNC_FOLDER], Some(&b""[..])),
        (vec![MAKE, WRITE, FDATASYNC, FSYNC_FOLDER], Some(b"hello")),
        (vec![MAKE, WRITE, FSYNC, FSYNC_FOLDER], Some(b"hello")),
        (vec![MAKE, FSYNC, WRITE, FSYNC_FOLDER], Some(b"")),
        (vec![MAKE, WRITE, "7 fsync(3<'~/a'>) = -1 EIO (Input/output error)", FSYNC_FOLDER], Some(b"")),
        (
            vec![MAKE, WRITE, "7 fsync(3<'~/a'> <unfinished ...>", "7 +++ killed by SIGKILL +++", FSYNC_FOLDER],
            Some(b""),
        ),
    ] {
        let [nothing, all] = ends(&lines);
        assert_eq!(file(&nothing, "a"), certain, "{lines:?}");
        assert_eq!(file(&all, "a"), Some(&b"hello"[..]));
    }
}

#[test]
fn a_sync_covers_only_what_had_ended_before_it_began() {
    let begins = "8 fsync(3<'~/a'> <unfinished ...>";
    let ended = "8 <... fsync resumed>) = 0";
    let [nothing, _] = ends(&[MAKE, FSYNC_FOLDER, begins, WRITE, ended]);
    assert_eq!(file(&nothing, "a"), Some(&b""[..]));
    let (write_begins, write_ended) =
        ("7 write(3<'~/a'>, \"'hello'\", 5 <unfinished ...>", "7 <... write resumed>) = 5");
    let [nothing, _] = ends(&[MAKE, FSYNC_FOLDER, write_begins, begins, write_ended, ended]);
    assert_eq!(file(&nothing, "a"), Some(&b""[..]));
    let [nothing, _] = ends(&[MAKE, FSYNC_FOLDER, write_begins, write_ended, begins, ended]);
    assert_eq!(file(&nothing, "a"), Some(&b"hello"[..]));
}

#[test]
fn a_sync_of_data_promises_what_was_added_and_not_that_the_file_became_shorter() {
    let shorter = "7 ftruncate(3<'~/a'>, 2) = 0";
    let after = |sync| ends(&[MAKE, FSYNC_FOLDER, WRITE, FSYNC, shorter, sync])[0].clone();
    assert_eq!(file(&after(FDATASYNC), "a"), Some(&b"hello"[..]));
    assert_eq!(file(&after(FSYNC), "a"), Some(&b"he"[..]));
    let longer = "7 pwrite64(3<'~/a'>, \"'x'\", 1, 9) = 1";
    let [nothing, _] = ends(&[MAKE, FSYNC_FOLDER, longer, FDATASYNC]);
    assert_eq!(file(&nothing, "a"), Some(&b"\0\0\0\0\0\0\0\0\0x"[..]));
}

#[test]
fn each_sector_comes_alone_and_within_one_nothing_comes_before_what_was_there_earlier() {
    let long = format!("7 pwrite64(3<'~/a'>, \"'{}'\", 1024, 0) = 1024", "x".repeat(1024));
    // The lines are numbered from 0; this write is the third.
    let mut left = [Tree::new(), Tree::new()];
    replayed(&[MAKE, FSYNC_FOLDER, &long], |disk| {
        left = [0, 1].map(|sector| disk.after(&Only { changes: &[2], sectors: Some(&[sector]) }));
    });
    let half = usize::try_from(SECTOR).unwrap();
    assert_eq!(file(&left[0], "a"), Some(&[vec![b'x'; half], vec![0; half]].concat()[..]));
    assert_eq!(file(&left[1], "a"), Some(&[vec![0; half], vec![b'x'; half]].concat()[..]));
    let again = "7 pwrite64(3<'~/a'>, \"'HE'\", 2, 5) = 2";
    let mut seen = None;
    replayed(&[MAKE, FSYNC_FOLDER, WRITE, again], |disk| seen = Some(disk.after(&only(&[3]))));
    assert_eq!(file(&seen.unwrap(), "a"), Some(&b"helloHE"[..]), "both lie in one sector");
}

#[test]
fn a_rename_comes_as_one_and_the_sync_of_a_folder_speaks_for_no_other() {
    let rename = "7 rename(\"'~/a'\", \"'~/b'\") = 0";
    let [nothing, _] = ends(&[MAKE, WRITE, FSYNC, FSYNC_FOLDER, rename]);
    assert_eq!((file(&nothing, "a"), file(&nothing, "b")), (Some(&b"hello"[..]), None));
    let mut with = None;
    replayed(&[MAKE, WRITE, FSYNC, FSYNC_FOLDER, rename], |disk| with = Some(disk.after(&only(&[4]))));
    let with = with.unwrap();
    assert_eq!((file(&with, "a"), file(&with, "b")), (None, Some(&b"hello"[..])));

    let folder = ["7 mkdir(\"'~/f'\", 0700) = 0", FSYNC_FOLDER];
    let into = "7 rename(\"'~/a'\", \"'~/f/a'\") = 0";
    let there = "7 fsync(5<'~/f'>) = 0";
    for (synced, here, inside) in [
        (&[][..], true, false),
        (&[there][..], true, true),
        (&[there, FSYNC_FOLDER][..], false, true),
        (&[FSYNC_FOLDER][..], false, false),
    ] {
        let [nothing, all] = ends(&[&folder[..], &[MAKE, WRITE, FSYNC, FSYNC_FOLDER, into], synced].concat());
        let found = |tree: &Tree, name: &str| file(tree, name).is_some();
        assert_eq!([found(&nothing, "a"), found(&nothing, "f/a")], [here, inside], "{synced:?}");
        assert_eq!([found(&all, "a"), found(&all, "f/a")], [false, true]);
    }
}

#[test]
fn lines_to_a_pipe_are_what_the_program_says_and_other_calls_are_not_overlooked() {
    let said = replayed(
        &["7 write(1<'pipe:[12]'>, \"'one\ntwo\n'\", 8) = 8", "7 write(2<'pipe:[13]'>, \"'no'\", 2) = 2"],
        |_| {},
    );
    assert_eq!(said, ["one", "two"]);
    let unknown = "7 fallocate(3<'~/a'>, 0, 0, 100) = 0";
    assert!(std::panic::catch_unwind(|| replayed(&[MAKE, unknown], |_| {})).is_err());
    let elsewhere = "7 fallocate(3<'/elsewhere'>, 0, 0, 100) = 0";
    replayed(&[MAKE, elsewhere], |_| {});
}

#[test]
fn nothing_and_everything_are_always_tried_and_as_many_others_as_wanted() {
    let mut count = 0;
    let mut below = |limit: u64| {
        count += 1;
        count % limit
    };
    replayed(&[MAKE, WRITE, FSYNC_FOLDER, WRITE], |disk| {
        let (pending, live) = (disk.pending(), disk.live());
        let chosen = losses(&pending, None, 5, &mut below);
        let images: Vec<Tree> = chosen.iter().map(|loss| disk.after(loss)).collect();
        assert!(chosen.len() == 7 && images[0] == disk.after(&only(&[])) && images[1] == live, "{}", chosen.len());
        assert!(chosen[2..].iter().all(|loss| !loss.how.is_empty()));
    });
}
