//! Defects around the session, planted to see whether a search finds them. None of them is ever built into a program that
//! runs.

/// One defect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Plant {
    /// What is to follow a commit is done before it.
    EffectsBeforeCommit,
    /// A process that starts has forgotten what was received and not applied.
    MarkLostOnCrash,
    /// After a restart the application is offered again what it has taken.
    OfferedAgain,
    /// A status says that everything received is settled.
    SettledOnReceipt,
    /// The answers to probes do not say that they are answers.
    AnswersUnmarked,
    /// A body is dropped as soon as the peer has received the message.
    DroppedOnReceipt,
}

impl Plant {
    /// Every one.
    pub const ALL: [Self; 6] = [
        Self::EffectsBeforeCommit,
        Self::MarkLostOnCrash,
        Self::OfferedAgain,
        Self::SettledOnReceipt,
        Self::AnswersUnmarked,
        Self::DroppedOnReceipt,
    ];
}
