//! A log that nobody can write any more, because its disk is full or its reader has gone, is lost. Whoever writes it lives, and ends
//! as ever. There is no broker, which gives them something to log.

use std::fs::OpenOptions;
use std::os::unix::net::UnixDatagram;
use std::process::{Child, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::run::Home;

/// After this a test fails that would otherwise wait for ever. Nothing here takes a tenth of it.
const PATIENCE: Duration = Duration::from_secs(600);

/// Where the log goes in vain.
#[derive(Debug, Clone, Copy)]
enum Lost {
    FullDisk,
    ReaderGone,
}

impl Lost {
    fn start(self, home: &Home, arguments: &[&str]) -> Child {
        let mut command = home.command(arguments);
        command.env("LONGSHORE_BROKER_URL", "amqp://u:p@127.0.0.1:1").env("NOTIFY_SOCKET", home.path().join("notify"));
        let stderr = match self {
            Self::FullDisk => OpenOptions::new().write(true).open("/dev/full").unwrap().into(),
            Self::ReaderGone => {
                let (reader, writer) = std::io::pipe().unwrap();
                drop(reader);
                Stdio::from(writer)
            }
        };
        command.stdout(Stdio::null()).stderr(stderr).spawn().unwrap()
    }
}

/// Returns when the service manager was told something that begins so.
fn hear(socket: &UnixDatagram, words: &str) {
    let mut bytes = [0; 512];
    loop {
        let length = match socket.recv(&mut bytes) {
            // Whoever stops this process and lets it go on, as a debugger does.
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            length => length.unwrap(),
        };
        if bytes[..length].starts_with(words.as_bytes()) {
            return;
        }
    }
}

#[test]
fn who_cannot_write_the_log_lives_and_ends_as_ever() {
    let server = ["server", "run", "--listen", "127.0.0.1:0", "--agents", "a1"];
    for arguments in [&server[..], &["agent", "run", "--name", "a1", "--no-monitor"], &["agent", "run", "--name", "a1"]]
    {
        for lost in [Lost::FullDisk, Lost::ReaderGone] {
            let home = Home::new();
            let socket = UnixDatagram::bind(home.path().join("notify")).unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            let mut child = lost.start(&home, arguments);
            // Just before it is ready it says so in its log.
            hear(&socket, "READY=1");
            assert_eq!(child.try_wait().unwrap(), None, "{lost:?}: {arguments:?}");
            kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
            if arguments[0] == "agent" {
                // It finishes first, and waits a minute for a broker to say so to; asked again it stops at once. If the two arrive as
                // one, it takes that minute.
                if !arguments.contains(&"--no-monitor") {
                    hear(&socket, "STATUS=finishes");
                }
                kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
            }
            assert_eq!(child.wait().unwrap().code(), Some(0), "{lost:?}: {arguments:?}");
        }
    }
}
