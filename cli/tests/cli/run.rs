//! Starting the binary with nothing but what a test gives it, and a server for it to ask.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use server::api::{Access, Api, ApiConfig, Token};
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::desk::TestDesk;

pub const JOB: &str = "name = 'x'\ntarget = { agents = ['a1'] }\n[[step]]\nid = 's'\nrun = 'true'\n";

/// A home folder of its own.
pub struct Home {
    pub folder: tempfile::TempDir,
}

impl Home {
    pub fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    pub fn write(&self, name: &str, text: &str) {
        let path = self.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_longshore"));
        command.args(arguments).current_dir(self.path()).stdin(Stdio::null());
        command.env_clear().env("NO_COLOR", "1").env("TZ", "UTC").env("LONGSHORE_DIR", self.path());
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Ran {
        self.command(arguments).output().unwrap().into()
    }
}

/// How a command went.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        // Without a code the process was ended by a signal, which no command may let happen.
        Self { code: output.status.code().unwrap_or(-1), out: text(output.stdout), err: text(output.stderr) }
    }
}

/// A server with a desk that the test holds, reachable from a home folder.
pub struct Server {
    pub home: Home,
    pub desk: TestDesk,
    pub address: SocketAddr,
    pub token: Token,
    runtime: Runtime,
    serving: Option<(watch::Sender<bool>, JoinHandle<()>)>,
}

impl Server {
    pub fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let address = "127.0.0.1:0".parse().unwrap();
        let token = Token::generate().unwrap();
        let mut server = Self { home: Home::new(), desk: TestDesk::new(), address, token, runtime, serving: None };
        server.start();
        server
    }

    /// Starts on the same port as before, and writes how to reach it.
    pub fn start(&mut self) {
        let listen = self.address.to_string();
        let config = ApiConfig { listen, token: self.token.clone(), allow_remote: false, hosts: Vec::new() };
        let api = self.runtime.block_on(Api::bind(config)).unwrap();
        self.address = api.address();
        let (stop, stopped) = watch::channel(false);
        let task = self.runtime.spawn(api.serve(self.desk.clone(), stopped));
        self.serving = Some((stop, task));
        std::fs::create_dir_all(self.home.path().join("server")).unwrap();
        let access = Access { url: format!("http://{}", self.address), token: self.token.clone() };
        access.write(&self.home.path().join("server/api.json")).unwrap();
    }

    pub fn stop(&mut self) {
        let (stop, task) = self.serving.take().unwrap();
        stop.send(true).unwrap();
        self.runtime.block_on(task).unwrap();
    }

    pub fn run(&self, arguments: &[&str]) -> Ran {
        self.home.run(arguments)
    }

    /// Submits a job and answers its id.
    pub fn submit(&self) -> String {
        self.home.write("job.toml", JOB);
        let ran = self.run(&["job", "run", "job.toml", "-o", "name"]);
        assert_eq!(ran.code, 0, "{ran:?}");
        ran.out.trim().to_owned()
    }
}
