//! The status: what one end of a pair of streams has, for the other end to compare with its journal. A status is complete
//! in itself, so any one of them may be lost, repeated or overtaken. Its fields have names of one letter where it travels, since
//! names were two thirds of it; those that they had before are understood.

mod wire;

use serde::{Deserialize, Serialize};

use self::wire::OnTheWire;
use crate::orders::RefusalCode;
use crate::{ChainHash, EndpointId, Epoch, Incarnation, Lineage, Nonce, ProbeId, ProtocolVersion, Ranges, Seq};

/// One endpoint's account of both streams that it shares with a peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "OnTheWire", into = "OnTheWire")]
pub struct Status {
    /// Who speaks.
    pub from: EndpointId,
    /// To whom.
    pub to: EndpointId,
    /// The process that speaks.
    pub nonce: Nonce,
    /// The lowest protocol version that it speaks.
    pub version_min: ProtocolVersion,
    /// The highest protocol version that it speaks.
    pub version_max: ProtocolVersion,
    /// The stream that it sends.
    pub sending: Sending,
    /// The stream that it receives, or nothing when it has never heard of one.
    pub receiving: Option<Receiving>,
    /// How many messages beyond its contiguous mark it is willing to take.
    pub window: u32,
    /// Asks for an answer: a status that names this probe. It was published behind everything sent before it.
    pub probe: Option<ProbeId>,
    /// The probe that this status answers.
    pub answers: Option<ProbeId>,
    /// The speaker has stopped both streams, and takes nothing until a person has looked. Its own log says why.
    pub frozen: bool,
    /// Facts about an agent; the server gives none.
    pub presence: Option<Presence>,
}

/// The sending side of a status.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sending {
    /// The sender's journal, as it writes this stream now.
    #[serde(rename = "i", alias = "incarnation")]
    pub incarnation: Incarnation,
    /// The journal itself, under the name that it was made with, if the stream goes by another.
    #[serde(rename = "j", alias = "journal", default, skip_serializing_if = "Option::is_none")]
    pub journal: Option<Incarnation>,
    /// Which incarnation wrote which part of the stream, if more than this one did.
    #[serde(rename = "l", alias = "lineage", default, skip_serializing_if = "Option::is_none")]
    pub lineage: Option<Lineage>,
    /// The opening of that journal. A lower one than already seen is an older process.
    #[serde(rename = "e", alias = "epoch")]
    pub epoch: Epoch,
    /// The lowest place whose message is still kept, header or whole.
    #[serde(rename = "k", alias = "lowest_kept")]
    pub lowest_kept: Seq,
    /// The place that the next message will get.
    #[serde(rename = "n", alias = "next")]
    pub next: Seq,
    /// The hash of the header at `next - 1`.
    #[serde(rename = "h", alias = "head", default = "wire::start", skip_serializing_if = "wire::is_start")]
    pub head: ChainHash,
    /// The receiver may drop everything up to here: it will never be asked about again.
    #[serde(rename = "f", alias = "forget_through", default, skip_serializing_if = "Option::is_none")]
    pub forget_through: Option<Seq>,
    /// The receiver's journal that what follows speaks of; nothing before the sender has heard of one.
    #[serde(rename = "t", alias = "toward", default, skip_serializing_if = "Option::is_none")]
    pub toward: Option<Incarnation>,
    /// What that journal said it has, without a gap. If it has less, it was restored from an old copy.
    #[serde(rename = "a", alias = "acknowledged", default, skip_serializing_if = "Option::is_none")]
    pub acknowledged: Option<Seq>,
    /// What else that journal said it has, beyond a gap.
    #[serde(rename = "b", alias = "acknowledged_beyond", default, skip_serializing_if = "Ranges::is_empty")]
    pub acknowledged_beyond: Ranges,
    /// The bodies up to here are dropped: their outcome was on stable storage on both sides, and cannot be had again.
    #[serde(rename = "s", alias = "settled_through", default, skip_serializing_if = "Option::is_none")]
    pub settled_through: Option<Seq>,
    /// An earlier journal of the receiver, lost since, may have received and carried out anything up to here.
    #[serde(rename = "d", alias = "doubtful_through", default, skip_serializing_if = "Option::is_none")]
    pub doubtful_through: Option<Seq>,
    /// How often the receiver's journal was found to have lost something. If the receiver knows of fewer times, it did so again.
    #[serde(rename = "o", alias = "losses", default, skip_serializing_if = "wire::is_zero")]
    pub losses: u32,
}

