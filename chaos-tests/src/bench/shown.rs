//! The rows of the references that stand beside the bare worker: ours over theirs, and theirs over the bare one's. Measures nothing.

use super::control_group::Groups;
use super::{CPU_US, Case, Figures, Goal, Measure, P50_US, PER_SECOND};

/// What is shown of one such reference.
pub(super) struct Shown {
    /// Of ours beside this reference, and of this reference over the bare worker.
    rate: [Measure; 2],
    time: [Measure; 2],
    /// Of ours beside this reference.
    cpu: Measure,
}

macro_rules! figure {
    ($($part:literal),*) => {
        Measure { name: concat!($($part),*), of: |figures| figures.other.get(concat!($($part),*)).copied() }
    };
}

macro_rules! shown {
    ($who:literal) => {
        Shown {
            rate: [figure!("a second, beside ", $who), figure!("a second, ", $who, " over the bare one")],
            time: [figure!("p50, us, beside ", $who), figure!("p50, us, ", $who, " over the bare one")],
            cpu: figure!("CPU in all, us each, beside ", $who),
        }
    };
}

/// The one of `durable_worker`.
pub(super) const DURABLE: Shown = shown!("a worker that is as durable");

/// The one of `served_worker`.
pub(super) const SERVED: Shown = shown!("a durable worker with an API and groups");

/// The one of `served_worker` that is whole.
pub(super) const WHOLE: Shown = shown!("one with working folders and copied processes besides");

impl Shown {
    /// Where as many jobs are done as go.
    pub(super) fn of_many(&self) -> [Goal; 3] {
        self.rows(self.rate)
    }

    /// Where they are done one at a time.
    pub(super) fn of_one(&self) -> [Goal; 3] {
        self.rows(self.time)
    }

    fn rows(&self, [beside, floor]: [Measure; 2]) -> [Goal; 3] {
        [Goal::shown(beside), Goal::floor(floor), Goal::shown(self.cpu)]
    }

    /// What is compared, by which name, and by which name it is set over the bare worker's.
    fn compared(&self) -> [(Measure, &'static str, Option<&'static str>); 3] {
        let [[rate, rate_floor], [time, time_floor]] = [self.rate, self.time].map(|both| both.map(|one| one.name));
        [(PER_SECOND, rate, Some(rate_floor)), (P50_US, time, Some(time_floor)), (CPU_US, self.cpu.name, None)]
    }

    /// The bare worker's figures, with those of this reference beside them.
    pub(super) fn beside(&self, bare: Figures, reference: &Figures) -> Figures {
        self.compared().iter().fold(bare, |bare, (measure, name, floor)| {
            let (Some(under), Some(figure)) = ((measure.of)(&bare), (measure.of)(reference)) else { return bare };
            let bare = bare.with(name, figure);
            floor.map_or(bare.clone(), |floor| bare.with(floor, figure / under))
        })
    }
}

/// Our own figures, by the names by which they are set beside these references.
pub(super) fn compared(ours: Figures) -> Figures {
    [DURABLE, SERVED, WHOLE].iter().flat_map(Shown::compared).fold(ours, |ours, (measure, name, _)| {
        match (measure.of)(&ours) {
            Some(figure) => ours.with(name, figure),
            None => ours,
        }
    })
}

/// Adds these rows to cases against a bare worker. Where no control groups can be made, the case says so, and has none of the references
/// that have them.
pub(super) fn show_beside(mut cases: Vec<Case>, rows: fn(&Shown) -> [Goal; 3]) -> Vec<Case> {
    let groups = Groups::make().map(drop);
    for case in &mut cases {
        case.goals.extend(rows(&DURABLE));
        match &groups {
            Ok(()) => case.goals.extend([SERVED, WHOLE].iter().flat_map(rows)),
            Err(why) => case.name += &format!("; those with groups are left out, {why}"),
        }
    }
    cases
}
