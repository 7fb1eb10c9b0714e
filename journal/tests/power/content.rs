//! What a file may hold after a loss of power: what is certain of it, and the changes since, of which any sector may have come
//! to the disk and any other not. It knows no names.

/// Bytes that a disk writes whole or not at all.
pub(crate) const SECTOR: u64 = 512;

/// When a call was under way: the lines of the trace. Its begin is also its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) begin: u64,
    pub(crate) end: u64,
}

/// What of the changes has come to the disk. Each is asked by the begin of its call.
pub(crate) trait Kept {
    /// Whether this sector has.
    fn sector(&self, change: u64, sector: u64) -> bool;
    /// Whether the length that the file had after it has.
    fn length(&self, change: u64) -> bool;
    /// Whether what it did to names has.
    fn name(&self, change: u64) -> bool;
}

/// A change of a file that may be lost.
#[derive(Debug, Clone)]
pub(crate) struct Change {
    pub(crate) span: Span,
    pub(crate) what: What,
}

/// What was changed.
#[derive(Debug, Clone)]
pub(crate) enum What {
    /// These bytes were put there.
    Write(u64, Vec<u8>),
    /// The file got that length.
    Resize(u64),
}

/// A file's content.
#[derive(Debug, Clone, Default)]
pub(crate) struct Content {
    certain: Vec<u8>,
    live: Vec<u8>,
    pub(crate) changes: Vec<Change>,
}

fn size(number: u64) -> usize {
    usize::try_from(number).unwrap()
}

/// Makes a change, the length included.
fn make(bytes: &mut Vec<u8>, what: &What) {
    match what {
        What::Write(offset, new) => {
            put(bytes, *offset, new);
        }
        What::Resize(length) => bytes.resize(size(*length), 0),
    }
}

fn put(bytes: &mut Vec<u8>, offset: u64, new: &[u8]) {
    let (from, to) = (size(offset), size(offset) + new.len());
    if bytes.len() < to {
        bytes.resize(to, 0);
    }
    bytes[from..to].copy_from_slice(new);
}

impl Content {
    /// A file that is there, and on stable storage.
    pub(crate) fn certain(bytes: Vec<u8>) -> Self {
        Self { live: bytes.clone(), certain: bytes, changes: Vec::new() }
    }

    pub(crate) fn live(&self) -> &[u8] {
        &self.live
    }

    pub(crate) fn change(&mut self, span: Span, what: What) {
        make(&mut self.live, &what);
        self.changes.push(Change { span, what });
    }

    /// Makes certain what had ended before a sync began. A sync of data alone promises only the length that the data needs: that
    /// a file has become shorter is not part of it.
    pub(crate) fn sync(&mut self, begin: u64, data_only: bool) {
        let (covered, left): (Vec<Change>, Vec<Change>) =
            std::mem::take(&mut self.changes).into_iter().partition(|change| change.span.end < begin);
        self.changes = left;
        if !data_only {
            covered.iter().for_each(|change| make(&mut self.certain, &change.what));
            return;
        }
        let mut length = self.certain.len() as u64;
        let mut shrunk = None;
        for change in covered {
            match &change.what {
                What::Write(offset, new) => {
                    length = length.max(offset + new.len() as u64);
                    put(&mut self.certain, *offset, new);
                }
                What::Resize(shorter) if *shorter < length => {
                    (length, shrunk) = (*shorter, Some(change.span));
                }
                What::Resize(longer) => {
                    length = *longer;
                    self.certain.resize(size(*longer).max(self.certain.len()), 0);
                }
            }
        }
        if let Some(span) = shrunk {
            self.changes.insert(0, Change { span, what: What::Resize(length) });
        }
    }

    /// What the file holds when of its changes this has come to the disk. Each sector is as it was at one moment since the last
    /// sync, whatever the others are; what was never written is zeros.
    pub(crate) fn after(&self, kept: &dyn Kept) -> Vec<u8> {
        if self.changes.is_empty() {
            return self.certain.clone();
        }
        let (mut now, mut image, mut length) = (self.certain.clone(), self.certain.clone(), self.certain.len());
        for change in &self.changes {
            let before = now.len() as u64;
            let (from, to) = match &change.what {
                What::Write(offset, new) => (*offset, offset + new.len() as u64),
                What::Resize(new) => (*new.min(&before), *new.max(&before)),
            };
            make(&mut now, &change.what);
            if kept.length(change.span.begin) {
                length = now.len();
            }
            for sector in from / SECTOR..to.div_ceil(SECTOR) {
                if kept.sector(change.span.begin, sector) {
                    let (start, end) = (size(sector * SECTOR), size((sector + 1) * SECTOR));
                    let there = now.get(start..end.min(now.len())).unwrap_or_default();
                    if image.len() < end {
                        image.resize(end, 0);
                    }
                    image[start..start + there.len()].copy_from_slice(there);
                    image[start + there.len()..end].fill(0);
                }
            }
        }
        image.resize(length, 0);
        image
    }
}
