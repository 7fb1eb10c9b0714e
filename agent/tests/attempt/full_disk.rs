//! A disk that is really full. Needs root, to mount a small file system of its own; says so when it cannot.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use agent::attempt::{AttemptEnd, AttemptState, PrepareError, boot_id};

use crate::support::{Place, ended, hear, let_go, prepare, shim};

pub(crate) const TESTS: [(&str, fn()); 3] = [
    ("a_disk_that_fills_up_under_a_step_still_takes_the_record_of_its_end", fills_up),
    ("a_disk_that_is_full_before_the_step_begins_still_takes_both_records", full_before),
    ("a_full_disk_refuses_to_prepare_an_attempt", refuses),
];

/// A small file system in memory, mounted until dropped.
struct SmallDisk {
    mounted_at: PathBuf,
}

impl SmallDisk {
    fn mount(place: &Place, test: &str) -> Option<Self> {
        let mounted_at = place.path("small");
        fs::create_dir(&mounted_at).unwrap();
        let done = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=256k", "tmpfs"])
            .arg(&mounted_at)
            .output()
            .is_ok_and(|output| output.status.success());
        if !done {
            eprintln!("skipped: {test} needs the right to mount a tmpfs; run it as root");
            return None;
        }
        Some(Self { mounted_at })
    }

    fn fill(&self) {
        fill(&self.mounted_at.join("filler"));
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a shim lets go of its lock a moment before its other files.
        let _ = Command::new("umount").arg("-l").arg(&self.mounted_at).status();
    }
}

fn fill(path: &Path) {
    let mut file = File::create(path).unwrap();
    while file.write_all(&[1; 512]).is_ok() {}
}

fn fills_up() {
    let place = Place::new();
    let Some(disk) = SmallDisk::mount(&place, "a disk that fills up") else { return };
    let (ready, go) = (place.pipe("ready"), place.pipe("go"));
    let script = "echo early; echo yes > ready; read go < go; head -c 100000 /dev/zero; exit 6";
    let attempt = prepare(&disk.mounted_at.join("attempt"), &place.shell(script)).unwrap();
    attempt.launch(&shim()).unwrap();
    assert_eq!(hear(&ready), "yes");
    disk.fill();
    let_go(&go);
    let exit = ended(&attempt);
    assert_eq!(exit.end, AttemptEnd::Exited(6));
    assert_eq!(exit.stdout.bytes + exit.stdout.cut_bytes, 100_006);
    assert!(exit.stdout.cut_bytes > 0 && exit.stdout.error.unwrap().contains("No space left"));
    assert_eq!(fs::metadata(attempt.file("stdout")).unwrap().len(), exit.stdout.bytes);
}

fn full_before() {
    let place = Place::new();
    let Some(disk) = SmallDisk::mount(&place, "a disk that is full before") else { return };
    let attempt = prepare(&disk.mounted_at.join("attempt"), &place.shell("echo word; touch began; exit 6")).unwrap();
    disk.fill();
    attempt.launch(&shim()).unwrap();
    let exit = ended(&attempt);
    // What it said is lost, which is said.
    assert_eq!((exit.end, exit.stdout.bytes, exit.stdout.cut_bytes), (AttemptEnd::Exited(6), 0, 5));
    assert!(exit.stdout.error.unwrap().contains("No space left"));
    assert!(place.path("began").exists());
}

fn refuses() {
    let place = Place::new();
    let Some(disk) = SmallDisk::mount(&place, "a full disk that refuses") else { return };
    disk.fill();
    let dir = disk.mounted_at.join("attempt");
    assert!(matches!(prepare(&dir, &place.shell("true")), Err(PrepareError::Io { .. })));
    fs::remove_file(disk.mounted_at.join("filler")).unwrap();
    let attempt = prepare(&dir, &place.shell("true")).unwrap();
    assert_eq!(attempt.state(boot_id().unwrap()).unwrap(), AttemptState::NotStarted);
}
