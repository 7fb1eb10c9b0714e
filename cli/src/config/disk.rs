//! What an agent may fill its disk with: flags, keys of the configuration, and the limits that come of both.

use agent::DiskLimits;
use clap::Args;

use super::file::AgentSection;
use crate::args::number;

/// Bytes.
const MIB: u64 = 1024 * 1024;

/// Flags of `agent run` about its disk.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct DiskFlags {
    /// Ended runs that it keeps with their folders [default: 200]
    #[arg(long, env = "LONGSHORE_AGENT_KEEP_RUNS", value_name = "N", value_parser = number::<usize>)]
    keep_runs: Option<usize>,
    /// MiB that the folders of ended runs may have together [default: 4096]
    #[arg(long, env = "LONGSHORE_AGENT_KEEP_MIB", value_name = "MIB", value_parser = number::<u64>)]
    keep_mib: Option<u64>,
    /// MiB that its whole folder may have for new runs to be taken [default: no limit]
    #[arg(long, env = "LONGSHORE_AGENT_QUOTA_MIB", value_name = "MIB", value_parser = number::<u64>)]
    quota_mib: Option<u64>,
    /// MiB that are to be free on its disk for new runs to be taken [default: 2 % of the disk, between 256 and 1024]
    #[arg(long, env = "LONGSHORE_AGENT_FREE_MIB", value_name = "MIB", value_parser = number::<u64>)]
    free_mib: Option<u64>,
}

impl DiskFlags {
    /// Puts the file and the flags together.
    pub(super) fn limits(&self, file: &AgentSection) -> DiskLimits {
        let bytes = |mib: Option<u64>| mib.map(|mib| mib.saturating_mul(MIB));
        let default = DiskLimits::default();
        let free = bytes(self.free_mib.or(file.free_mib));
        DiskLimits {
            free_bytes_min: free.unwrap_or(default.free_bytes_min),
            // Who names a size means that size.
            free_percent_min: free.map_or(default.free_percent_min, |_| 0),
            quota_bytes: bytes(self.quota_mib.or(file.quota_mib)),
            ended_runs_max: self.keep_runs.or(file.keep_runs).unwrap_or(default.ended_runs_max),
            ended_bytes_max: bytes(self.keep_mib.or(file.keep_mib)).unwrap_or(default.ended_bytes_max),
            ..default
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flag_wins_over_the_file_and_what_is_not_said_is_as_ever() {
        let file = AgentSection { keep_runs: Some(7), quota_mib: Some(1), ..AgentSection::default() };
        let flags = DiskFlags { quota_mib: Some(2), free_mib: Some(u64::MAX), ..DiskFlags::default() };
        let default = DiskLimits::default();
        assert_eq!(DiskFlags::default().limits(&AgentSection::default()), default);
        let limits = flags.limits(&file);
        assert_eq!((limits.ended_runs_max, limits.quota_bytes), (7, Some(2 * MIB)));
        assert_eq!((limits.free_bytes_min, limits.free_percent_min), (u64::MAX, 0));
        assert_eq!((limits.ended_bytes_max, limits.reserve_bytes), (default.ended_bytes_max, default.reserve_bytes));
    }
}