impl Sending {
    /// The journal, under the name that it was made with.
    #[must_use]
    pub fn made_as(&self) -> Incarnation {
        self.journal.unwrap_or(self.incarnation)
    }

    /// Which incarnation wrote which part of the stream; nothing if the status contradicts itself.
    #[must_use]
    pub fn parts(&self) -> Option<Lineage> {
        let lineage = self.lineage.clone().unwrap_or_else(|| Lineage::new(self.incarnation));
        (lineage.current().incarnation == self.incarnation).then_some(lineage)
    }
}

/// The receiving side of a status.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receiving {
    /// The sender's journal, as far as the receiver knows.
    #[serde(rename = "i", alias = "incarnation")]
    pub incarnation: Incarnation,
    /// The highest opening of that journal that the receiver has heard of. A sender that is behind it is an older process, or was
    /// restored from an old copy.
    #[serde(rename = "e", alias = "epoch")]
    pub epoch: Epoch,
    /// The process heard from in that opening, if this process of the receiver has heard from one.
    #[serde(rename = "n", alias = "nonce", default, skip_serializing_if = "Option::is_none")]
    pub nonce: Option<Nonce>,
    /// Earlier journals of the sender, of which nothing more is taken.
    #[serde(rename = "p", alias = "superseded", default, skip_serializing_if = "Vec::is_empty")]
    pub superseded: Vec<Incarnation>,
    /// Everything up to here is on the receiver's stable storage.
    #[serde(rename = "t", alias = "through", default, skip_serializing_if = "Option::is_none")]
    pub through: Option<Seq>,
    /// The hash of the header at `through`; means nothing if [`unanchored`](Self::unanchored).
    #[serde(rename = "h", alias = "head", default = "wire::start", skip_serializing_if = "wire::is_start")]
    pub head: ChainHash,
    /// The receiver does not know that header: it lost it, or was told that everything before is settled.
    #[serde(rename = "u", alias = "unanchored", default, skip_serializing_if = "std::ops::Not::not")]
    pub unanchored: bool,
    /// What else is on the receiver's stable storage.
    #[serde(rename = "r", alias = "ranges", default, skip_serializing_if = "Ranges::is_empty")]
    pub ranges: Ranges,
    /// Everything up to here has its final outcome on stable storage on both sides.
    #[serde(rename = "s", alias = "settled_through", default, skip_serializing_if = "Option::is_none")]
    pub settled_through: Option<Seq>,
    /// What was there when the last process that the sender has heard, or this one, began: only if something was taken since by processes
    /// that were not heard. Of a journal that was restored from an old copy this shows what it lacks, although what lay in the
    /// broker has hidden it since.
    #[serde(rename = "w", alias = "sworn", default, skip_serializing_if = "Option::is_none")]
    pub sworn: Option<Sworn>,
}

/// What was on a receiver's stable storage, in the sender's numbers.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Sworn {
    /// Everything up to here.
    #[serde(rename = "t", alias = "through")]
    pub through: Option<Seq>,
    /// What else.
    #[serde(rename = "r", alias = "ranges")]
    pub ranges: Ranges,
}

impl Receiving {
    /// What of the stream may be held against what the sender remembers of earlier words.
    #[must_use]
    pub fn sworn_marks(&self) -> (Option<Seq>, &Ranges) {
        match &self.sworn {
            Some(sworn) => (sworn.through, &sworn.ranges),
            None => (self.through, &self.ranges),
        }
    }
}

/// What an agent says of itself with every status.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Presence {
    /// Runs that it could begin at once.
    #[serde(rename = "f", alias = "slots_free")]
    pub slots_free: u16,
    /// Runs that it does at once, at most.
    #[serde(rename = "s", alias = "slots")]
    pub slots: u16,
    /// Whether it takes no new work.
    #[serde(rename = "d", alias = "draining", default, skip_serializing_if = "std::ops::Not::not")]
    pub draining: bool,
    /// The version of its program.
    #[serde(rename = "v", alias = "version")]
    pub version: String,
    /// Why it takes no new work now, if it does not.
    #[serde(rename = "r", alias = "refusing", default, skip_serializing_if = "Option::is_none")]
    pub refusing: Option<RefusalCode>,
}
