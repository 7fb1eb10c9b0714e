//! Time, CPU time and memory of processes, and what the rest of the machine did meanwhile: from /proc, so that a process needs nothing
//! in it to be measured. Measures; never waits.

use std::io;
use std::time::Instant;

use serde::{Deserialize, Serialize};

/// How /proc counts CPU time. It is part of what Linux promises to programs, whatever the kernel itself counts in.
const TICKS_PER_SECOND: f64 = 100.0;

/// What a run took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Spent {
    /// From the beginning to the end.
    pub seconds: f64,
    /// CPU time of the side's own processes.
    pub client_cpu_s: f64,
    /// CPU time of the broker.
    pub broker_cpu_s: f64,
    /// Share of the machine's CPU time that went to nobody of these, 0 to 1. The kernel's own threads are in it: a few percent.
    pub foreign: f64,
}

/// Takes the time, and looks at processes before and after.
#[derive(Debug)]
pub struct Meter {
    clients: Vec<u32>,
    broker: Option<u32>,
    began: Instant,
    before: Look,
}

/// CPU time up to one moment, in ticks.
#[derive(Debug, Clone, Copy)]
struct Look {
    clients: u64,
    broker: u64,
    /// Of the whole machine: busy, and all there is.
    busy: u64,
    all: u64,
}

impl Meter {
    /// Begins, with the processes of a side and the broker's. A process counts with the children that it has waited for.
    ///
    /// # Errors
    /// When there is no such process.
    pub fn begin(clients: &[u32], broker: Option<u32>) -> io::Result<Self> {
        let before = look(clients, broker)?;
        Ok(Self { clients: clients.to_vec(), broker, began: Instant::now(), before })
    }

    /// Begins, with this process as the only one of its side.
    ///
    /// # Errors
    /// When /proc cannot be read.
    pub fn own(broker: Option<u32>) -> io::Result<Self> {
        Self::begin(&[std::process::id()], broker)
    }

    /// When it began.
    #[must_use]
    pub const fn began(&self) -> Instant {
        self.began
    }

    /// Ends.
    ///
    /// # Errors
    /// When one of the processes is gone.
    pub fn end(self) -> io::Result<Spent> {
        let seconds = self.began.elapsed().as_secs_f64();
        let after = look(&self.clients, self.broker)?;
        let before = self.before;
        let (clients, broker) =
            (after.clients.saturating_sub(before.clients), after.broker.saturating_sub(before.broker));
        let (busy, all) = (after.busy.saturating_sub(before.busy), after.all.saturating_sub(before.all));
        let others = busy.saturating_sub(clients + broker);
        Ok(Spent {
            seconds,
            client_cpu_s: clients as f64 / TICKS_PER_SECOND,
            broker_cpu_s: broker as f64 / TICKS_PER_SECOND,
            foreign: if all == 0 { 0.0 } else { others as f64 / all as f64 },
        })
    }
}

fn look(clients: &[u32], broker: Option<u32>) -> io::Result<Look> {
    let clients = clients.iter().map(|pid| ticks(*pid)).sum::<io::Result<u64>>()?;
    let broker = broker.map_or(Ok(0), ticks)?;
    let (busy, all) = machine(&std::fs::read_to_string("/proc/stat")?)
        .ok_or_else(|| io::Error::other("/proc/stat cannot be understood"))?;
    Ok(Look { clients, broker, busy, all })
}

/// CPU time of a process and of the children that it has waited for.
fn ticks(pid: u32) -> io::Result<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    of_process(&stat).ok_or_else(|| io::Error::other(format!("/proc/{pid}/stat cannot be understood")))
}

/// The four times of a process: its own and its children's, in user and kernel mode. They are the fields 14 to 17; the second one, the
/// name, may hold anything, so fields are counted from its end.
fn of_process(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let times: Vec<u64> = rest.split_whitespace().skip(11).take(4).map_while(|time| time.parse().ok()).collect();
    (times.len() == 4).then(|| times.iter().sum())
}

/// Busy time and all time of the machine: everything but idle and waiting for disks is busy. Guests are in user time already.
fn machine(stat: &str) -> Option<(u64, u64)> {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let times: Vec<u64> = line.split_whitespace().take(8).map_while(|time| time.parse().ok()).collect();
    let all: u64 = times.iter().sum();
    Some((all.checked_sub(times.get(3)? + times.get(4)?)?, all))
}

/// The most memory that a process ever had, in KiB.
///
/// # Errors
/// When there is no such process.
pub fn peak_kib(pid: u32) -> io::Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let number = line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse().ok());
    number.ok_or_else(|| io::Error::other(format!("/proc/{pid}/status has no VmHWM")))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_times_of_a_process_are_found_whatever_its_name() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 100 200 0 0 11 22 33 44 20 0 5 0 900 1 2 3";
        assert_eq!(of_process(stat), Some(110));
        assert_eq!(of_process("7 (a S 1"), None);
        assert_eq!(of_process("7 (a) S 1 2 3 4 5 6 7 8 9 10 11 12"), None);
    }

    #[test]
    fn waiting_for_a_disk_is_not_busy() {
        assert_eq!(machine("cpu  1 2 3 100 50 4 5 6 7 8\ncpu0 1 1 1 1"), Some((21, 171)));
        assert_eq!(machine("cpu  1 2 3"), None);
    }

    #[test]
    fn a_process_that_works_is_seen_to_work_and_is_not_foreign() {
        let meter = Meter::own(None).unwrap();
        let before = ticks(std::process::id()).unwrap();
        // It is busy until the kernel has seen that it was.
        while ticks(std::process::id()).unwrap() < before + 5 {}
        let spent = meter.end().unwrap();
        assert!(spent.client_cpu_s >= 0.05 && spent.foreign < 1.0 && spent.seconds > 0.0, "{spent:?}");
        assert!(peak_kib(std::process::id()).unwrap() > 100);
    }
}
