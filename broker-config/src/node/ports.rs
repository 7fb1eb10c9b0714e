//! Free ports on loopback that stay free while a node is down.
//!
//! They are taken from below the range that the kernel hands out for outgoing connections. A port from inside that range
//! could be taken by any client while its broker is down, and a client that retries it could even connect to itself.

use std::collections::BTreeSet;
use std::fs;
use std::hash::{BuildHasher as _, RandomState};
use std::net::{Ipv4Addr, TcpListener};
use std::sync::{Mutex, PoisonError};

use super::error::NodeError;

/// Below this, ports are commonly assigned to services.
const LOWEST: u16 = 10_240;
/// Where Linux starts its ephemeral range unless told otherwise.
const USUAL_EPHEMERAL: u16 = 32_768;
/// The fewest candidates that are worth trying below the ephemeral range.
const MIN_CANDIDATES: u16 = 1_000;

/// What this process has handed out: two nodes that are created at once must not get the same port.
static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());

/// Picks `wanted` different free ports, starting at a random place so that processes rarely try the same one.
pub(crate) fn pick(wanted: usize) -> Result<Vec<u16>, NodeError> {
    let end = ephemeral_start().unwrap_or(USUAL_EPHEMERAL);
    let end = if end < LOWEST + MIN_CANDIDATES { u16::MAX } else { end };
    let span = end - LOWEST;
    let random = RandomState::new().hash_one(std::process::id());
    let first = u16::try_from(random % u64::from(span)).expect("the remainder of a u16 fits in a u16");
    let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
    let mut picked = Vec::with_capacity(wanted);
    for step in 0..span {
        if picked.len() == wanted {
            break;
        }
        let offset = (u32::from(first) + u32::from(step)) % u32::from(span);
        let port = LOWEST + u16::try_from(offset).expect("the remainder of a u16 fits in a u16");
        if !given.contains(&port) && is_free(port) {
            given.insert(port);
            picked.push(port);
        }
    }
    if picked.len() == wanted { Ok(picked) } else { Err(NodeError::NoPorts { wanted }) }
}

/// Whether a listener could be opened on the port now.
pub(crate) fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

fn ephemeral_start() -> Option<u16> {
    let text = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").ok()?;
    text.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn picked_ports_differ_and_lie_outside_the_ephemeral_range() {
        let mut ports = pick(5).unwrap();
        ports.extend(pick(5).unwrap());
        let distinct: BTreeSet<_> = ports.iter().collect();
        assert_eq!(distinct.len(), 10);
        if let Some(start) = ephemeral_start().filter(|s| *s >= LOWEST + MIN_CANDIDATES) {
            assert!(ports.iter().all(|port| (LOWEST..start).contains(port)), "{ports:?}");
        }
    }

    #[test]
    fn a_port_with_a_listener_is_not_free() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        assert!(!is_free(port));
    }
}
