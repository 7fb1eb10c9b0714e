//! The fuzz target `job_file` on stable: random bytes, and a good job file made wrong.

#[path = "../../../fuzz/bodies/job_file.rs"]
pub mod body;
#[path = "../../../fuzz/bodies/mutate.rs"]
mod mutate;

use proptest::prelude::*;

use crate::GOOD;

#[test]
fn the_good_job_file_is_one() {
    assert!(body::any_bytes(GOOD.as_bytes()));
}

proptest! {
    #[test]
    fn random_bytes_are_a_job_file_or_have_problems_that_point_into_them(
        bytes in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        body::any_bytes(&bytes);
        body::any_bytes(&[GOOD.as_bytes(), &bytes].concat());
    }

    #[test]
    fn a_good_job_file_made_wrong_has_problems_that_point_into_it(
        edits in prop::collection::vec((any::<usize>(), any::<u8>(), any::<u8>()), 1..8),
    ) {
        body::any_bytes(&mutate::mutate(GOOD.as_bytes(), &edits));
    }
}
