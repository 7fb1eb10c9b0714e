//! What a monitor does when: a plain state machine over the signals that it gets, the life of its worker, and the time. It starts
//! nothing and reads no clock.

use std::time::{Duration, Instant};

/// Before the second start of a worker that ended. Doubled each time.
const BACKOFF_FIRST: Duration = Duration::from_millis(100);

/// Between two starts at most: a disk that is full for hours costs two starts a minute.
const BACKOFF_MAX: Duration = Duration::from_secs(30);

/// A worker that ran for as long ran well; the next end of it is a new story.
const RAN_WELL: Duration = Duration::from_secs(60);

/// For a worker that was told to stop. It has nothing to wait for: what it acknowledged is in its journal.
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// Without a sign of life for as long, a worker that once gave one hangs. It gives one every [`super::BEAT_EVERY`].
const BEAT_LIMIT: Duration = Duration::from_secs(30);

/// Starts of the program on disk that came to nothing before every second one is with the monitor's own.
const TRIES_ON_DISK: u32 = 3;

/// Exit codes that will be the same next time, from sysexits.h: the command line (2 by custom), damaged data, no permission, the
/// configuration.
const FINAL_CODES: [u8; 4] = [2, 65, 77, 78];

/// How a worker ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WorkerEnd {
    /// With that exit code.
    Exited(u8),
    /// By that signal.
    Signaled(i32),
    /// It could not be started at all.
    NotStarted,
}

/// Something happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Input {
    /// Somebody asks that the agent finish what it does and end; asked twice, that it stop now.
    Terminate,
    /// Somebody asks for a new worker: with the configuration and the program that are on disk now.
    Renew,
    /// The worker takes work.
    Ready,
    /// The worker lives.
    Beat,
    /// The worker is no more.
    Ended(WorkerEnd),
    /// Time passed.
    Tick,
}

/// Which file to start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Program {
    /// What lies on disk where this program was started from: the new one after an upgrade.
    OnDisk,
    /// The very file that the monitor runs.
    Own,
}

/// What a worker is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// Take nothing new, finish, end.
    Drain,
    /// End now. Steps go on.
    Stop,
    /// It did not: the kernel ends it.
    Kill,
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    /// Start a worker, which takes nothing new if it is to drain.
    Start { program: Program, draining: bool },
    /// Tell the worker.
    Tell(Order),
    /// Say how long there is no worker.
    Wait(Duration),
    /// End with that code.
    End(u8),
}

/// What the worker is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// None was started, or the next is due then.
    Due { at: Instant },
    /// It runs. Whether it was ready, and until when it need not give a sign of life.
    Runs { since: Instant, ready: bool, beat_until: Option<Instant> },
    /// It was told to end, and is killed then.
    Ends { kill_at: Instant, after: After },
}

/// What follows a worker that was told to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum After {
    End,
    Start,
}

/// The life of one monitor.
#[derive(Debug)]
pub(super) struct Core {
    phase: Phase,
    draining: bool,
    stop_at: Option<Instant>,
    drain_limit: Option<Duration>,
    backoff: Duration,
    unready: u32,
}

impl Core {
    /// A monitor that starts its worker at once. A drain that takes longer than the limit becomes a stop.
    pub(super) const fn new(now: Instant, drain_limit: Option<Duration>) -> Self {
        let phase = Phase::Due { at: now };
        Self { phase, draining: false, stop_at: None, drain_limit, backoff: BACKOFF_FIRST, unready: 0 }
    }

