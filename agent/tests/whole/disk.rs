//! A disk that is short of room, or really full. The latter needs root, to mount a small file system of its own; it says so when it
//! cannot.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use agent::DiskLimits;
use journal::Engine;
use messages::{Body, RefusalCode, RunEnd, RunId};

use crate::Test;
use crate::world::{How, Running, World, drained, on, pipe};

pub(crate) const TESTS: [Test; 3] = [
    ("a_short_disk_refuses_new_runs_with_a_reason_and_takes_them_when_there_is_room", || on(short())),
    ("a_disk_filled_to_the_last_byte_under_twenty_steps_loses_no_outcome_with_sled", || on(full(Engine::Sled))),
    ("a_disk_filled_to_the_last_byte_under_twenty_steps_loses_no_outcome_with_segments", || on(full(Engine::Segments))),
];

/// A small file system in memory, mounted until dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: PathBuf, size: &str) -> Option<Self> {
        fs::create_dir(&at).unwrap();
        let size = format!("size={size}");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(&at).output();
        if !mounted.is_ok_and(|output| output.status.success()) {
            eprintln!("SKIPPED: mounting a small disk needs root");
            return None;
        }
        Some(Self(at))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

fn fill(path: &Path) {
    let mut file = File::create(path).unwrap();
    for piece in [64 * 1024, 512, 1] {
        while file.write_all(&vec![1; piece]).is_ok() {}
    }
}

const MIB: u64 = 1024 * 1024;

fn limits() -> DiskLimits {
    DiskLimits { free_bytes_min: 8 * MIB, free_percent_min: 0, reserve_bytes: 16 * MIB, ..DiskLimits::default() }
}

async fn short() {
    let world = World::new().await;
    let quota = DiskLimits { quota_bytes: Some(0), ..How::default().disk };
    let agent = world.agent(How { disk: quota, ..How::default() });
    let refused = world.send(&Body::RunStart(world.run(1, vec![world.step("one", "true")]))).await;
    let (code, reason) = world.refusal(refused).await;
    assert!(code == RefusalCode::Disk && reason.contains("may have 0"), "{code:?} {reason}");
    agent.stop().await;
    let agent = world.agent(How::default());
    let run = world.run(2, vec![world.step("one", "true")]);
    world.send(&Body::RunStart(run.clone())).await;
    assert_eq!(world.run_end(run.run).await, RunEnd::Succeeded);
    agent.stop().await;
}

/// An agent whose journal may end at a full disk at any moment, and whoever watches over it.
struct Watched<'a> {
    agent: Running,
    starts: u32,
    world: &'a World,
    how: How,
}

impl Watched<'_> {
    /// Waits for that, and starts the agent again as often as it takes.
    async fn until<T>(&mut self, wanted: impl Future<Output = T>) -> T {
        tokio::pin!(wanted);
        loop {
            tokio::select! {
                wanted = &mut wanted => return wanted,
                () = self.agent.gone() => {
                    self.starts += 1;
                    self.agent = self.world.agent(self.how.clone());
                }
            }
        }
    }
}

async fn full(engine: Engine) {
    let world = World::new().await;
    let Some(disk) = SmallDisk::mount(world.path("small"), "96m") else { return };
    let how =
        How { slots: 20, disk: limits(), dir: Some(disk.0.join("agent")), engine: Some(engine), ..How::default() };
    pipe(&world.path("ready"));
    fs::create_dir(world.path("go")).unwrap();
    let mut watched = Watched { agent: world.agent(how.clone()), starts: 1, world: &world, how };
    for number in 1..=20 {
        pipe(&world.path(&format!("go/{number}")));
        let script = format!("echo y > $PLACE/ready; read go < $PLACE/go/{number}; echo over; exit {number}");
        world.send(&Body::RunStart(world.run(number, vec![world.step("one", &script)]))).await;
        assert_eq!(drained(world.path("ready")).await, "y\n");
    }
    assert!(disk.0.join("agent/reserve").exists());
    let filler = disk.0.join("filler");
    fill(&filler);
    for number in 1..=20 {
        fs::write(world.path(&format!("go/{number}")), "go\n").unwrap();
    }
    let outcomes = async {
        for number in 1..=20 {
            let end = world.run_end(RunId::from_u128(number)).await;
            assert_eq!(end, RunEnd::Failed("one".parse().unwrap()));
        }
    };
    watched.until(outcomes).await;
    eprintln!("20 outcomes on a full disk, {} starts of the agent", watched.starts);
    let refused = world.send(&Body::RunStart(world.run(21, vec![world.step("one", "true")]))).await;
    assert_eq!(watched.until(world.refusal(refused)).await.0, RefusalCode::Disk);
    fs::remove_file(filler).unwrap();
    let run = world.run(22, vec![world.step("one", "true")]);
    world.send(&Body::RunStart(run.clone())).await;
    assert_eq!(watched.until(world.run_end(run.run)).await, RunEnd::Succeeded);
    watched.agent.stop().await;
}
