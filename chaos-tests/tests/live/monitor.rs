//! The agent as a service has it: a monitor and a worker, killed, stopped, replaced. A step that runs meanwhile runs once, to its
//! end, and its log has no gap.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use chaos_tests::live::{Process, longshore, wait_for};
use libtest_mimic::Failed;
use messages::Digest;
use rustix::process::{Pid, Signal, kill_process};

use crate::Test;
use crate::support::{LIMIT, World, ensure, lines};

pub(crate) const TESTS: &[Test] = &[
    ("a_step_runs_once_and_is_reported_whoever_of_monitor_and_worker_is_killed", killed),
    ("a_step_survives_stop_upgrade_and_start_of_its_agent_without_a_gap_in_its_log", upgraded),
];

/// A fleet whose agent runs under a monitor, from a program of its own.
struct Service {
    world: World,
    agent: Process,
    program: PathBuf,
}

impl Service {
    fn start() -> Result<Self, Failed> {
        let mut world = World::start(&["a1"])?;
        // What the fleet started has no monitor. Its journal is taken over.
        world.fleet.agents.get_mut("a1").unwrap().kill()?;
        let program = world.path("longshore");
        fs::copy(longshore()?, &program)?;
        let home = world.fleet.home().display().to_string();
        let agent = Process::new("a1", &program, &world.path("a1.log"))
            .arguments(&["agent", "run", "--dir", &home, "--name", "a1"])
            .variable("LONGSHORE_BROKER_URL", &world.fleet.node.url());
        let mut service = Self { world, agent, program };
        service.agent.start()?;
        Ok(service)
    }

    fn monitor(&self) -> Result<i32, Failed> {
        Ok(i32::try_from(self.agent.pid().ok_or("the monitor does not run")?)?)
    }

    /// The worker's process id, once there is one that is not `before`.
    fn worker(&self, before: Option<i32>) -> Result<i32, Failed> {
        let monitor = self.monitor()?;
        let children = PathBuf::from(format!("/proc/{monitor}/task/{monitor}/children"));
        Ok(wait_for("the monitor to have a worker", LIMIT, || {
            let text = fs::read_to_string(&children).ok()?;
            let worker = text.split_whitespace().next()?.parse().ok()?;
            (Some(worker) != before && is_worker(worker)).then_some(worker)
        })?)
    }

    /// Puts another file where the program lies, as an upgrade does. Bytes behind the end of a program change nothing in it.
    fn upgrade(&self) -> Result<u64, Failed> {
        let new = self.world.path("longshore.new");
        fs::copy(longshore()?, &new)?;
        File::options().append(true).open(&new)?.write_all(b"another one")?;
        fs::rename(&new, &self.program)?;
        Ok(fs::metadata(&self.program)?.ino())
    }

    fn says(&self, words: &str) -> Result<(), Failed> {
        Ok(wait_for(words, LIMIT, || self.agent.output().contains(words).then_some(()))?)
    }
}

// Between fork and exec it is still a copy of its monitor.
fn is_worker(pid: i32) -> bool {
    fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.ends_with(b"--as-worker\0"))
}

fn kill(pid: i32) -> Result<(), Failed> {
    Ok(kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL)?)
}

/// Waits until nothing of that process runs. Whoever inherited it may not have looked at its end yet.
fn gone(pid: i32) -> Result<(), Failed> {
    let state = || fs::read_to_string(format!("/proc/{pid}/stat")).ok();
    let dead = |stat: &str| stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('Z'));
    Ok(wait_for("a process to be gone", LIMIT, || state().is_none_or(|stat| dead(&stat)).then_some(()))?)
}

