//! Whether all that the books show is on stable storage. They show a change as soon as its place in the journal is settled, for whoever comes
//! next: reports, orders, what is given out. The API says nothing of it before. It knows nothing of what is kept.

use std::collections::BTreeSet;

use link::Stopped;
use tokio::sync::watch;

/// How far the books are ahead of the disk.
#[derive(Debug, Default)]
pub(crate) struct Kept(watch::Sender<Changes>);

/// Changes of the books.
#[derive(Debug, Default)]
struct Changes {
    /// How many were begun.
    begun: u64,
    /// Those that are not on stable storage yet.
    open: BTreeSet<u64>,
    /// One of them never will be.
    lost: bool,
}

/// A change of the books on its way to the disk. Dropped before it is there, it never will be: the server is stopping, or stops because of that,
/// and shows what is kept when it is started again.
#[derive(Debug)]
#[must_use = "nobody is told anything until it is known what became of it"]
pub(crate) struct Ahead<'a> {
    of: &'a Kept,
    number: Option<u64>,
}

impl Kept {
    /// To be called before anybody can see the change, by whoever hands over the rows next: changes are kept in the order of these calls.
    pub(crate) fn ahead(&self) -> Ahead<'_> {
        let mut number = 0;
        // Nobody waits for this.
        self.0.send_if_modified(|changes| {
            changes.begun += 1;
            number = changes.begun;
            changes.open.insert(number);
            false
        });
        Ahead { of: self, number: Some(number) }
    }

    /// Returns when the books show something that will never be on stable storage: nothing that they show can be told to anybody from then on.
    pub(crate) async fn lost(&self) {
        // Its sender is this.
        let _lost = self.0.subscribe().wait_for(|changes| changes.lost).await.is_ok();
    }

    /// Returns when all that the books show now is on stable storage.
    ///
    /// # Errors
    /// [`Stopped`]: some of it may not be, and the server is about to end.
    pub(crate) async fn all(&self) -> Result<(), Stopped> {
        let mut changes = self.0.subscribe();
        let wanted = changes.borrow().begun;
        let through = |changes: &Changes| changes.open.first().is_none_or(|open| *open > wanted);
        // Its sender is this.
        let found = changes.wait_for(|changes| changes.lost || through(changes)).await.map_err(|_| Stopped)?;
        if found.lost { Err(Stopped) } else { Ok(()) }
    }
}

impl Ahead<'_> {
    /// It is on stable storage, and with it all that was begun before.
    pub(crate) fn kept(self) {
        self.close(|changes, number| changes.open = changes.open.split_off(&(number + 1)));
    }

    /// Nothing was changed, or it was taken back. That says nothing of what was begun before.
    pub(crate) fn undone(self) {
        self.close(|changes, number| {
            changes.open.remove(&number);
        });
    }

    fn close(mut self, close: impl FnOnce(&mut Changes, u64)) {
        if let Some(number) = self.number.take() {
            self.of.0.send_modify(|changes| close(changes, number));
        }
    }
}

impl Drop for Ahead<'_> {
    fn drop(&mut self) {
        if self.number.is_some() {
            self.of.0.send_modify(|changes| changes.lost = true);
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
    fn what_was_taken_back_is_not_waited_for_and_says_nothing_of_what_came_before() {
        let kept = Kept::default();
        let (first, second) = (kept.ahead(), kept.ahead());
        let mut both = Box::pin(kept.all());
        second.undone();
        assert_eq!((&mut both).now_or_never(), None, "the first is on its way");
        first.undone();
        assert_eq!(both.now_or_never(), Some(Ok(())));
    }

    #[test]
    fn what_will_never_be_kept_is_said_to_everybody_from_then_on() {
        let kept = Kept::default();
        let (first, second) = (kept.ahead(), kept.ahead());
        let mut waits = Box::pin(kept.all());
        assert_eq!((&mut waits).now_or_never(), None);
        assert_eq!(kept.lost().now_or_never(), None);
        drop(second);
        assert_eq!(kept.lost().now_or_never(), Some(()));
        assert_eq!(waits.now_or_never(), Some(Err(Stopped)));
        first.kept();
        assert_eq!(kept.all().now_or_never(), Some(Err(Stopped)));
    }
}
