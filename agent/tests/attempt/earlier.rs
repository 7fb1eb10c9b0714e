//! Attempts that a build before this one made, which gave each a folder of its own: they are never taken for such that have not begun.

use std::fs;
use std::time::Duration;

use agent::attempt::{Attempt, AttemptState, Damage, LaunchError, PrepareError, SurvivorsError};

use crate::support::{Place, prepare, shim, state};

pub(crate) const TESTS: [(&str, fn()); 1] =
    [("an_attempt_that_an_earlier_build_made_is_not_begun_beside_itself", not_begun)];

fn not_begun() {
    let place = Place::new();
    fs::create_dir(place.stem()).unwrap();
    let attempt = Attempt::open(&place.stem()).unwrap();
    let expected = AttemptState::Unreadable { file: "record", damage: Damage::EarlierBuild };
    assert_eq!(state(&attempt), expected);
    assert!(matches!(prepare(&place.stem(), &place.shell("true")), Err(PrepareError::Exists { .. })));
    assert!(matches!(attempt.launch(&shim()), Err(LaunchError::NotPrepared)));
    assert_eq!(state(&attempt), expected, "a refused preparation leaves nothing");
    let refused = attempt.end_survivors(Duration::ZERO);
    assert!(matches!(refused, Err(SurvivorsError::EarlierBuild { .. })), "what runs of it is not known: {refused:?}");
}
