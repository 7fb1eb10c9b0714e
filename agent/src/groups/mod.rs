//! Control groups of version 2: what a host allows of them, found out by trying, and where the steps' groups go. A step in a group of
//! its own is ended at one stroke, its leftovers are found however they hide, and limits hold for all of its processes together.
//! Nothing here is needed for a step to run, and nothing outside the agent's own group is changed.
//!
//! ```text
//! the agent's group (a unit of systemd with Delegate=yes, a container, whatever it was started in)
//! ├── longshore            monitor, worker and shims: a group with controllers for its children must hold no process itself
//! ├── longshore-RUN-STEP-1.INODE   the processes of one attempt
//! └── longshore-RUN-STEP-2.INODE
//! ```

mod group;
mod hierarchy;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

pub(crate) use group::Group;
pub(crate) use hierarchy::own as own_group;

/// The group of the agent's own processes, within the one that it was started in. A unit can have systemd start it there.
pub const LEAF: &str = "longshore";
/// How the names of steps' groups begin.
const PREFIX: &str = "longshore-";
/// Where systemd listens. Whoever has this is the main process of a service.
const SOCKET_VARIABLE: &str = "NOTIFY_SOCKET";

/// Groups that this process made to try it out: each has a name of its own.
static PROBES: AtomicU32 = AtomicU32::new(0);

/// What the host allows of control groups.
#[derive(Debug, Clone)]
pub struct Groups(Arc<Result<Allowed, String>>);

#[derive(Debug)]
struct Allowed {
    /// Where the steps' groups are made.
    base: PathBuf,
    memory: Controller,
    cpu: Controller,
}

/// Whether a controller works in the steps' groups.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Controller {
    On,
    /// It does not, for that reason.
    Off(String),
}

impl Groups {
    /// Finds out what is allowed, by trying it: makes a group, has a small process move itself there, and switches controllers on for
    /// the steps' groups if this process is where [`settle`] puts it.
    #[must_use]
    pub fn find() -> Self {
        Self(Arc::new(hierarchy::own().and_then(|own| Allowed::of(&own))))
    }

    /// None, for that reason.
    #[must_use]
    pub fn none(reason: &str) -> Self {
        Self(Arc::new(Err(reason.to_owned())))
    }

    /// Why there are none; nothing if there are.
    #[must_use]
    pub fn lacking(&self) -> Option<&str> {
        (*self.0).as_ref().err().map(String::as_str)
    }

    /// Why memory is not limited for all processes of a step together; nothing if it is.
    #[must_use]
    pub fn lacking_memory(&self) -> Option<&str> {
        self.lacking_of(|allowed| &allowed.memory)
    }

    /// Why processor time is not limited; nothing if it is.
    #[must_use]
    pub fn lacking_cpu(&self) -> Option<&str> {
        self.lacking_of(|allowed| &allowed.cpu)
    }

    fn lacking_of(&self, controller: impl FnOnce(&Allowed) -> &Controller) -> Option<&str> {
        match (*self.0).as_ref().map(controller) {
            Ok(Controller::On) => None,
            Ok(Controller::Off(reason)) | Err(reason) => Some(reason),
        }
    }

    /// Where the group of an attempt with that name is to be; nothing without groups. The attempt adds what tells it from a copy of it.
    #[must_use]
    pub fn place(&self, name: &str) -> Option<PathBuf> {
        (*self.0).as_ref().ok().map(|allowed| allowed.base.join(format!("{PREFIX}{name}")))
    }

    /// Removes the groups of steps in which nothing runs any more. A shim that is just making one makes it again.
    pub fn sweep(&self) {
        let Ok(allowed) = self.0.as_ref() else { return };
        let Ok(entries) = fs::read_dir(&allowed.base) else { return };
        for entry in entries.flatten() {
            if entry.file_name().to_str().is_some_and(|name| name.starts_with(PREFIX)) {
                Group::at(entry.path()).remove();
            }
        }
    }
}

impl Allowed {
    fn of(own: &Path) -> Result<Self, String> {
        let settled = own.file_name().is_some_and(|name| name == LEAF);
        let base = own.parent().filter(|_| settled).unwrap_or(own);
        let number = PROBES.fetch_add(1, Ordering::Relaxed);
        let probe = Group::at(base.join(format!("{PREFIX}probe-{}-{number}", std::process::id())));
        let tried = try_out(&probe);
        probe.remove();
        tried.map_err(|error| format!("no control group can be made under {}: {error}", base.display()))?;
        let on = |name| match settled {
            true => switch_on(base, name),
            false => Controller::Off(format!(
                "the agent was not started in a group `{LEAF}` of its own, as systemd does it from version 254 on"
            )),
        };
        Ok(Self { base: base.to_owned(), memory: on("memory"), cpu: on("cpu") })
    }
}

// Whoever may make a group need not be allowed to move processes into it. The process that tries it moves itself: this one stays where
// it is, whatever it starts meanwhile.
fn try_out(probe: &Group) -> io::Result<()> {
    probe.make()?;
    let script = "echo $$ > \"$1\"";
    let moved = Command::new("/bin/sh")
        .args(["-c", script, "longshore"])
        .arg(probe.members_file())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .output()?;
    match moved.status.success() {
        true => Ok(()),
        false => Err(io::Error::other(String::from_utf8_lossy(&moved.stderr).trim().to_owned())),
    }
}

fn switch_on(base: &Path, name: &str) -> Controller {
    let listed = |file: &str| {
        let text = fs::read_to_string(base.join(file)).unwrap_or_default();
        text.split_whitespace().any(|word| word == name)
    };
    if !listed("cgroup.controllers") {
        return Controller::Off(format!("the host gives {} no {name} controller of version 2", base.display()));
    }
    if !listed("cgroup.subtree_control")
        && let Err(error) = group::write(&base.join("cgroup.subtree_control"), &format!("+{name}"))
    {
        return Controller::Off(format!("the {name} controller cannot be switched on in {}: {error}", base.display()));
    }
    Controller::On
}

/// Puts this process into the group [`LEAF`] of its own, from where the processes that it starts inherit it. To be called before there
/// are any. Without groups, and where a restart by the service manager would then fail, nothing happens: a service manager that did
/// not start it there starts it again in the group above, which must not have controllers for its children then.
pub fn settle() {
    if std::env::var_os(SOCKET_VARIABLE).is_some_and(|name| !name.is_empty()) {
        return;
    }
    let Ok(own) = hierarchy::own() else { return };
    if own.file_name().is_none_or(|name| name != LEAF) {
        let leaf = Group::at(own.join(LEAF));
        if leaf.make().and_then(|()| leaf.enter()).is_err() {
            leaf.remove();
        }
    }
}
