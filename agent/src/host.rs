//! What this host allows an agent: to run a step as another user, to limit what it uses, and what it is called. It reads, and
//! lets another user reach its own step's folders; it changes nothing else.

use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::Path;

use messages::{Limits, is_label};

use crate::attempt::RunAs;
use crate::attempt::layout::OUTPUT;

/// Where the system's users are listed.
const PASSWD: &str = "/etc/passwd";
/// Where the kernel says what the machine is called.
const HOSTNAME: &str = "/proc/sys/kernel/hostname";
/// What others may do with the folders above a step's: pass through to what they know the name of.
const PASS_THROUGH: u32 = 0o711;

/// What the host allows, found out when the agent starts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Host {
    /// Whether the agent may become another user.
    root: bool,
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
        Self { root: rustix::process::geteuid().is_root() }
    }

    /// The user of that name, if a step may run as such.
    ///
    /// # Errors
    /// Why it cannot, in words for the step's author.
    pub(crate) fn account(self, name: &str) -> Result<Account, String> {
        if !self.root {
            return Err(format!("it is to run as user `{name}`, and only an agent that runs as root can do that"));
        }
        let text = fs::read_to_string(PASSWD).map_err(|error| format!("{PASSWD} cannot be read: {error}"))?;
        find(&text, name).ok_or_else(|| format!("it is to run as user `{name}`, and {PASSWD} has no such user"))
    }

    /// Which limits are not enforced here, or only in part.
    pub(crate) fn unenforced(self, limits: &Limits) -> Option<String> {
        let memory = limits.memory_bytes.is_some().then_some(
            "the memory limit holds for the address space of each process by itself, not for all of the step's together",
        );
        let cpu = limits.cpu_percent.is_some().then_some("the CPU limit is not enforced");
        let parts: Vec<&str> = memory.into_iter().chain(cpu).collect();
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

    /// Lets the user reach its working folder, which becomes its own, and the file for its outputs. What else is in the folders
    /// on the way, the journal above all, stays closed to it. The way to the agent's own folder is not the agent's to open.
    pub(crate) fn let_in(&self, agent: &Path, work: &Path, attempt: &Path) -> io::Result<()> {
        for end in [work, attempt] {
            let way = end.ancestors().take_while(|folder| folder.starts_with(agent));
            for folder in way.filter(|folder| *folder != work) {
                fs::set_permissions(folder, fs::Permissions::from_mode(PASS_THROUGH))?;
            }
        }
        chown(work, Some(self.uid), Some(self.gid))?;
        chown(attempt.join(OUTPUT), Some(self.uid), Some(self.gid))
    }
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
    fn an_agent_that_is_not_root_says_that_it_cannot_run_as_another_user() {
        assert!(Host { root: false }.account("web").unwrap_err().contains("only an agent that runs as root"));
        assert!(Host { root: true }.account("no such user").unwrap_err().contains("no such user"));
    }

    #[test]
    fn a_limit_that_is_not_enforced_is_said() {
        let host = Host { root: false };
        assert_eq!(host.unenforced(&Limits::default()), None);
        assert_eq!(host.unenforced(&Limits { output_bytes: Some(1), ..Limits::default() }), None);
        let limits = Limits { memory_bytes: Some(1), cpu_percent: Some(50), output_bytes: None };
        let said = host.unenforced(&limits).unwrap();
        assert!(said.contains("memory") && said.contains("CPU"), "{said}");
    }
}
