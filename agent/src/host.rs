//! What this host allows an agent: to run a step as another user, to limit what it uses, and what it is called. It reads, and
//! lets another user reach its own step's folders; it changes nothing else.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::Path;

use messages::{Limits, is_label};

use crate::attempt::{GroupPlan, RunAs};
use crate::groups::Groups;

/// Where the system's users are listed.
const PASSWD: &str = "/etc/passwd";
/// Where the kernel says what the machine is called.
const HOSTNAME: &str = "/proc/sys/kernel/hostname";
/// What others may do with the folders above a step's: pass through to what they know the name of.
const PASS_THROUGH: u32 = 0o711;

/// What the host allows, found out when the agent starts.
#[derive(Debug, Clone)]
pub(crate) struct Host {
    /// Whether the agent may become another user.
    root: bool,
    groups: Groups,
}

/// A user of the system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Account {
    name: String,
    uid: u32,
    gid: u32,
    home: String,
}

impl Host {
    pub(crate) fn new() -> Self {
        let groups = Groups::find();
        match (groups.lacking(), groups.lacking_memory().or(groups.lacking_cpu())) {
            (Some(reason), _) => {
                tracing::info!(%reason, "Steps have no control groups; they are kept track of by their sessions and descent.");
            }
            (None, Some(reason)) => {
                tracing::info!(%reason, "Steps have control groups, in which not everything can be limited.");
            }
            (None, None) => {
                tracing::info!("Steps have control groups, in which memory and processor time can be limited.")
            }
        }
        Self { root: rustix::process::geteuid().is_root(), groups }
    }

    pub(crate) const fn groups(&self) -> &Groups {
        &self.groups
    }

    /// The group for an attempt with that name, and the limit of memory that is left to each of its processes by itself.
    pub(crate) fn limits(&self, name: &str, limits: &Limits) -> (Option<GroupPlan>, Option<u64>) {
        let group = self.groups.place(name).map(|place| GroupPlan {
            place,
            memory_bytes: limits.memory_bytes.filter(|_| self.groups.lacking_memory().is_none()),
            cpu_percent: limits.cpu_percent.filter(|_| self.groups.lacking_cpu().is_none()),
        });
        let whole = group.as_ref().is_some_and(|group| group.memory_bytes.is_some());
        (group, limits.memory_bytes.filter(|_| !whole))
    }

    /// The user of that name, if a step may run as such.
    ///
    /// # Errors
    /// Why it cannot, in words for the step's author.
    pub(crate) fn account(&self, name: &str) -> Result<Account, String> {
        if !self.root {
            return Err(format!("it is to run as user `{name}`, and only an agent that runs as root can do that"));
        }
        let text = fs::read_to_string(PASSWD).map_err(|error| format!("{PASSWD} cannot be read: {error}"))?;
        find(&text, name).ok_or_else(|| format!("it is to run as user `{name}`, and {PASSWD} has no such user"))
    }

    /// Which limits are not enforced here, or only in part, and why. `output_bytes_max` is what is kept of any output.
    pub(crate) fn unenforced(&self, limits: &Limits, output_bytes_max: u64) -> Option<String> {
        let memory = limits.memory_bytes.and_then(|_| self.groups.lacking_memory()).map(|reason| {
            format!("the memory limit holds for the address space of each process by itself, not for all of the step's together ({reason})")
        });
        let cpu = limits.cpu_percent.and_then(|_| self.groups.lacking_cpu());
        let cpu = cpu.map(|reason| format!("the CPU limit is not enforced ({reason})"));
        let output = limits.output_bytes.filter(|bytes| *bytes > output_bytes_max);
        let output = output.map(|_| format!("of each output {output_bytes_max} bytes are kept at most"));
        let parts: Vec<String> = memory.into_iter().chain(cpu).chain(output).collect();
        (!parts.is_empty()).then(|| format!("limits not enforced here: {}", parts.join("; ")))
    }
}

fn find(passwd: &str, name: &str) -> Option<Account> {
    passwd.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let [found, _, uid, gid, _, home, ..] = fields[..] else { return None };
        let (uid, gid) = (uid.parse().ok()?, gid.parse().ok()?);
        (found == name).then(|| Account { name: found.to_owned(), uid, gid, home: home.to_owned() })
    })
}

impl Account {
    pub(crate) const fn run_as(&self) -> RunAs {
        RunAs { uid: self.uid, gid: self.gid }
    }

