//! Valid bytes made wrong, for the property tests: what a fuzzer does by itself. It makes no choices of its own.

/// Changes bytes in several ways: each edit is a place, how, and with which byte.
pub(crate) fn mutate(valid: &[u8], edits: &[(usize, u8, u8)]) -> Vec<u8> {
    let mut bytes = valid.to_vec();
    for (place, how, byte) in edits {
        if bytes.is_empty() {
            bytes.push(*byte);
        }
        let at = place % bytes.len();
        match how % 6 {
            0 => bytes[at] ^= 1 << (byte % 8),
            1 => bytes[at] = *byte,
            2 => bytes.insert(at, *byte),
            3 => drop(bytes.remove(at)),
            4 => bytes.truncate(at),
            _ => {
                let end = bytes.len().min(at + usize::from(*byte));
                let copied = bytes[at..end].to_vec();
                bytes.extend(copied);
            }
        }
    }
    bytes
}