fn killed() -> Result<(), Failed> {
    let mut service = Service::start()?;
    for victims in ["worker", "monitor", "both"] {
        let place = |name: &str| service.world.path(&format!("{victims}-{name}"));
        let (began, gate) = (place("began"), place("gate"));
        let script =
            format!("echo x >> '{}'\nwhile [ ! -e '{}' ]; do sleep 0.05; done", began.display(), gate.display());
        let job = service.world.submit(&format!("[[step]]\nid = \"one\"\nrun = '''\n{script}\n'''\n"))?;
        wait_for("the step to begin", LIMIT, || (lines(&began) == 1).then_some(()))?;
        let worker = service.worker(None)?;
        if victims != "monitor" {
            kill(worker)?;
        }
        if victims == "worker" {
            service.worker(Some(worker))?;
        } else {
            service.agent.kill()?;
            // The kernel takes the worker with the monitor: the next one must find the journal free.
            gone(worker)?;
            service.agent.start()?;
        }
        fs::write(&gate, "")?;
        let ended = service.world.ended(&job)?;
        ensure(ended["state"] == "succeeded" && lines(&began) == 1, format!("{victims}: {ended:#}"))?;
    }
    Ok(())
}

fn upgraded() -> Result<(), Failed> {
    let mut service = Service::start()?;
    let gate = service.world.path("gate");
    let script =
        format!("i=0\nwhile [ ! -e '{}' ]; do i=$((i+1)); echo \"$i\"; sleep 0.05; done\necho end", gate.display());
    let job = service.world.submit(&format!("[[step]]\nid = \"one\"\nrun = '''\n{script}\n'''\n"))?;
    let home = service.world.fleet.home();
    let far = wait_for("the log to arrive", LIMIT, || find(&home.join("server/logs"), "one.1.stdout"))?;
    wait_for("a few lines of it", LIMIT, || (lines(&far) > 3).then_some(()))?;
    let near = find(&home.join("agents/a1/runs"), "one.1.stdout").ok_or("the agent has no such file")?;

    // Stop: asked once it would wait for the step.
    service.agent.signal(Signal::TERM)?;
    service.says("taking nothing new")?;
    service.agent.signal(Signal::TERM)?;
    let code = service.agent.wait()?;
    ensure(code == Some(0), format!("{code:?} {}", service.agent.output()))?;
    let at_stop = lines(&near);
    wait_for("the step to go on without an agent", LIMIT, || (lines(&near) > at_stop + 3).then_some(()))?;

    // Upgrade and start.
    let inode = service.upgrade()?;
    service.agent.start()?;
    let worker = service.worker(None)?;
    let runs = |pid: i32| fs::metadata(format!("/proc/{pid}/exe")).map(|program| program.ino());
    ensure(runs(worker)? == inode, "the agent runs the new program")?;
    let at_start = lines(&near);
    wait_for("the log to go on at the server", LIMIT, || (lines(&far) > at_start + 3).then_some(()))?;

    // Upgrade under a running monitor: a new worker is the new program, and the monitor stays what it was.
    let newer = service.upgrade()?;
    service.agent.signal(Signal::HUP)?;
    let worker = service.worker(Some(worker))?;
    let monitor = service.monitor()?;
    ensure((runs(worker)?, runs(monitor)?) == (newer, inode), "only the worker was replaced")?;
    let at_renewal = lines(&near);
    wait_for("the log to go on under the new worker", LIMIT, || (lines(&far) > at_renewal + 3).then_some(()))?;

    fs::write(&gate, "")?;
    let ended = service.world.ended(&job)?;
    ensure(ended["state"] == "succeeded", format!("{ended:#}"))?;
    // A job's end does not wait for its logs.
    wait_for("the whole log to be at the server", LIMIT, || (size(&far) == size(&near)).then_some(()))?;
    let (here, there) = (fs::read(&near)?, fs::read(&far)?);
    ensure(Digest::of(&here) == Digest::of(&there), "both ends have the same log")?;
    let text = String::from_utf8(there)?;
    let count = text.lines().count() - 1;
    let expected: String = (1..=count).map(|i| format!("{i}\n")).chain(["end\n".to_owned()]).collect();
    ensure(text == expected, "the log has a gap or a line twice")
}

fn size(path: &Path) -> Option<u64> {
    fs::metadata(path).ok().map(|metadata| metadata.len())
}

/// The file of that name somewhere below that folder.
fn find(dir: &Path, name: &str) -> Option<PathBuf> {
    fs::read_dir(dir).ok()?.flatten().map(|entry| entry.path()).find_map(|path| {
        let is_it = path.file_name().is_some_and(|found| found == name);
        if is_it && path.is_file() { Some(path) } else { find(&path, name) }
    })
}