    /// What such a user expects in its environment.
    pub(crate) fn variables(&self) -> [(&'static str, String); 3] {
        [("HOME", self.home.clone()), ("USER", self.name.clone()), ("LOGNAME", self.name.clone())]
    }

    /// Lets the user reach its working folder and the file for its outputs, which become its own. What else is in the folders
    /// on the way, the journal above all, stays closed to it. The way to the agent's own folder is not the agent's to open.
    ///
    /// # Errors
    /// The system's; or which folder above the agent's own keeps the user out, and what to do about it.
    pub(crate) fn let_in(&self, agent: &Path, work: &Path, output: &Path) -> io::Result<()> {
        if let Some(folder) = self.kept_out_by(agent) {
            let (name, folder) = (&self.name, folder.display());
            return Err(io::Error::other(format!(
                "the user `{name}` cannot pass through {folder}, in which the agent has its own folder; let it: chmod o+x {folder}"
            )));
        }
        for end in [work, output] {
            for folder in end.ancestors().skip(1).take_while(|folder| folder.starts_with(agent)) {
                fs::set_permissions(folder, fs::Permissions::from_mode(PASS_THROUGH))?;
            }
        }
        [work, output].into_iter().try_for_each(|own| chown(own, Some(self.uid), Some(self.gid)))
    }

    /// The first folder above that one which the user may not pass through, by what its mode says; none that has a list of who may.
    fn kept_out_by<'a>(&self, agent: &'a Path) -> Option<&'a Path> {
        agent.ancestors().skip(1).find(|folder| {
            // What cannot be looked at is said by whoever cannot use it.
            fs::metadata(folder).is_ok_and(|metadata| {
                let bit = match (metadata.uid() == self.uid, metadata.gid() == self.gid) {
                    (true, _) => 0o100,
                    (false, true) => 0o010,
                    (false, false) => 0o001,
                };
                metadata.mode() & bit == 0 && !has_list(folder)
            })
        })
    }
}

/// Whether more than its mode says who may pass through a folder: then only the kernel knows.
fn has_list(folder: &Path) -> bool {
    rustix::fs::getxattr(folder, "system.posix_acl_access", &mut [0_u8; 0][..]).is_ok_and(|bytes| bytes > 0)
}

/// What the agent found out about its machine, as labels.
pub(crate) fn labels() -> Vec<(String, String)> {
    let host = fs::read_to_string(HOSTNAME).unwrap_or_default();
    [("os", std::env::consts::OS), ("arch", std::env::consts::ARCH), ("host", host.trim())]
        .into_iter()
        // A machine without a name, or with one that no label can have, has no such label.
        .filter(|(_, value)| is_label(value))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const TEXT: &str =
        "root:x:0:0:root:/root:/bin/sh\nbroken\nweb:x:33:34:Web:/var/www:/usr/sbin/nologin\nodd:x:-1:5::/:\n";

    #[test]
    fn a_user_is_found_by_its_whole_name_only() {
        let web = find(TEXT, "web").unwrap();
        assert_eq!((web.run_as(), web.home.as_str()), (RunAs { uid: 33, gid: 34 }, "/var/www"));
        for nobody in ["we", "webs", "", "broken", "odd", "33"] {
            assert_eq!(find(TEXT, nobody), None, "{nobody}");
        }
    }

    #[test]
    fn a_folder_above_the_agents_that_keeps_a_user_out_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let (above, agent) = (dir.path().join("agents"), dir.path().join("agents/a1"));
        fs::create_dir_all(&agent).unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o711)).unwrap();
        let own = fs::metadata(&above).unwrap();
        let account = |uid, gid| Account { name: "web".to_owned(), uid, gid, home: String::new() };
        let (other, fellow) = (account(own.uid() + 1, own.gid() + 1), account(own.uid() + 1, own.gid()));
        for (mode, keeps_other, keeps_fellow) in [(0o700, true, true), (0o710, true, false), (0o711, false, false)] {
            fs::set_permissions(&above, fs::Permissions::from_mode(mode)).unwrap();
            let by = |account: &Account| account.kept_out_by(&agent).map(Path::to_owned);
            assert_eq!(by(&other), keeps_other.then(|| above.clone()), "{mode:o}");
            assert_eq!(by(&fellow), keeps_fellow.then(|| above.clone()), "{mode:o}");
        }
        fs::set_permissions(&above, fs::Permissions::from_mode(0o700)).unwrap();
        let refused = other.let_in(&agent, &agent.join("work"), &agent.join("one.1.output")).unwrap_err().to_string();
        assert!(refused.contains("`web` cannot pass through") && refused.contains("chmod o+x"), "{refused}");
    }

    #[test]
    fn an_agent_that_is_not_root_says_that_it_cannot_run_as_another_user() {
        let host = |root| Host { root, groups: Groups::none("no groups") };
        assert!(host(false).account("web").unwrap_err().contains("only an agent that runs as root"));
        assert!(host(true).account("no such user").unwrap_err().contains("no such user"));
    }

    #[test]
    fn a_limit_that_is_not_enforced_is_said() {
        let host = Host { root: false, groups: Groups::none("nothing is mounted") };
        assert_eq!(host.unenforced(&Limits::default(), 10), None);
        assert_eq!(host.unenforced(&Limits { output_bytes: Some(10), ..Limits::default() }, 10), None);
        let limits = Limits { memory_bytes: Some(1), cpu_percent: Some(50), output_bytes: Some(11) };
        let said = host.unenforced(&limits, 10).unwrap();
        assert!(said.contains("memory") && said.contains("CPU") && said.contains("10 bytes are kept"), "{said}");
        assert_eq!(said.matches("nothing is mounted").count(), 2);
        assert_eq!(host.limits("one", &limits), (None, Some(1)));
    }
}
