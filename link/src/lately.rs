//! An answer that holds for a moment, so that who asks often does not ask the system each time. It knows nothing of what is asked.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What was answered last.
#[derive(Debug)]
pub struct Lately<T> {
    holds: Duration,
    last: Mutex<Option<(Instant, T)>>,
}

impl<T: Copy> Lately<T> {
    /// Nothing yet. An answer holds that long.
    #[must_use]
    pub const fn new(holds: Duration) -> Self {
        Self { holds, last: Mutex::new(None) }
    }

    /// The last answer, if it still holds; else what `ask` says. Others wait meanwhile.
    ///
    /// # Errors
    /// Those of `ask`. Nothing holds then.
    pub fn get<E>(&self, ask: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
        // It is only ever replaced as a whole.
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, answer)) = last.filter(|(at, _)| at.elapsed() < self.holds) {
            return Ok(answer);
        }
        *last = None;
        let answer = ask()?;
        *last = Some((Instant::now(), answer));
        Ok(answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_holds_for_its_time_and_an_error_for_none() {
        let lately = Lately::new(Duration::MAX);
        assert_eq!(lately.get(|| Err::<u32, _>("no")), Err("no"));
        assert_eq!(lately.get(|| Ok::<_, ()>(1)), Ok(1));
        assert_eq!(lately.get(|| Ok::<_, ()>(2)), Ok(1));
        let never = Lately::new(Duration::ZERO);
        assert_eq!(never.get(|| Ok::<_, ()>(1)), Ok(1));
        assert_eq!(never.get(|| Err::<u32, _>("no")), Err("no"));
        assert_eq!(never.get(|| Ok::<_, ()>(2)), Ok(2));
    }
}
