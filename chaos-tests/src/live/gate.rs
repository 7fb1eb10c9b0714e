//! A way to the broker that can be closed: connections lead through this program, which lets nothing pass while it is shut. What is
//! on its way then is kept, as a network without a way would have its ends send it again. It changes no byte.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

/// Bytes taken over at once.
const PIECE_BYTES: usize = 16 * 1024;

/// How the way is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shut {
    /// Nothing passes any more, and nobody is told: what is there only falls silent.
    Silently,
    /// The connections are lost, too, with what was on its way.
    WithItsConnections,
}

/// A way that can be closed. It ends when it is dropped.
pub struct Gate {
    address: SocketAddr,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    inner: Mutex<Inner>,
    changed: Condvar,
}

#[derive(Default)]
struct Inner {
    shut: bool,
    ended: bool,
    /// Both ends of what leads through, to cut them. Those that have ended cost nothing but their place.
    open: Vec<TcpStream>,
}

impl State {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until something may pass. False when it is all over.
    fn wait_open(&self) -> bool {
        let inner = self.changed.wait_while(self.inner(), |inner| inner.shut && !inner.ended);
        !inner.unwrap_or_else(PoisonError::into_inner).ended
    }
}

impl Gate {
    /// An open way to that address.
    ///
    /// # Errors
    /// The operating system's.
    pub fn to(upstream: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let (address, state) = (listener.local_addr()?, Arc::<State>::default());
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for client in listener.incoming() {
                if shared.inner().ended {
                    return;
                }
                let (Ok(client), shared) = (client, Arc::clone(&shared)) else { continue };
                // Whoever comes while it is shut is not led on before it is open.
                thread::spawn(move || lead(&client, upstream, &shared));
            }
        });
        Ok(Self { address, state })
    }

    /// Where it begins.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Lets nothing pass from now on.
    pub fn shut(&self, how: Shut) {
        let mut inner = self.state.inner();
        inner.shut = true;
        match how {
            Shut::Silently => {}
            Shut::WithItsConnections => {
                for stream in inner.open.drain(..) {
                    // One that has ended already is what is wanted.
                    let _ = stream.shutdown(Shutdown::Both);
                }
            }
        }
    }

    /// Lets everything pass again.
    pub fn open(&self) {
        self.state.inner().shut = false;
        self.state.changed.notify_all();
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        let mut inner = self.state.inner();
        inner.ended = true;
        for stream in inner.open.drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
        drop(inner);
        self.state.changed.notify_all();
        // Wakes whoever waits for the next connection.
        let _ = TcpStream::connect(self.address);
    }
}

fn lead(client: &TcpStream, upstream: SocketAddr, state: &Arc<State>) {
    if !state.wait_open() {
        return;
    }
    let Ok(broker) = TcpStream::connect(upstream) else { return };
    let copies = (client.try_clone(), broker.try_clone(), client.try_clone(), broker.try_clone());
    let (Ok(from_client), Ok(to_broker), Ok(to_client), Ok(from_broker)) = copies else { return };
    if let (Ok(client), Ok(broker)) = (client.try_clone(), broker.try_clone()) {
        state.inner().open.extend([client, broker]);
    }
    let shared = Arc::clone(state);
    let back = thread::spawn(move || pass(from_broker, to_client, &shared));
    pass(from_client, to_broker, state);
    // It ends when either end does: both are closed then.
    let _ = back.join();
}

/// Passes bytes on until either end closes, each only while the way is open.
fn pass(mut from: TcpStream, mut to: TcpStream, state: &State) {
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        let read = match from.read(&mut piece) {
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => 0,
        };
        // Neither a byte nor the end of all bytes passes a way that is shut.
        if !state.wait_open() || read == 0 || to.write_all(&piece[..read]).is_err() {
            let _ = to.shutdown(Shutdown::Both);
            let _ = from.shutdown(Shutdown::Both);
            return;
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn nothing_passes_a_gate_that_is_shut_and_nothing_is_lost_but_by_a_cut() {
        let echo = TcpListener::bind("127.0.0.1:0").unwrap();
        let gate = Gate::to(echo.local_addr().unwrap()).unwrap();
        let mut client = TcpStream::connect(gate.address()).unwrap();
        let (mut server, _) = echo.accept().unwrap();
        client.write_all(b"one").unwrap();
        let mut got = [0; 3];
        server.read_exact(&mut got).unwrap();
        assert_eq!(&got, b"one");
        gate.shut(Shut::Silently);
        client.write_all(b"two").unwrap();
        server.set_nonblocking(true).unwrap();
        assert_eq!(server.read(&mut got).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        server.set_nonblocking(false).unwrap();
        gate.open();
        server.read_exact(&mut got).unwrap();
        assert_eq!(&got, b"two");
        gate.shut(Shut::WithItsConnections);
        assert_eq!(server.read(&mut got).unwrap(), 0);
        let _waits = TcpStream::connect(gate.address()).unwrap();
        echo.set_nonblocking(true).unwrap();
        assert!(echo.accept().is_err(), "nobody is led through a gate that is shut");
    }
}
