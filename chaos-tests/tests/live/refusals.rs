//! Bad circumstances: each gives a clear error with what to do next, loses nothing and panics nowhere.

use std::net::TcpListener;
use std::process::Command;

use chaos_tests::live::{Process, longshore, wait_for};
use libtest_mimic::Failed;

use crate::Test;
use crate::support::{LIMIT, World, ensure, text};

pub(crate) const TESTS: &[Test] = &[
    ("a_folder_locked_by_a_running_process_is_refused_with_its_pid", locked),
    ("a_port_in_use_is_refused_with_what_to_do", port_in_use),
    ("a_folder_of_another_owner_is_refused", other_owner),
    ("a_broker_that_is_down_at_the_start_is_waited_for", broker_down_at_start),
    ("garbage_on_the_queues_goes_to_the_dead_letters_and_blocks_nothing", garbage),
    ("an_unknown_agent_and_oversized_parameters_are_refused_before_anything_is_sent", bad_jobs),
    ("wrong_broker_addresses_are_told_apart", wrong_brokers),
];

fn run(arguments: &[&str], url: &str) -> Result<(Option<i32>, String), Failed> {
    let output =
        Command::new(longshore()?).args(arguments).env("LONGSHORE_BROKER_URL", url).env("NO_COLOR", "1").output()?;
    Ok((output.status.code(), text(&output)))
}

fn locked() -> Result<(), Failed> {
    let world = World::start(&["a1"])?;
    let home = world.fleet.home().display().to_string();
    let pid = world.fleet.agents["a1"].pid().unwrap_or_default();
    let (code, said) = run(&["agent", "run", "--no-monitor", "--dir", &home, "--name", "a1"], &world.fleet.node.url())?;
    ensure(code == Some(78) && said.contains(&format!("in use by process {pid}")) && said.contains("next:"), said)?;
    let job = world.submit("[[step]]\nid = \"one\"\nrun = 'true'\n")?;
    let ended = world.ended(&job)?;
    ensure(ended["state"] == "succeeded", "the first process was not disturbed")
}

fn port_in_use() -> Result<(), Failed> {
    let dir = tempfile::tempdir()?;
    let taken = TcpListener::bind("127.0.0.1:0")?;
    let address = taken.local_addr()?.to_string();
    let home = dir.path().display().to_string();
    let arguments = ["server", "run", "--dir", &home, "--listen", &address, "--agents", "a1"];
    let (code, said) = run(&arguments, "amqp://u:p@127.0.0.1:1")?;
    ensure(code == Some(78) && said.contains(&address) && said.contains("--listen"), said)?;
    ensure(std::fs::read_dir(dir.path())?.next().is_none(), "nothing was made before the port was known to be free")
}

fn other_owner() -> Result<(), Failed> {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root can give a folder to another user");
        return Ok(());
    }
    let dir = tempfile::tempdir()?;
    let folder = dir.path().join("agents/a1/journal");
    std::fs::create_dir_all(&folder)?;
    std::os::unix::fs::chown(&folder, Some(65_534), None)?;
    let home = dir.path().display().to_string();
    let (code, said) =
        run(&["agent", "run", "--no-monitor", "--dir", &home, "--name", "a1"], "amqp://u:p@127.0.0.1:1")?;
    ensure(code == Some(77) && said.contains("belongs to user 65534"), said)
}

fn broker_down_at_start() -> Result<(), Failed> {
    let mut world = World::start(&["a1"])?;
    world.fleet.agents.get_mut("a1").unwrap().kill()?;
    world.fleet.server.kill()?;
    world.fleet.node.stop()?;
    world.fleet.server.start()?;
    world.fleet.agents.get_mut("a1").unwrap().start()?;
    let api = world.fleet.api();
    // A job is taken while there is no broker: it is in the journal.
    let submit = || world.submit("[[step]]\nid = \"one\"\nrun = 'true'\n").ok();
    let job = wait_for("the server to take a job without a broker", LIMIT, submit)?;
    let status = api.get("/v1/status")?;
    ensure(status["broker"]["connected"] == false && status["broker"]["detail"].is_string(), format!("{status:#}"))?;
    let (code, said) = run(&["broker", "check", "--agents", "a1"], &world.fleet.node.url())?;
    ensure(code == Some(69) && said.contains("cannot be used") && said.contains("next:"), said)?;
    world.fleet.node.start()?;
    let ended = world.ended(&job)?;
    ensure(ended["state"] == "succeeded", format!("{ended:#}"))
}

