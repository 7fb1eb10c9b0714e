//! What happens to a step from its start to its end: it ends by itself, is asked to end, is ended. A plain state machine over
//! events and the time; signals leave it through a function that it is given. It reads no clock but the monotonic one.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::attempt::AttemptEnd;

/// Between asking a step to end and ending it. Long enough to remove temporary files, short enough for a person who waits.
const GRACE: Duration = Duration::from_secs(5);

/// Between two attempts at killing a tree that does not go, because it forks faster than it is looked at or hangs in the
/// kernel.
const KILL_AGAIN: Duration = Duration::from_secs(1);

/// For processes that do not go although the step's own has gone; then they are left and recorded as left.
const GIVE_UP: Duration = Duration::from_secs(5);

/// For the end of the output once the step has ended. Normally it is there at once; a daemon that was left may never let go.
const DRAIN: Duration = Duration::from_secs(2);

/// The same, while bytes still wait in a pipe because the disk is slow.
const DRAIN_MAX: Duration = Duration::from_secs(30);

/// For processes that let go of the output and are about to end too.
const LAST_ONES: Duration = Duration::from_millis(200);

/// The step's two output streams.
const STREAMS: u8 = 2;

/// Something happened.
#[derive(Debug)]
pub(super) enum Event {
    /// The step's own process ended.
    LeaderEnded(ProcessEnd),
    /// No process of the step is left.
    AllGone,
    /// One of the output streams came to its end.
    StreamEnded,
    /// Somebody asks that the step be ended.
    Terminate,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ProcessEnd {
    /// With that exit code.
    Exited(i32),
    /// By that signal.
    Signaled(i32),
}

impl ProcessEnd {
    /// What the status of a process that was waited for says.
    pub(super) const fn of(status: i32) -> Self {
        // Without asking for stopped processes there is no third way; what is said then is at least no success.
        match libc::WIFEXITED(status) {
            true => Self::Exited(libc::WEXITSTATUS(status)),
            false => Self::Signaled(libc::WTERMSIG(status)),
        }
    }
}

/// What there is around a step.
pub(super) trait Surroundings {
    /// The next thing that happens, or nothing when it is that late.
    fn next(&mut self, deadline: Option<Instant>) -> Option<Event>;

    /// Sends a signal to all its processes.
    fn signal(&mut self, signal: Signal);

    /// Whether output still waits to be copied.
    fn bytes_wait(&self) -> bool;
}

/// How it ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Outcome {
    pub(super) end: AttemptEnd,
    pub(super) cancelled: bool,
    pub(super) left_processes: bool,
}

/// Why a step is being ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cause {
    Timeout,
    Cancel,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// It runs.
    Running,
    /// It was asked to end.
    Stopping { kill_at: Instant },
    /// It is being killed.
    Killing { again_at: Instant, give_up_at: Instant },
    /// Its own process has ended; the rest of its output is awaited.
    Draining { until: Instant, at_most: Instant },
    /// Nothing more is awaited.
    Done,
}

/// The step's life.
#[derive(Debug)]
pub(super) struct Supervisor {
    timeout_at: Option<Instant>,
    phase: Phase,
    cause: Option<Cause>,
    leader: Option<ProcessEnd>,
    open_streams: u8,
    all_gone: bool,
    asked: bool,
}

impl Supervisor {
    /// A step that has just been started. A time limit beyond what the clock can count is none.
    pub(super) fn new(timeout: Option<Duration>) -> Self {
        Self::started_at(Instant::now(), timeout)
    }

    fn started_at(now: Instant, timeout: Option<Duration>) -> Self {
        Self {
            timeout_at: timeout.and_then(|timeout| now.checked_add(timeout)),
            phase: Phase::Running,
            cause: None,
            leader: None,
            open_streams: STREAMS,
            all_gone: false,
            asked: false,
        }
    }

