//! `longshore reconcile` against endpoints that run in the home folder, with the test as their peer; and against an agent's own
//! process that reaches no broker.

use std::future::Future;
use std::process::Stdio;

use serde_json::Value;

use crate::run::{Home, Ran};
use crate::running::Running;

/// An endpoint of a home folder. The runtime is its own, so that a command can be waited for meanwhile.
struct World {
    home: Home,
    runtime: tokio::runtime::Runtime,
    running: Option<Running>,
}

impl World {
    fn start(local: &str, peer: &str, others: &[&str]) -> Self {
        let home = Home::new();
        let folder = if local == "server" { "server".to_owned() } else { format!("agents/{local}") };
        let dir = home.path().join(folder);
        std::fs::create_dir_all(&dir).unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let running = runtime.block_on(Running::start(&dir, local, peer, others));
        Self { home, runtime, running: Some(running) }
    }

    fn does<'a, F: Future<Output = ()>>(&'a mut self, what: impl FnOnce(&'a mut Running) -> F) {
        let running = self.running.as_mut().unwrap();
        self.runtime.block_on(what(running));
    }

    fn stop(&mut self) {
        self.runtime.block_on(self.running.take().unwrap().stop());
    }

    fn run(&self, arguments: &[&str]) -> Ran {
        self.home.run(&[&["reconcile"], arguments].concat())
    }
}

fn json(ran: &Ran) -> Value {
    serde_json::from_str(&ran.out).unwrap_or_else(|error| panic!("{error}: {ran:?}"))
}

#[test]
fn stopped_streams_are_shown_with_why_and_what_to_do_until_a_person_decided() {
    let mut world = World::start("a1", "server", &[]);
    let show = ["show", "--endpoint", "a1"];
    let ran = world.run(&show);
    assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{ran:?}");
    assert_eq!(
        ran.out,
        "LINK       SENT  CONFIRMED  RECEIVED  SETTLED  FORGOTTEN  GAP\n\
         a1→server     0          0         0        0          0  none\n\
         server→a1     0          -         0        0          0  none\n\
         server: not heard yet · resent 0 · duplicates dropped 0\n"
    );
    world.does(Running::is_doubled);
    let ran = world.run(&show);
    assert_eq!(ran.code, 1, "{ran:?}");
    for words in ["server: heard ", "FROZEN a1↔server: the peer has heard another process", "  Nothing is lost: "] {
        assert!(ran.out.contains(words), "{words} {ran:?}");
    }
    assert!(ran.out.contains("`longshore reconcile resolve server --endpoint a1`") && !ran.out.contains('\u{1b}'));
    let view = json(&world.run(&["show", "--endpoint", "a1", "--json"]));
    assert_eq!((&view["schema"], &view["endpoint"]), (&"longshore.reconcile/1".into(), &"a1".into()));
    let link = &view["links"][0];
    assert!(link["frozen"].is_string() && link["advice"].is_string() && link["seen_ms"].is_u64(), "{view:#}");

    // Nothing is decided without a yes.
    let resolve = ["resolve", "server", "--endpoint", "a1"];
    let ran = world.run(&resolve);
    assert_eq!((ran.code, ran.out.as_str()), (2, ""), "{ran:?}");
    for words in ["If you go on:", "nothing was changed", "resolve server --endpoint a1 --yes`"] {
        assert!(ran.err.contains(words), "{words} {ran:?}");
    }
    assert_eq!(world.run(&show).code, 1);
    let ran = world.run(&[&resolve[..], &["--yes"]].concat());
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.err.contains("marked as perhaps done") && ran.out.starts_with("resolved: the journal of a1 goes on"));
    assert!(ran.out.contains("next: server takes it over"), "{ran:?}");
    let ran = world.run(&show);
    assert!(ran.code == 0 && !ran.out.contains("FROZEN"), "{ran:?}");
    let ran = world.run(&[&resolve[..], &["--yes"]].concat());
    assert!(ran.code == 2 && ran.err.contains("are not stopped") && ran.err.contains("next:"), "{ran:?}");
    world.stop();
    for command in [&resolve[..], &show[..]] {
        let ran = world.run(command);
        assert!(ran.code == 69 && ran.err.contains("a1 does not run in ") && ran.err.contains("next:"), "{ran:?}");
    }
}

#[test]
fn journals_that_contradict_each_other_are_not_resolved_away() {
    let mut world = World::start("server", "a1", &["a2"]);
    world.does(Running::contradicts);
    let ran = world.run(&["resolve", "a1", "--yes"]);
    assert!(ran.code == 1 && ran.out.is_empty(), "{ran:?}");
    for words in ["message 1 is not the same on both sides", "cannot be decided here", "longshore journal quarantine"] {
        assert!(ran.err.contains(words), "{words} {ran:?}");
    }
    let ran = world.run(&["show", "-o", "ndjson"]);
    let lines: Vec<Value> = ran.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let stopped: Vec<bool> = lines.iter().map(|line| line["frozen"].is_string()).collect();
    assert_eq!((ran.code, stopped), (1, vec![true, false]), "{ran:?}");
    let ran = world.run(&["show", "a2", "--endpoint", "server"]);
    assert!(ran.code == 0 && ran.out.contains("server→a2") && !ran.out.contains("a1"), "{ran:?}");
    for command in ["show", "resolve"] {
        let ran = world.run(&[command, "a9", "--endpoint", "server"]);
        assert!(ran.code == 2 && ran.err.contains("a9 is not known to server"), "{ran:?}");
    }
    world.stop();
}

#[test]
fn a_decision_is_told_to_programs() {
    let mut world = World::start("a1", "server", &[]);
    world.does(Running::is_doubled);
    let ran = world.run(&["resolve", "server", "--endpoint", "a1", "--yes", "--quiet", "-o", "json"]);
    let view = json(&ran);
    assert_eq!((ran.code, ran.err.as_str(), &view["schema"]), (0, "", &"longshore.resolved/1".into()));
    assert_eq!((&view["endpoint"], &view["peer"]), (&"a1".into(), &"server".into()));
    assert!(view["was"].as_str().is_some_and(|was| was.contains("another process")), "{view:#}");
    world.stop();
}

#[test]
fn an_agents_own_process_says_how_it_stands_without_a_broker() {
    let home = Home::new();
    let mut command = home.command(&["agent", "run", "--no-monitor", "--name", "a1"]);
    command.env("LONGSHORE_BROKER_URL", "amqp://u:p@127.0.0.1:1").stdout(Stdio::null()).stderr(Stdio::null());
    let mut agent = command.spawn().unwrap();
    let ran = loop {
        let ran = home.run(&["reconcile", "show", "--endpoint", "a1"]);
        // It answers as soon as its journal is open.
        if ran.code != 69 || agent.try_wait().unwrap().is_some() {
            break ran;
        }
    };
    let resolved = home.run(&["reconcile", "resolve", "server", "--endpoint", "a1", "--yes"]);
    agent.kill().unwrap();
    agent.wait().unwrap();
    assert!(ran.code == 0 && ran.out.contains("server: not heard yet") && ran.out.contains("broker is not reached"));
    assert!(resolved.code == 2 && resolved.err.contains("are not stopped"), "{resolved:?}");
    let ran = home.run(&["reconcile", "show", "server"]);
    assert!(ran.code == 2 && ran.err.contains("--endpoint"), "{ran:?}");
}
