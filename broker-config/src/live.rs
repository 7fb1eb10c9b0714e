//! The switch that live tests share: they need a real RabbitMQ, so they run only when asked for.
//!
//! Nothing here starts anything. A plain `cargo test` must say what it left out; these are the words for it.

/// The environment variable that turns live tests on when it is `1`.
pub const LIVE_ENV: &str = "LONGSHORE_LIVE";

/// Whether live tests were asked for (`LONGSHORE_LIVE=1`).
#[must_use]
pub fn enabled() -> bool {
    std::env::var_os(LIVE_ENV).is_some_and(|value| value == "1")
}

/// The line a test program prints last on stderr after it skipped `count` live tests.
#[must_use]
pub fn skip_notice(count: usize) -> String {
    let plural = if count == 1 { "" } else { "s" };
    let they = if count == 1 { "it needs" } else { "they need" };
    format!("skipped {count} live test{plural}: {they} RabbitMQ; run ./test.sh, or LONGSHORE_LIVE=1 cargo test")
}

#[cfg(test)]
mod tests {
    use super::skip_notice;

    #[test]
    fn the_notice_counts_and_says_how_to_run_them() {
        assert_eq!(
            skip_notice(7),
            "skipped 7 live tests: they need RabbitMQ; run ./test.sh, or LONGSHORE_LIVE=1 cargo test"
        );
        assert!(skip_notice(1).starts_with("skipped 1 live test: it needs"));
    }
}
