//! What three gaps in a long journal cost, over journals on disk. `longshore-chaos gaps` does it with a million messages.
#![allow(clippy::unwrap_used)]

use chaos_tests::gaps::reconcile;
use journal::Engine;

#[test]
fn three_gaps_in_a_long_journal_cost_one_small_exchange_and_three_messages() {
    let dir = tempfile::tempdir().unwrap();
    let cost = reconcile(dir.path(), 20_000, Engine::Sled, &mut |_| {}).unwrap();
    assert_eq!((cost.resent, cost.received), (3, 20_000));
    assert!(cost.exchange_bytes < 2_048, "{} bytes", cost.exchange_bytes);
}