    /// Follows the step to its end.
    pub(super) fn run(mut self, around: &mut impl Surroundings) -> Outcome {
        loop {
            if let Some(signal) = self.advance(Instant::now(), &|| around.bytes_wait()) {
                around.signal(signal);
            }
            if self.phase == Phase::Done {
                return self.outcome();
            }
            if let Some(event) = around.next(self.deadline()) {
                self.note(&event);
            }
        }
    }

    fn note(&mut self, event: &Event) {
        match event {
            Event::LeaderEnded(end) => self.leader = Some(*end),
            Event::AllGone => self.all_gone = true,
            Event::StreamEnded => self.open_streams = self.open_streams.saturating_sub(1),
            Event::Terminate => self.asked = true,
        }
    }

    /// When to look again although nothing happened.
    fn deadline(&self) -> Option<Instant> {
        match self.phase {
            Phase::Running => self.timeout_at,
            Phase::Stopping { kill_at } => Some(kill_at),
            Phase::Killing { again_at, .. } => Some(again_at),
            Phase::Draining { until, .. } => Some(until),
            Phase::Done => None,
        }
    }

    /// The next phase, as often as there is one, and the signal to send on the way.
    fn advance(&mut self, now: Instant, bytes_wait: &impl Fn() -> bool) -> Option<Signal> {
        match self.phase {
            Phase::Running if self.leader.is_some() => self.drain(now, bytes_wait),
            Phase::Running if self.asked => Some(self.stop(now, Cause::Cancel)),
            Phase::Running if self.timeout_at.is_some_and(|at| now >= at) => Some(self.stop(now, Cause::Timeout)),
            Phase::Stopping { .. } | Phase::Killing { .. } if self.all_gone => self.drain(now, bytes_wait),
            Phase::Stopping { kill_at } if now >= kill_at => {
                self.phase = Phase::Killing { again_at: now + KILL_AGAIN, give_up_at: now + GIVE_UP };
                Some(Signal::KILL)
            }
            // The step's own process is never given up: as long as it is there, the step runs.
            Phase::Killing { give_up_at, .. } if self.leader.is_some() && now >= give_up_at => {
                self.drain(now, bytes_wait)
            }
            Phase::Killing { again_at, give_up_at } if now >= again_at => {
                self.phase = Phase::Killing { again_at: now + KILL_AGAIN, give_up_at };
                Some(Signal::KILL)
            }
            Phase::Draining { until, at_most } => {
                self.drained(now, until, at_most, bytes_wait);
                None
            }
            Phase::Running | Phase::Stopping { .. } | Phase::Killing { .. } | Phase::Done => None,
        }
    }

    fn stop(&mut self, now: Instant, cause: Cause) -> Signal {
        self.cause = Some(cause);
        self.phase = Phase::Stopping { kill_at: now + GRACE };
        Signal::TERM
    }

    fn drain(&mut self, now: Instant, bytes_wait: &impl Fn() -> bool) -> Option<Signal> {
        let (until, at_most) = (now + DRAIN, now + DRAIN_MAX);
        self.phase = Phase::Draining { until, at_most };
        self.drained(now, until, at_most, bytes_wait);
        None
    }

    fn drained(&mut self, now: Instant, until: Instant, at_most: Instant, bytes_wait: &impl Fn() -> bool) {
        self.phase = match (self.open_streams, self.all_gone) {
            (0, true) => Phase::Done,
            (_, _) if now < until && self.open_streams > 0 => Phase::Draining { until, at_most },
            (0, false) if now < until => Phase::Draining { until: until.min(now + LAST_ONES), at_most },
            (1.., _) if now < at_most && bytes_wait() => Phase::Draining { until: at_most.min(now + DRAIN), at_most },
            (_, _) => Phase::Done,
        };
    }

