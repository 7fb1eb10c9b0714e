//! The exit codes: few, stable, and the same for every command. Scripts rely on them.

use std::process::ExitCode;

/// How the process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Everything was done.
    Ok,
    /// A job failed, or a check found a problem.
    Failed,
    /// The command or its input cannot be understood.
    Usage,
    /// A journal is damaged.
    Damaged,
    /// The server or the broker cannot be reached or cannot serve.
    Unreachable,
    /// The outcome is not known yet.
    Unknown,
    /// Not allowed.
    NotAllowed,
    /// The configuration is wrong.
    Config,
    /// A wait took longer than allowed.
    WaitTimedOut,
    /// Interrupted by Ctrl-C.
    Interrupted,
}

impl Exit {
    /// All of them, in the order of their codes.
    pub(crate) const ALL: [Self; 10] = [
        Self::Ok,
        Self::Failed,
        Self::Usage,
        Self::Damaged,
        Self::Unreachable,
        Self::Unknown,
        Self::NotAllowed,
        Self::Config,
        Self::WaitTimedOut,
        Self::Interrupted,
    ];

    /// The code that the shell sees.
    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Damaged => 65,
            Self::Unreachable => 69,
            Self::Unknown => 75,
            Self::NotAllowed => 77,
            Self::Config => 78,
            Self::WaitTimedOut => 124,
            Self::Interrupted => 130,
        }
    }

    /// What it means, in one line.
    pub(crate) const fn meaning(self) -> &'static str {
        match self {
            Self::Ok => "done",
            Self::Failed => "the job failed, or a check found a problem",
            Self::Usage => "the command, the job file or an id cannot be used; nothing was changed",
            Self::Damaged => "a journal is damaged",
            Self::Unreachable => "the server or the broker cannot be reached or cannot serve",
            Self::Unknown => "the outcome is not known: an agent is away, or a step needs a decision",
            Self::NotAllowed => "not allowed: wrong token, or not the owner",
            Self::Config => "the configuration is wrong",
            Self::WaitTimedOut => "the wait took longer than --timeout or --deadline; the work goes on",
            Self::Interrupted => "interrupted by Ctrl-C; the work goes on",
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// The table of `longshore help exit-codes`.
pub(crate) fn table() -> String {
    Exit::ALL.iter().map(|exit| format!("{:>5}  {}\n", exit.code(), exit.meaning())).collect()
}
