//! Password hashes as RabbitMQ stores them: `base64(salt ++ sha256(salt ++ password))` with a salt of four bytes.
//!
//! The salt comes from the caller, so that rendering stays deterministic. The clear password is not kept.

use std::fmt;

use sha2::{Digest as _, Sha256};

/// A salted SHA-256 password hash for `definitions.json`.
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordHash(String);

impl PasswordHash {
    /// Hashes `password` with `salt`, which should be random and differ from user to user.
    #[must_use]
    pub fn new(password: &str, salt: [u8; 4]) -> Self {
        let digest = Sha256::new().chain_update(salt).chain_update(password).finalize();
        let mut bytes = salt.to_vec();
        bytes.extend_from_slice(&digest);
        Self(base64(&bytes))
    }

    /// The value of `password_hash`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for PasswordHash {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("PasswordHash(..)")
    }
}

/// Standard base64 with padding (RFC 4648, section 4).
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let group = (0..3).fold(0_u32, |acc, i| acc << 8 | u32::from(*chunk.get(i).unwrap_or(&0)));
        for position in 0..4 {
            if position > chunk.len() {
                text.push('=');
            } else {
                let index = group >> (18 - 6 * position) & 0x3f;
                text.push(char::from(ALPHABET[index as usize]));
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_agrees_with_the_vectors_of_rfc_4648() {
        let vectors = [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ];
        for (clear, encoded) in vectors {
            assert_eq!(base64(clear.as_bytes()), encoded);
        }
    }

    #[test]
    fn a_hash_agrees_with_the_example_in_rabbitmqs_own_documentation() {
        // "test12" with the salt 90 8D C6 0A, from the guide on passwords.
        let hash = PasswordHash::new("test12", [0x90, 0x8d, 0xc6, 0x0a]);
        assert_eq!(hash.as_str(), "kI3GCqW5JLMJa4iX1lo7X4D6XbYqlLgxIs30+P6tENUV2POR");
    }

    #[test]
    fn a_hash_does_not_print_itself() {
        assert_eq!(format!("{:?}", PasswordHash::new("x", [0; 4])), "PasswordHash(..)");
    }
}