    fn outcome(self) -> Outcome {
        let end = match (self.cause, self.leader) {
            (Some(Cause::Timeout), _) => AttemptEnd::TimedOut,
            (_, Some(ProcessEnd::Exited(code))) => AttemptEnd::Exited(code),
            (_, Some(ProcessEnd::Signaled(signal))) => AttemptEnd::Signaled(signal),
            // Draining begins with the end of the step's own process, or with that of every process.
            (_, None) => AttemptEnd::Signaled(Signal::KILL.as_raw()),
        };
        Outcome { end, cancelled: self.cause == Some(Cause::Cancel), left_processes: !self.all_gone }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(60);

    /// A step and the time that has passed since its start.
    struct Life {
        supervisor: Supervisor,
        start: Instant,
        bytes_wait: bool,
    }

    impl Life {
        fn new() -> Self {
            let start = Instant::now();
            Self { supervisor: Supervisor::started_at(start, Some(LIMIT)), start, bytes_wait: false }
        }

        fn at(&mut self, after: Duration, events: &[Event]) -> Option<Signal> {
            events.iter().for_each(|event| self.supervisor.note(event));
            let waiting = self.bytes_wait;
            self.supervisor.advance(self.start + after, &|| waiting)
        }

        fn done(&self) -> bool {
            self.supervisor.phase == Phase::Done
        }
    }

    const EXITED: Event = Event::LeaderEnded(ProcessEnd::Exited(0));
    const MOMENT: Duration = Duration::from_millis(1);

    #[test]
    fn a_step_that_ended_in_time_is_not_timed_out_however_late_that_is_noticed() {
        let mut life = Life::new();
        assert_eq!(life.at(LIMIT * 2, &[EXITED, Event::AllGone, Event::StreamEnded, Event::StreamEnded]), None);
        assert!(life.done());
        let expected = Outcome { end: AttemptEnd::Exited(0), cancelled: false, left_processes: false };
        assert_eq!(life.supervisor.outcome(), expected);
    }

    #[test]
    fn children_keep_their_grace_when_the_step_itself_goes_first() {
        let mut life = Life::new();
        assert_eq!(life.at(LIMIT, &[]), Some(Signal::TERM));
        assert_eq!(life.at(LIMIT + MOMENT, &[EXITED]), None);
        assert!(matches!(life.supervisor.phase, Phase::Stopping { .. }));
        assert_eq!(life.at(LIMIT + GRACE - MOMENT, &[]), None);
        assert_eq!(life.at(LIMIT + GRACE, &[]), Some(Signal::KILL));
        assert_eq!(life.at(LIMIT + GRACE + MOMENT, &[Event::AllGone, Event::StreamEnded, Event::StreamEnded]), None);
        assert!(life.done());
        assert_eq!(life.supervisor.outcome().end, AttemptEnd::TimedOut);
    }

    #[test]
    fn a_step_that_cannot_be_killed_is_never_given_up_but_its_leftovers_are() {
        let mut life = Life::new();
        let mut now = MOMENT;
        assert_eq!(life.at(now, &[Event::Terminate]), Some(Signal::TERM));
        now += GRACE;
        for _ in 0..1000 {
            assert_eq!(life.at(now, &[]), Some(Signal::KILL));
            now += KILL_AGAIN;
        }
        assert_eq!(life.at(now, &[Event::LeaderEnded(ProcessEnd::Signaled(9)), Event::StreamEnded]), None);
        assert!(!life.done());
        assert_eq!(life.at(now + DRAIN, &[]), None);
        assert!(life.done());
        let expected = Outcome { end: AttemptEnd::Signaled(9), cancelled: true, left_processes: true };
        assert_eq!(life.supervisor.outcome(), expected);
    }

    #[test]
    fn output_that_waits_for_a_slow_disk_is_awaited_but_not_for_ever() {
        let mut life = Life::new();
        life.bytes_wait = true;
        let mut rounds = 0;
        let mut now = Duration::ZERO;
        life.at(now, &[EXITED, Event::AllGone]);
        while !life.done() {
            now += DRAIN;
            life.at(now, &[]);
            rounds += 1;
        }
        assert_eq!(now, DRAIN_MAX);
        assert!(rounds > 1);
    }

    #[test]
    fn a_time_limit_beyond_the_clock_is_none() {
        assert_eq!(Supervisor::new(Some(Duration::MAX)).deadline(), None);
    }
}
