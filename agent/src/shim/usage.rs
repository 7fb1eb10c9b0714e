//! What a step used, as the kernel adds it up for each process that is reaped. It watches nothing while the step runs.

use std::time::Duration;

use messages::Usage;

/// What processes used that ended below this one and were reaped: here or by their parents, which is every process of a step
/// that left none behind.
///
/// Linux passes the memory that a process had before it became another program on to that one, so the least that is ever said is
/// the shim's own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Used {
    /// Processor time in the programs.
    pub(crate) user: Duration,
    /// Processor time in the system.
    pub(crate) system: Duration,
    /// Bytes of memory of the largest of them.
    pub(crate) memory_bytes: u64,
}

impl Used {
    /// Adds what one more process used.
    pub(super) fn add(&mut self, other: &Self) {
        self.user += other.user;
        self.system += other.system;
        self.memory_bytes = self.memory_bytes.max(other.memory_bytes);
    }

    /// The same as it is told.
    pub(super) fn told(&self) -> Usage {
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        Usage { user_ms: millis(self.user), system_ms: millis(self.system), memory_bytes: self.memory_bytes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_add_up_and_of_memory_the_most_counts() {
        let used = |user, system, memory_bytes| Used {
            user: Duration::from_micros(user),
            system: Duration::from_micros(system),
            memory_bytes,
        };
        let mut all = Used::default();
        for one in [used(1_600, 2_500, 7), used(1_500, 500, 9), used(0, 0, 8)] {
            all.add(&one);
        }
        assert_eq!(all.told(), Usage { user_ms: 3, system_ms: 3, memory_bytes: 9 });
    }
}
