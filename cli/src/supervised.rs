//! Telling whoever supervises this process that it is ready and lives: the monitor above an agent, or the service manager itself. It
//! supervises nothing.

use std::sync::Arc;
use std::time::Duration;

use agent::monitor::{BEAT_EVERY, Lifeline, Notifier};
use tokio::time::MissedTickBehavior;

use crate::exit::Exit;
use crate::failure::Failure;

/// Who supervises this process.
#[derive(Debug)]
pub(crate) enum Supervisor {
    /// The monitor that started it.
    Monitor(Lifeline),
    /// The service manager, if there is one.
    Manager(Notifier),
}

impl Supervisor {
    /// The service manager, as the environment names it.
    ///
    /// # Errors
    /// It names something that cannot be one.
    pub(crate) fn manager() -> Result<Self, Failure> {
        Notifier::from_environment().map(Self::Manager).map_err(|error| {
            Failure::new(Exit::Config, &error, "nothing was started", "unset NOTIFY_SOCKET, or leave it to systemd")
        })
    }

    /// The process does what it is for.
    pub(crate) fn ready(&self) {
        match self {
            Self::Monitor(line) => line.ready(),
            Self::Manager(notifier) => {
                notifier.ready();
                notifier.status("ready");
            }
        }
    }

    /// It is on its way to its end. The monitor sees that by itself.
    pub(crate) fn stopping(&self) {
        match self {
            Self::Monitor(_) => {}
            Self::Manager(notifier) => notifier.stopping(),
        }
    }

    /// Says from this runtime that it lives, as often as the supervisor wants to hear it, for as long as the runtime runs.
    pub(crate) fn live(self: &Arc<Self>) {
        let Some(every) = self.every() else { return };
        let supervisor = Arc::clone(self);
        tokio::spawn(async move {
            let mut beats = tokio::time::interval(every);
            beats.set_missed_tick_behavior(MissedTickBehavior::Skip);
            loop {
                beats.tick().await;
                supervisor.alive();
            }
        });
    }

    fn every(&self) -> Option<Duration> {
        match self {
            Self::Monitor(_) => Some(BEAT_EVERY),
            Self::Manager(notifier) => notifier.watchdog_every().filter(|every| !every.is_zero()),
        }
    }

    fn alive(&self) {
        match self {
            Self::Monitor(line) => line.beat(),
            Self::Manager(notifier) => notifier.alive(),
        }
    }
}
