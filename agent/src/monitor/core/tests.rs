//! The life of a monitor as scripted stories, with a clock that the test moves. Starts nothing.

use super::*;

/// A monitor and the time that has passed since its start.
struct Story {
    core: Core,
    start: Instant,
    at: Duration,
}

impl Story {
    fn new(drain_limit: Option<Duration>) -> Self {
        let start = Instant::now();
        Self { core: Core::new(start, drain_limit), start, at: Duration::ZERO }
    }

    /// One whose worker runs and is ready.
    fn ready(drain_limit: Option<Duration>) -> Self {
        let mut story = Self::new(drain_limit);
        assert_eq!(story.then(Input::Tick), Some(START));
        assert_eq!(story.then(Input::Ready), None);
        story
    }

    fn then(&mut self, input: Input) -> Option<Action> {
        self.core.handle(self.start + self.at, input)
    }

    /// Sleeps until the monitor wants to be woken, and wakes it.
    fn wake(&mut self) -> Option<Action> {
        let until = self.core.deadline().map(|at| at.saturating_duration_since(self.start));
        self.at = self.at.max(until.unwrap_or(self.at));
        self.then(Input::Tick)
    }
}

const START: Action = Action::Start { program: Program::OnDisk, draining: false };
const OWN: Action = Action::Start { program: Program::Own, draining: false };
const KILLED: Input = Input::Ended(WorkerEnd::Signaled(9));

const fn exited(code: u8) -> Input {
    Input::Ended(WorkerEnd::Exited(code))
}

#[test]
fn a_worker_that_dies_is_started_again_later_and_later_up_to_half_a_minute() {
    let mut story = Story::ready(None);
    let mut pauses = Vec::new();
    for _ in 0..12 {
        match story.then(KILLED) {
            Some(Action::Wait(pause)) => pauses.push(pause.as_millis()),
            other => panic!("{other:?}"),
        }
        assert_eq!(story.wake(), Some(START));
        story.then(Input::Ready);
    }
    assert_eq!(pauses, [100, 200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 30_000, 30_000, 30_000]);
}

#[test]
fn a_worker_that_ran_well_is_started_again_at_once() {
    let mut story = Story::ready(None);
    for _ in 0..5 {
        story.then(KILLED);
        story.wake();
    }
    story.at += RAN_WELL;
    assert_eq!(story.then(KILLED), Some(Action::Wait(BACKOFF_FIRST)));
}

#[test]
fn what_will_be_the_same_next_time_ends_the_monitor_with_the_workers_code() {
    for code in FINAL_CODES {
        let mut story = Story::new(None);
        story.then(Input::Tick);
        assert_eq!(story.then(exited(code)), Some(Action::End(code)));
        // A worker that was ready had a good journal and configuration: the next start looks at them again.
        assert_eq!(Story::ready(None).then(exited(code)), Some(Action::Wait(BACKOFF_FIRST)));
    }
    let mut story = Story::new(None);
    story.then(Input::Tick);
    assert_eq!(story.then(exited(69)), Some(Action::Wait(BACKOFF_FIRST)), "a full disk may have room again");
}

#[test]
fn a_worker_that_ends_well_ends_the_monitor() {
    assert_eq!(Story::ready(None).then(exited(0)), Some(Action::End(0)));
}

#[test]
fn asked_once_it_drains_and_asked_twice_it_stops() {
    let mut story = Story::ready(None);
    assert_eq!(story.then(Input::Terminate), Some(Action::Tell(Order::Drain)));
    assert_eq!(story.then(Input::Terminate), Some(Action::Tell(Order::Stop)));
    assert_eq!(story.then(Input::Terminate), None);
    assert_eq!(story.wake(), Some(Action::Tell(Order::Kill)));
    assert_eq!(story.then(KILLED), Some(Action::End(0)));
}

#[test]
fn a_drain_that_takes_longer_than_it_may_becomes_a_stop() {
    let mut story = Story::ready(Some(Duration::from_secs(20)));
    assert_eq!(story.then(Input::Terminate), Some(Action::Tell(Order::Drain)));
    assert_eq!(story.wake(), Some(Action::Tell(Order::Stop)));
    assert_eq!(story.at, Duration::from_secs(20));
    assert_eq!(story.then(exited(0)), Some(Action::End(0)));
}

#[test]
fn a_worker_that_dies_while_it_drains_is_started_again_and_drains() {
    let mut story = Story::ready(None);
    story.then(Input::Terminate);
    assert_eq!(story.then(KILLED), Some(Action::Wait(BACKOFF_FIRST)));
    assert_eq!(story.wake(), Some(Action::Start { program: Program::OnDisk, draining: true }));
    assert_eq!(story.then(exited(0)), Some(Action::End(0)));
}

#[test]
fn a_renewal_replaces_the_worker_without_a_pause() {
    let mut story = Story::ready(None);
    assert_eq!(story.then(Input::Renew), Some(Action::Tell(Order::Stop)));
    assert_eq!(story.then(Input::Renew), None);
    assert_eq!(story.then(exited(0)), None);
    assert_eq!((story.wake(), story.at), (Some(START), Duration::ZERO));
}

#[test]
fn a_stop_while_the_worker_is_renewed_is_a_stop() {
    let mut story = Story::ready(None);
    story.then(Input::Renew);
    assert_eq!(story.then(Input::Terminate), None);
    assert_eq!(story.then(exited(0)), Some(Action::End(0)));
}

#[test]
fn a_worker_that_hangs_is_killed_and_one_that_is_still_starting_is_not() {
    let mut story = Story::new(None);
    story.then(Input::Tick);
    assert_eq!(story.core.deadline(), None);
    story.then(Input::Ready);
    story.at += BEAT_LIMIT - Duration::from_millis(1);
    assert_eq!(story.then(Input::Tick), None);
    assert!(story.core.is_well(story.start + story.at));
    story.then(Input::Beat);
    assert_eq!((story.wake(), story.core.is_well(story.start)), (Some(Action::Tell(Order::Kill)), true));
    assert_eq!(story.at, BEAT_LIMIT * 2 - Duration::from_millis(1));
}

#[test]
fn an_overdue_sign_of_life_is_not_well() {
    let mut story = Story::ready(None);
    story.at += BEAT_LIMIT;
    assert!(!story.core.is_well(story.start + story.at));
}

#[test]
fn a_program_on_disk_that_does_not_start_makes_way_for_the_own_one_and_is_tried_again() {
    let mut story = Story::new(None);
    let mut started = Vec::new();
    for end in [WorkerEnd::NotStarted, WorkerEnd::Signaled(11), WorkerEnd::Exited(1), WorkerEnd::Exited(1)] {
        started.push(story.wake());
        story.then(Input::Ended(end));
    }
    started.push(story.wake());
    assert_eq!(started, [Some(START), Some(START), Some(START), Some(OWN), Some(START)]);
}
