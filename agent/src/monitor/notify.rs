//! The service manager's socket: telling systemd how the service is, and asking how often it wants to hear. Without a service
//! manager everything here does nothing. It reads nothing from the socket.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// Where systemd listens: a path, or an abstract name after an `@`.
const SOCKET_VARIABLE: &str = "NOTIFY_SOCKET";
/// Microseconds after which systemd ends a service that it did not hear of.
const WATCHDOG_VARIABLE: &str = "WATCHDOG_USEC";
/// The process that the watchdog is for; nothing for any.
const WATCHDOG_PID_VARIABLE: &str = "WATCHDOG_PID";

/// What must not reach the worker or a step: one that spoke to the socket would speak for the service.
pub const NOTIFY_VARIABLES: [&str; 3] = [SOCKET_VARIABLE, WATCHDOG_VARIABLE, WATCHDOG_PID_VARIABLE];

/// The way to the service manager.
#[derive(Debug)]
pub struct Notifier {
    socket: Option<(UnixDatagram, SocketAddr)>,
    watchdog: Option<Duration>,
}

impl Notifier {
    /// From what the service manager put into the environment.
    ///
    /// # Errors
    /// There is an address, and it is none, or the system gives no socket.
    pub fn from_environment() -> io::Result<Self> {
        Self::new(&|name| std::env::var_os(name), std::process::id())
    }

    fn new(variable: &dyn Fn(&str) -> Option<OsString>, own: u32) -> io::Result<Self> {
        let Some(name) = variable(SOCKET_VARIABLE).filter(|name| !name.is_empty()) else {
            return Ok(Self { socket: None, watchdog: None });
        };
        let socket = UnixDatagram::unbound()?;
        // A full queue must not hold up whoever speaks.
        socket.set_nonblocking(true)?;
        let number = |name| variable(name).and_then(|text| text.to_str().and_then(|text| text.parse::<u64>().ok()));
        let meant = number(WATCHDOG_PID_VARIABLE).is_none_or(|pid| pid == u64::from(own));
        let watchdog = number(WATCHDOG_VARIABLE).filter(|micros| *micros > 0 && meant).map(Duration::from_micros);
        Ok(Self { socket: Some((socket, address(&name)?)), watchdog })
    }

    /// How often to say [`Notifier::alive`]: thrice within the time that systemd allows.
    #[must_use]
    pub fn watchdog_every(&self) -> Option<Duration> {
        self.watchdog.map(|limit| limit / 3)
    }

    /// The service is up. Said again it changes nothing.
    pub fn ready(&self) {
        self.send(&format!("READY=1\nMAINPID={}\n", std::process::id()));
    }

    /// The service is on its way down.
    pub fn stopping(&self) {
        self.send("STOPPING=1\n");
    }

    /// It lives, for the watchdog.
    pub fn alive(&self) {
        if self.watchdog.is_some() {
            self.send("WATCHDOG=1\n");
        }
    }

    /// One line of how it is, for people.
    pub fn status(&self, words: &str) {
        let line = words.lines().next().unwrap_or_default();
        self.send(&format!("STATUS={line}\n"));
    }

    // The service works without its manager hearing of it, and there is nobody else to tell.
    fn send(&self, text: &str) {
        if let Some((socket, address)) = &self.socket {
            let _ = socket.send_to_addr(text.as_bytes(), address);
        }
    }
}

fn address(name: &OsStr) -> io::Result<SocketAddr> {
    match name.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
        [b'/', ..] => SocketAddr::from_pathname(name),
        _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "NOTIFY_SOCKET is neither a path nor an abstract name")),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn hear(socket: &UnixDatagram) -> String {
        let mut bytes = [0; 256];
        let length = socket.recv(&mut bytes).unwrap();
        String::from_utf8(bytes[..length].to_vec()).unwrap()
    }

    fn notifier(variables: &[(&str, &str)]) -> io::Result<Notifier> {
        let find = |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).into());
        Notifier::new(&find, 77)
    }

    #[test]
    fn a_service_manager_is_told_over_a_path_and_over_an_abstract_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let by_path = UnixDatagram::bind(&path).unwrap();
        let name = format!("longshore-test-{}", std::process::id());
        let by_name = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        for (socket, place) in [(by_path, path.to_str().unwrap().to_owned()), (by_name, format!("@{name}"))] {
            let notifier = notifier(&[("NOTIFY_SOCKET", &place), ("WATCHDOG_USEC", "3000000")]).unwrap();
            assert_eq!(notifier.watchdog_every(), Some(Duration::from_secs(1)));
            notifier.ready();
            assert_eq!(hear(&socket), format!("READY=1\nMAINPID={}\n", std::process::id()));
            notifier.alive();
            assert_eq!(hear(&socket), "WATCHDOG=1\n");
            notifier.status("takes work\nFDSTORE=1");
            assert_eq!(hear(&socket), "STATUS=takes work\n");
            notifier.stopping();
            assert_eq!(hear(&socket), "STOPPING=1\n");
        }
    }

    #[test]
    fn without_a_service_manager_nothing_is_said() {
        let silent = notifier(&[("WATCHDOG_USEC", "3000000")]).unwrap();
        silent.ready();
        assert_eq!(silent.watchdog_every(), None);
        assert!(notifier(&[("NOTIFY_SOCKET", "relative")]).is_err());
    }

    #[test]
    fn a_watchdog_for_another_process_is_not_ours() {
        let of = |pid| notifier(&[("NOTIFY_SOCKET", "@x"), ("WATCHDOG_USEC", "3"), ("WATCHDOG_PID", pid)]).unwrap();
        assert_eq!(of("78").watchdog_every(), None);
        assert_eq!(of("77").watchdog_every(), Some(Duration::from_micros(1)));
    }

    #[test]
    fn a_service_manager_that_does_not_listen_holds_nobody_up() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        let notifier = notifier(&[("NOTIFY_SOCKET", path.to_str().unwrap())]).unwrap();
        for _ in 0..10_000 {
            notifier.status("still here");
        }
        assert_eq!(hear(&socket), "STATUS=still here\n");
    }
}
