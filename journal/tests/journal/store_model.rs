//! One model for all engines: a map, and the same random histories of batches, scans, reads, syncs and openings for it and for
//! each store. The store of segments has segments so small that it compacts all the time.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use journal::segments::Options;
use journal::{Batch, KEY_BYTES_MAX, MemoryStore, SegmentStore, SledStore, Store};
use proptest::prelude::*;
use proptest_state_machine::{ReferenceStateMachine, StateMachineTest, prop_state_machine};
use tempfile::TempDir;

use crate::sled_store::no_file_beside_the_log;

/// What every store must hold.
pub(crate) type Model = BTreeMap<Vec<u8>, Vec<u8>>;

#[derive(Debug, Clone)]
enum Step {
    /// Keys by number; no length means delete. The byte fills the value, with its place.
    Apply(Vec<(usize, Option<(usize, u8)>)>),
    /// From key to key, at most so many.
    Scan(usize, usize, usize),
    Value(usize),
    Sync,
    Reopen,
    /// So many batches that replace the same keys, which is what makes compaction necessary.
    Churn(usize),
}

/// Keys that are prefixes of each other, hold the lowest and highest bytes, look like another key's piece, and are as long
/// as may be.
fn key(number: usize) -> Vec<u8> {
    let keys: [&[u8]; 10] =
        [b"a", b"a\0", b"a\0\0\0\0", b"a\0\0\0\x01", b"ab", b"b", b"\x01", b"\xfe\xff\xff", b"p", b"v\0"];
    match keys.get(number) {
        Some(key) => key.to_vec(),
        None => vec![b'k'; KEY_BYTES_MAX - (number - keys.len())],
    }
}

const KEYS: usize = 12;

/// A value of that length, made from a byte.
pub(crate) fn value((length, fill): (usize, u8)) -> Vec<u8> {
    // No two pieces are alike, so that pieces out of order are seen.
    (0..length).map(|place| fill ^ place.to_le_bytes()[0] ^ (place >> 8).to_le_bytes()[0]).collect()
}