fn garbage() -> Result<(), Failed> {
    let world = World::start(&["a1"])?;
    let url = world.fleet.node.url();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let count = 50;
    runtime.block_on(async {
        let connection = lapin::Connection::connect(&url, lapin::ConnectionProperties::default()).await?;
        let channel = connection.create_channel().await?;
        channel.confirm_select(lapin::options::ConfirmSelectOptions::default()).await?;
        for index in 0..count {
            let body: Vec<u8> = match index % 4 {
                0 => Vec::new(),
                1 => vec![0xff; 5_000],
                2 => vec![1, 1, 0, 0, 0, 4, 0x91, 0x91, 0x91, 0x91],
                _ => vec![9; 300 * 1024],
            };
            let (exchange, key) = if index % 2 == 0 {
                (broker_config::DOWN_EXCHANGE, "agent.a1")
            } else {
                ("longshore.v1.up", "agent.a1.link")
            };
            let options = lapin::options::BasicPublishOptions { mandatory: true, ..Default::default() };
            let properties = lapin::BasicProperties::default();
            let confirm = channel.basic_publish(exchange.into(), key.into(), options, &body, properties).await?.await?;
            assert!(matches!(confirm, lapin::Confirmation::Ack(None)), "{confirm:?}");
        }
        Ok::<(), lapin::Error>(())
    })?;
    let job = world.submit("[[step]]\nid = \"one\"\nrun = 'true'\n")?;
    let ended = world.ended(&job)?;
    ensure(ended["state"] == "succeeded", format!("{ended:#}"))?;
    let dead = wait_for("the garbage to be in the dead-letter queue", LIMIT, || {
        let output = world.cli(&["broker", "check", "--json"]).ok()?;
        let value: serde_json::Value = serde_json::from_slice(&output.stdout).ok()?;
        let findings = value["findings"].as_array()?;
        let dead = findings.iter().find(|finding| finding["what"] == "queue longshore.v1.dead")?;
        dead["messages"].as_u64().filter(|messages| *messages == count)
    })?;
    ensure(dead == count, format!("{dead} dead letters"))?;
    for process in [&world.fleet.server, &world.fleet.agents["a1"]] {
        ensure(!process.output().contains("panicked"), process.output())?;
    }
    Ok(())
}

fn bad_jobs() -> Result<(), Failed> {
    let world = World::start(&["a1"])?;
    let file = world.path("job.toml");
    let job = |target: &str| {
        format!(
            "name = \"x\"\ntarget = {{ agents = [{target}] }}\n[params]\nbig = {{}}\n[[step]]\nid = \"one\"\nrun = 'true'\n"
        )
    };
    std::fs::write(&file, job("\"a1\", \"nobody\""))?;
    let path = file.display().to_string();
    let refused = world.cli(&["job", "run", &path])?;
    let said = text(&refused);
    ensure(refused.status.code() == Some(2) && said.contains("nobody") && said.contains("fleet list"), said)?;
    std::fs::write(&file, job("\"a1\""))?;
    let big = format!("big={}", "x".repeat(120_000));
    let refused = world.cli(&["job", "run", &path, "--param", &big])?;
    let said = text(&refused);
    ensure(refused.status.code() == Some(2) && said.contains("big") && said.contains("bytes"), said)?;
    let jobs = world.fleet.api().get("/v1/jobs")?;
    ensure(jobs["jobs"].as_array().is_some_and(Vec::is_empty), format!("{jobs:#}"))
}

fn wrong_brokers() -> Result<(), Failed> {
    let world = World::start(&["a1"])?;
    let url = world.fleet.node.url();
    let at = url.rsplit_once('@').map(|(_, rest)| rest.to_owned()).unwrap_or_default();
    for (url, code, word) in [
        (format!("amqp://longshore:wrong@{at}"), 69, "password"),
        (url.replace("/longshore", "/nowhere"), 69, "nowhere"),
        ("amqp://u:p@127.0.0.1:1".to_owned(), 69, "refused"),
        ("amqp://u:hush@mq.example".to_owned(), 78, "TLS"),
        ("http://localhost".to_owned(), 78, "amqp"),
        ("amqps://u:p@localhost".to_owned(), 78, "CA"),
    ] {
        let (found, said) = run(&["broker", "check"], &url)?;
        ensure(
            found == Some(code) && said.contains(word) && said.contains("next:"),
            format!("{url}: {found:?} {said}"),
        )?;
        ensure(!said.contains("hush") && !said.contains("wrong@"), said)?;
    }
    // An endpoint goes on trying, and says why; it never gives up.
    let dir = tempfile::tempdir()?;
    let log = dir.path().join("log");
    let home = dir.path().display().to_string();
    let wrong = format!("amqp://longshore:wrong@{at}");
    let arguments = ["agent", "run", "--no-monitor", "--dir", &home, "--name", "a1"];
    let mut agent =
        Process::new("a1", &longshore()?, &log).arguments(&arguments).variable("LONGSHORE_BROKER_URL", &wrong);
    agent.start()?;
    wait_for("the agent to say what is wrong", LIMIT, || agent.output().contains("wrong password").then_some(()))?;
    ensure(agent.is_running(), agent.output())
}
