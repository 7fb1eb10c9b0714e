//! Whether all that the books show is on stable storage. Reports are lent to the server before they are, and the books show them at once, for
//! whoever comes next; the API says nothing of them before. It knows nothing of what is kept.

use std::sync::atomic::{AtomicU64, Ordering};

use link::Stopped;
use tokio::sync::watch;

/// How far the books are ahead of the disk.
#[derive(Debug)]
pub(crate) struct Kept {
    /// Changes of the books that were begun.
    begun: AtomicU64,
    /// How many of them are on stable storage; an error once one never will be.
    through: watch::Sender<Result<u64, Stopped>>,
}

impl Default for Kept {
    fn default() -> Self {
        Self { begun: AtomicU64::new(0), through: watch::Sender::new(Ok(0)) }
    }
}

/// A change of the books on its way to the disk. Dropped before it is there, it never will be: the server is stopping.
#[derive(Debug)]
pub(crate) struct Ahead<'a> {
    of: &'a Kept,
    number: Option<u64>,
}

impl Kept {
    /// To be called before the books are changed, by whoever hands over the rows next: changes are kept in the order of these calls.
    pub(crate) fn ahead(&self) -> Ahead<'_> {
        Ahead { of: self, number: Some(self.begun.fetch_add(1, Ordering::SeqCst) + 1) }
    }

    /// Returns when all that the books show now is on stable storage.
    ///
    /// # Errors
    /// [`Stopped`]: some of it may not be, and the server is about to end.
    pub(crate) async fn all(&self) -> Result<(), Stopped> {
        let wanted = self.begun.load(Ordering::SeqCst);
        let mut through = self.through.subscribe();
        // Its sender is this.
        let behind = |through: &Result<u64, Stopped>| through.is_ok_and(|number| number < wanted);
        let found = through.wait_for(|through| !behind(through)).await.map_err(|_| Stopped)?;
        (*found).map(drop)
    }
}

impl Ahead<'_> {
    /// It is on stable storage, and with it all that was begun before.
    pub(crate) fn kept(mut self) {
        if let Some(number) = self.number.take() {
            self.of.through.send_modify(|through| *through = through.map(|through| through.max(number)));
        }
    }
}

impl Drop for Ahead<'_> {
    fn drop(&mut self) {
        if self.number.is_some() {
            self.of.through.send_modify(|through| *through = Err(Stopped));
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn what_was_begun_is_waited_for_and_what_comes_later_is_not() {
        let kept = Kept::default();
        assert_eq!(kept.all().now_or_never(), Some(Ok(())));
        let (first, second) = (kept.ahead(), kept.ahead());
        let mut both = Box::pin(kept.all());
        assert_eq!((&mut both).now_or_never(), None);
        let third = kept.ahead();
        first.kept();
        assert_eq!((&mut both).now_or_never(), None);
        second.kept();
        assert_eq!(both.now_or_never(), Some(Ok(())));
        assert_eq!(kept.all().now_or_never(), None);
        third.kept();
        assert_eq!(kept.all().now_or_never(), Some(Ok(())));
    }

    #[test]
    fn who_is_told_out_of_turn_counts_for_those_before_and_none_takes_it_back() {
        let kept = Kept::default();
        let (first, second) = (kept.ahead(), kept.ahead());
        second.kept();
        assert_eq!(kept.all().now_or_never(), Some(Ok(())));
        first.kept();
        assert_eq!(kept.all().now_or_never(), Some(Ok(())));
    }

    #[test]
    fn what_will_never_be_kept_is_said_to_everybody_from_then_on() {
        let kept = Kept::default();
        let (first, second) = (kept.ahead(), kept.ahead());
        let mut waits = Box::pin(kept.all());
        assert_eq!((&mut waits).now_or_never(), None);
        drop(second);
        assert_eq!(waits.now_or_never(), Some(Err(Stopped)));
        first.kept();
        assert_eq!(kept.all().now_or_never(), Some(Err(Stopped)));
    }
}