    /// When to look again although nothing happened.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let own = match self.phase {
            Phase::Due { at } => Some(at),
            Phase::Runs { beat_until, .. } => beat_until,
            Phase::Ends { kill_at, .. } => Some(kill_at),
        };
        own.into_iter().chain(self.stop_at).min()
    }

    /// Whether nothing is wrong that only another monitor could mend. A worker whose sign of life is overdue is wrong.
    pub(super) fn is_well(&self, now: Instant) -> bool {
        !matches!(self.phase, Phase::Runs { beat_until: Some(until), .. } if now >= until)
    }

    /// In a few words, for people.
    pub(super) const fn words(&self) -> &'static str {
        match (self.phase, self.draining) {
            (Phase::Runs { ready: true, .. }, false) => "takes work",
            (Phase::Runs { ready: false, .. }, false) => "the worker is starting",
            (Phase::Runs { .. }, true) => "finishes what it does, and takes nothing new",
            (Phase::Due { .. }, _) => "the worker ended; it is started again",
            (Phase::Ends { after: After::End, .. }, _) => "stops; running steps go on",
            (Phase::Ends { after: After::Start, .. }, _) => "the worker makes place for a new one",
        }
    }

    /// Takes in what happened, and says what to do.
    pub(super) fn handle(&mut self, now: Instant, input: Input) -> Option<Action> {
        match input {
            Input::Terminate => self.terminate(now),
            Input::Renew => self.renew(now),
            Input::Ready => self.lives(now, true),
            Input::Beat => self.lives(now, false),
            Input::Ended(end) => self.ended(now, end),
            Input::Tick => self.tick(now),
        }
    }

    fn terminate(&mut self, now: Instant) -> Option<Action> {
        match self.phase {
            // Between two workers nothing new is taken anyhow, but runs that were begun still want to be finished.
            Phase::Due { .. } | Phase::Runs { .. } if !self.draining => {
                self.draining = true;
                self.stop_at = self.drain_limit.and_then(|limit| now.checked_add(limit));
                matches!(self.phase, Phase::Runs { .. }).then_some(Action::Tell(Order::Drain))
            }
            Phase::Due { .. } => Some(Action::End(0)),
            Phase::Runs { .. } => Some(self.end_worker(now, After::End)),
            Phase::Ends { kill_at, after: _ } => {
                self.phase = Phase::Ends { kill_at, after: After::End };
                None
            }
        }
    }

    fn renew(&mut self, now: Instant) -> Option<Action> {
        match self.phase {
            Phase::Runs { .. } => Some(self.end_worker(now, After::Start)),
            Phase::Due { .. } => {
                self.phase = Phase::Due { at: now };
                None
            }
            Phase::Ends { .. } => None,
        }
    }

    fn end_worker(&mut self, now: Instant, after: After) -> Action {
        self.stop_at = self.stop_at.filter(|_| after == After::Start);
        self.phase = Phase::Ends { kill_at: now + STOP_LIMIT, after };
        Action::Tell(Order::Stop)
    }

    fn lives(&mut self, now: Instant, is_ready: bool) -> Option<Action> {
        if let Phase::Runs { since, ready, .. } = self.phase {
            let ready = ready || is_ready;
            self.unready = if ready { 0 } else { self.unready };
            self.phase = Phase::Runs { since, ready, beat_until: Some(now + BEAT_LIMIT) };
        }
        None
    }

    fn ended(&mut self, now: Instant, end: WorkerEnd) -> Option<Action> {
        let (since, ready) = match self.phase {
            Phase::Ends { after: After::End, .. } => return Some(Action::End(0)),
            Phase::Ends { after: After::Start, .. } => {
                self.phase = Phase::Due { at: now };
                return None;
            }
            Phase::Due { .. } => (now, false),
            Phase::Runs { since, ready, .. } => (since, ready),
        };
        match end {
            // By itself: it was told to finish, or does one run only.
            WorkerEnd::Exited(0) => return Some(Action::End(0)),
            // Once it was ready, the same code can be the disk's passing trouble: the next start looks closer.
            WorkerEnd::Exited(code) if !ready && FINAL_CODES.contains(&code) => return Some(Action::End(code)),
            WorkerEnd::Exited(_) | WorkerEnd::Signaled(_) | WorkerEnd::NotStarted => {}
        }
        if now.saturating_duration_since(since) >= RAN_WELL {
            self.backoff = BACKOFF_FIRST;
        }
        self.unready = if ready { 0 } else { self.unready.saturating_add(1) };
        let pause = self.backoff;
        self.backoff = (self.backoff * 2).min(BACKOFF_MAX);
        self.phase = Phase::Due { at: now + pause };
        Some(Action::Wait(pause))
    }

    fn tick(&mut self, now: Instant) -> Option<Action> {
        if self.stop_at.is_some_and(|at| now >= at) {
            self.stop_at = None;
            return self.terminate(now);
        }
        match self.phase {
            Phase::Due { at } if now >= at => {
                self.phase = Phase::Runs { since: now, ready: false, beat_until: None };
                Some(Action::Start { program: self.program(), draining: self.draining })
            }
            Phase::Runs { beat_until: Some(until), since, ready } if now >= until => {
                self.phase = Phase::Runs { since, ready, beat_until: None };
                Some(Action::Tell(Order::Kill))
            }
            Phase::Ends { kill_at, after } if now >= kill_at => {
                self.phase = Phase::Ends { kill_at: now + STOP_LIMIT, after };
                Some(Action::Tell(Order::Kill))
            }
            Phase::Due { .. } | Phase::Runs { .. } | Phase::Ends { .. } => None,
        }
    }

    // What was put on the disk may be broken: then the program that worked before goes on, and the new one is tried in turn.
    const fn program(&self) -> Program {
        if self.unready >= TRIES_ON_DISK && self.unready % 2 == 1 { Program::Own } else { Program::OnDisk }
    }
}

#[cfg(test)]
mod tests;
