//! What must hold for any key and value that an engine gives back: a row that is written as it was read, or an error. Run by the
//! fuzz target `rows` and by the property tests of `journal`.

use journal::{Row, RowError, State};

/// The first byte of a row's value.
const FORMAT: u8 = 1;

/// Takes the bytes apart into a key and a value: the first byte says how long the key is. Panics when something does not hold. Says
/// whether they were a row.
pub(crate) fn any_bytes(bytes: &[u8]) -> bool {
    let Some((length, rest)) = bytes.split_first() else { return false };
    let (key, value) = rest.split_at(rest.len().min(usize::from(*length)));
    check(key, value);
    // Hardly any bytes have the right checksum by chance, so the same content is tried with it.
    check(key, &sealed(key, value))
}

/// The value that holds that content under that key.
fn sealed(key: &[u8], content: &[u8]) -> Vec<u8> {
    let sum = crc32c::crc32c_append(crc32c::crc32c(key), content);
    [&[FORMAT][..], &sum.to_le_bytes(), content].concat()
}

fn check(key: &[u8], value: &[u8]) -> bool {
    let row = match Row::decode(key, value) {
        Ok(row) => row,
        Err(error) => {
            let known = matches!(error, RowError::Key { .. });
            assert!(!error.to_string().is_empty() && (known || !key.is_empty()), "{error}");
            return false;
        }
    };
    let (same_key, encoded) = row.encode();
    assert_eq!(same_key, key, "a row is where its content says");
    assert_eq!(Row::decode(&same_key, &encoded).ok().as_ref(), Some(&row), "a row is written as it was read");
    if let Row::Header(_, _, _, header) = &row {
        // Whatever the header's bytes are, they are read or refused.
        let _ = header.decode();
        let _ = header.hash();
    }
    // The fold takes the row or refuses it, and taking it twice is as once.
    let mut state = State::default();
    if state.put(&row).is_ok() {
        let once = state.clone();
        assert!(state.put(&row).is_ok() && state == once, "a row taken twice is as once");
    }
    true
}