fn length() -> impl Strategy<Value = usize> {
    prop_oneof![
        2 => Just(0),
        2 => Just(1),
        4 => 2..2_000_usize,
        2 => 4_090..4_100_usize,
        3 => 31 * 1024..=33 * 1024_usize,
        1 => Just(32 * 1024),
        1 => Just(64 * 1024),
        2 => Just(100 * 1024),
        1 => Just(256 * 1024),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let change = (0..KEYS, prop_oneof![4 => (length(), any::<u8>()).prop_map(Some), 1 => Just(None)]);
    prop_oneof![
        8 => prop::collection::vec(change, 0..6).prop_map(Step::Apply),
        3 => (0..KEYS, 0..KEYS, 1..KEYS).prop_map(|(from, to, most)| Step::Scan(from, to, most)),
        3 => (0..KEYS).prop_map(Step::Value),
        1 => Just(Step::Sync),
        1 => Just(Step::Reopen),
        1 => (1..12_usize).prop_map(Step::Churn),
    ]
}

/// What a scan shows; nobody writes meanwhile, so both ways of scanning must show the same.
pub(crate) fn scanned(store: &dyn Store, from: &[u8], to: &[u8], most: usize) -> Vec<(Vec<u8>, Vec<u8>)> {
    let (mut found, mut undisturbed) = (Vec::new(), Vec::new());
    let visit = |rows: &mut Vec<_>, key: &[u8], value: &[u8]| {
        rows.push((key.to_vec(), value.to_vec()));
        if rows.len() < most { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    };
    store.scan(from, to, &mut |key, value| visit(&mut found, key, value)).unwrap();
    store.scan_undisturbed(from, to, &mut |key, value| visit(&mut undisturbed, key, value)).unwrap();
    assert!(found == undisturbed, "the two ways of scanning show different rows");
    found
}

fn expected(model: &Model, from: &[u8], to: &[u8], most: usize) -> Vec<(Vec<u8>, Vec<u8>)> {
    model
        .iter()
        .filter(|(key, _)| from <= key.as_slice() && key.as_slice() < to)
        .take(most)
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

/// The batches of a step.
fn batches(step: &Step) -> Vec<Batch> {
    let mut batches = Vec::new();
    match step {
        Step::Apply(changes) => {
            let mut batch = Batch::default();
            for (number, change) in changes {
                match change {
                    Some(what) => batch.put(key(*number), value(*what)),
                    None => batch.delete(key(*number)),
                }
            }
            batches.push(batch);
        }
        Step::Churn(times) => {
            for time in 0..*times {
                let mut batch = Batch::default();
                let fill = u8::try_from(time).unwrap();
                (0..3).for_each(|number| batch.put(key(number), value((1_500, fill))));
                batch.delete(key(3 + time % 5));
                batches.push(batch);
            }
        }
        Step::Scan(..) | Step::Value(_) | Step::Sync | Step::Reopen => {}
    }
    batches
}

/// What a batch does to a map.
pub(crate) fn change(model: &mut Model, batch: &Batch) {
    for (key, value) in batch.iter() {
        match value {
            Some(value) => model.insert(key.to_vec(), value.to_vec()),
            None => model.remove(key),
        };
    }
}

/// The map, and which steps may follow: any.
struct Histories;

impl ReferenceStateMachine for Histories {
    type State = Model;
    type Transition = Step;

    fn init_state() -> BoxedStrategy<Model> {
        Just(Model::new()).boxed()
    }

    fn transitions(_: &Model) -> BoxedStrategy<Step> {
        step().boxed()
    }

    fn apply(mut model: Model, step: &Step) -> Model {
        batches(step).iter().for_each(|batch| change(&mut model, batch));
        model
    }
}

/// Segments of three or four values, and a compaction that needs several batches for one.
pub(crate) fn tiny() -> Options {
    Options { segment_bytes: 6_000, compact_bytes: 1_000, ahead_bytes: 1_000, observer: None }
}

/// Every engine, given the same.
struct Engines {
    memory: MemoryStore,
    sled: Option<SledStore>,
    segments: Option<SegmentStore>,
    dirs: [TempDir; 2],
}

impl Engines {
    fn reopen(&mut self) {
        (self.sled, self.segments) = (None, None);
        self.sled = Some(SledStore::open(self.dirs[0].path()).unwrap());
        self.segments = Some(SegmentStore::open_with(self.dirs[1].path(), tiny()).unwrap());
    }

    fn all(&self) -> [(&'static str, &dyn Store); 3] {
        [("memory", &self.memory), ("sled", self.sled.as_ref().unwrap()), ("segments", self.segments.as_ref().unwrap())]
    }
}

impl StateMachineTest for Engines {
    type SystemUnderTest = Self;
    type Reference = Histories;

    fn init_test(_: &Model) -> Self {
        let dirs = [(); 2].map(|()| tempfile::tempdir().unwrap());
        let mut engines = Self { memory: MemoryStore::default(), sled: None, segments: None, dirs };
        engines.reopen();
        engines
    }

    fn apply(mut engines: Self, model: &Model, step: Step) -> Self {
        for batch in batches(&step) {
            for (_, store) in engines.all() {
                store.apply(&batch).unwrap();
            }
        }
        match step {
            Step::Apply(_) | Step::Churn(_) => {}
            Step::Scan(from, to, most) => {
                let (from, to) = (key(from), key(to));
                for (name, store) in engines.all() {
                    assert!(scanned(store, &from, &to, most) == expected(model, &from, &to, most), "{name}");
                }
            }
            Step::Value(number) => {
                for (name, store) in engines.all() {
                    assert!(store.value(&key(number)).unwrap().as_ref() == model.get(&key(number)), "{name}");
                }
            }
            Step::Sync => engines.all().into_iter().for_each(|(_, store)| store.sync().unwrap()),
            Step::Reopen => engines.reopen(),
        }
        no_file_beside_the_log(engines.dirs[0].path());
        engines
    }

    fn teardown(engines: Self, model: Model) {
        let whole = expected(&model, &[0], &[0xff], usize::MAX);
        for (name, store) in engines.all() {
            assert!(scanned(store, &[0], &[0xff], usize::MAX) == whole, "{name}");
        }
        let reader = SegmentStore::open_read_only(engines.dirs[1].path()).unwrap();
        assert!(scanned(&reader, &[0], &[0xff], usize::MAX) == whole, "a reader while the writer has it open");
    }
}

prop_state_machine! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_store_does_what_a_map_does(sequential 1..30 => Engines);
}
