//! What goes wrong with the broker, and how the transport comes back.

use std::fs;
use std::time::Duration;

use broker_config::{SERVER_QUEUE, UP_EXCHANGE, agent_queue_name, up_key};
use lapin::options::QueueDeclareOptions;
use lapin::types::FieldTable;
use link::amqp::{AmqpConfig, Role};
use link::session::Published;
use link::wire::WireEvent;
use messages::{EndpointId, Seq};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};

use crate::support::{Broker, Endpoint, PATIENCE, Test, agent, broker, message, runtime, server_role, soon, to_agent};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        ("a_killed_broker_is_reported_and_found_again", killed),
        ("after_a_wipe_the_server_declares_and_the_agent_comes_back", wiped),
        ("a_deleted_queue_is_declared_again_and_consumed_again", deleted),
        ("a_queue_that_is_deleted_and_declared_at_once_is_consumed_again", declared_at_once),
        ("a_queue_whose_process_is_down_is_named_and_made_anew", process_down),
        ("a_queue_taken_for_granted_is_found_missing_by_a_message_or_in_time", granted),
        ("an_agent_waits_for_the_server_to_declare_its_queue", undeclared),
        ("a_queue_with_other_arguments_is_named_with_the_difference", different),
        ("a_wrong_password_and_a_missing_virtual_host_are_called_that", refused),
        ("while_publishing_is_blocked_settling_goes_on_and_shutdown_is_quick", blocked),
        ("connections_go_through_an_http_proxy", proxied),
        ("nothing_of_the_library_is_left_after_connections_ended", no_leak),
    ]
}

async fn exchange(server: &mut Endpoint, agent: &mut Endpoint, name: &str, seq: u64) {
    let down = message(to_agent(name), seq, b"there");
    server.publish_until_confirmed(down.clone()).await;
    let (tag, bytes) = agent.delivery().await;
    assert_eq!(bytes, down.frame.bytes());
    agent.acknowledge(&[tag]).await;
    let up = message(EndpointId::Server, seq, b"back");
    agent.publish_until_confirmed(up.clone()).await;
    let (tag, bytes) = server.delivery().await;
    assert_eq!(bytes, up.frame.bytes());
    server.acknowledge(&[tag]).await;
}

async fn pair(broker: &Broker, name: &str) -> (Endpoint, Endpoint, u64, u64) {
    let mut server = broker.server(&[name]);
    let of_server = server.up().await;
    broker.outside().await.tidy().await;
    let mut agent = broker.agent(name);
    let of_agent = agent.up().await;
    (server, agent, of_server, of_agent)
}

fn killed() {
    let mut broker = broker();
    let runtime = runtime();
    let (mut server, mut agent, before, _) = runtime.block_on(pair(&broker, "killed"));
    runtime.block_on(exchange(&mut server, &mut agent, "killed", 1));
    // A quorum queue younger than its broker's last orderly stop can come out of a crash without a leader, for good.
    broker.node.stop().unwrap();
    broker.node.start().unwrap();
    runtime.block_on(async {
        server.up().await;
        agent.up().await;
        exchange(&mut server, &mut agent, "killed", 2).await;
    });
    broker.node.kill().unwrap();
    runtime.block_on(async {
        server.down("the next attempt is in").await;
        // Dropped, and nothing waits for it.
        for _ in 0..5_000 {
            server.publish(message(to_agent("killed"), 3, b"into nothing")).await;
        }
        server.down("cannot be reached").await;
    });
    broker.node.start().unwrap();
    runtime.block_on(async {
        assert!(server.up().await > before);
        agent.up().await;
        exchange(&mut server, &mut agent, "killed", 4).await;
        agent.stop().await;
        server.stop().await;
    });
}

fn wiped() {
    let mut broker = broker();
    let runtime = runtime();
    let (mut server, mut agent, before, _) = runtime.block_on(pair(&broker, "wiped"));
    broker.node.wipe().unwrap();
    broker.node.start().unwrap();
    runtime.block_on(async {
        assert!(server.up().await > before);
        agent.up().await;
        exchange(&mut server, &mut agent, "wiped", 1).await;
        agent.stop().await;
        server.stop().await;
    });
}

fn deleted() {
    let broker = broker();
    runtime().block_on(async {
        let (mut server, mut agent, of_server, of_agent) = pair(&broker, "deleted").await;
        let outside = broker.outside().await;
        outside.delete(SERVER_QUEUE).await;
        server.down("stopped delivering from longshore.v1.server").await;
        assert!(server.up().await > of_server);
        // A reconnection may declare the agent's queue as well, so this is seen only while the server stays up.
        outside.delete(&agent_queue_name("deleted").unwrap()).await;
        agent.down("stopped delivering").await;
        agent.down("longshore.v1.agent.deleted is missing: the server has not declared it yet").await;
        server.publish_until_confirmed(message(to_agent("deleted"), 1, b"repair")).await;
        assert!(agent.up().await > of_agent);
        let (tag, _) = agent.delivery().await;
        agent.acknowledge(&[tag]).await;
        exchange(&mut server, &mut agent, "deleted", 2).await;
        agent.stop().await;
        server.stop().await;
    });
}

/// Somebody makes the queue anew before the consumer's end has got around in the broker.
fn declared_at_once() {
    let broker = broker();
    runtime().block_on(async {
        let (mut server, first, _, _) = pair(&broker, "anew").await;
        first.stop().await;
        // Not so short that a delivery could not get through in between.
        let config = AmqpConfig { listen_anew: Duration::from_secs(1), ..broker.config(Role::Agent(agent("anew"))) };
        let mut agent = Endpoint::start(config);
        agent.up().await;
        let outside = broker.outside().await;
        for seq in 1..=5 {
            outside.make_anew("anew").await;
            exchange(&mut server, &mut agent, "anew", seq).await;
        }
        agent.stop().await;
        server.stop().await;
    });
}

/// What a quorum queue that could not be started with its node looks like: its name is there, its process is not.
fn process_down() {
    let broker = broker();
    let end = |queue: &str| {
        let code = format!("ra:stop_server(quorum_queues, {{list_to_atom(\"longshore_{queue}\"), node()}}).");
        assert_eq!(broker.node.ctl(&["eval", &code]).unwrap().trim(), "ok");
    };
    runtime().block_on(async {
        let (mut server, first, _, _) = pair(&broker, "dead").await;
        first.stop().await;
        let queue = agent_queue_name("dead").unwrap();
        end(&queue);
        let mut agent = broker.agent("dead");
        let reason = agent.down("its process is down").await;
        assert!(reason.starts_with(&format!("{queue} is there by name")), "{reason}");
        // The server finds it with the next message.
        server.publish_until_confirmed(message(to_agent("dead"), 1, b"repair")).await;
        agent.up().await;
        let (tag, _) = agent.delivery().await;
        agent.acknowledge(&[tag]).await;
        // The server's own is found when it next consumes.
        end(SERVER_QUEUE);
        server.stop().await;
        let mut server = broker.server(&["dead"]);
        server.up().await;
        exchange(&mut server, &mut agent, "dead", 2).await;
        agent.stop().await;
        server.stop().await;
    });
}

fn granted() {
    let mut broker = broker();
    let runtime = runtime();
    let names = ["asked", "unasked"];
    let (mut server, mut agents) = runtime.block_on(async {
        let mut server = broker.server(&names);
        server.up().await;
        let outside = broker.outside().await;
        outside.tidy().await;
        let mut agents = names.map(|name| broker.agent(name));
        for (agent, name) in agents.iter_mut().zip(names) {
            agent.up().await;
            outside.delete(&agent_queue_name(name).unwrap()).await;
            agent.down("stopped delivering").await;
        }
        (server, agents)
    });
    broker.node.stop().unwrap();
    broker.node.start().unwrap();
    runtime.block_on(server.up());
    // Cut off before what was taken for granted is declared, the next connection declares it at once. Were it declared already, it is there, too.
    broker.node.stop().unwrap();
    broker.node.start().unwrap();
    runtime.block_on(async {
        server.up().await;
        let outside = broker.outside().await;
        for (agent, name) in agents.iter_mut().zip(names) {
            let queue = agent_queue_name(name).unwrap();
            outside.waiting(&queue).await;
            agent.up().await;
            outside.delete(&queue).await;
            agent.down("stopped delivering").await;
        }
    });
    broker.node.stop().unwrap();
    broker.node.start().unwrap();
    runtime.block_on(async {
        server.up().await;
        let [asked, unasked] = &mut agents;
        asked.down("longshore.v1.agent.asked is missing").await;
        server.publish_until_confirmed(message(to_agent("asked"), 1, b"repair")).await;
        asked.up().await;
        unasked.up().await;
        for agent in agents {
            agent.stop().await;
        }
        server.stop().await;
    });
}

fn undeclared() {
    let broker = broker();
    runtime().block_on(async {
        let mut agent = broker.agent("early");
        agent.down("the server has not declared it yet; the next attempt is in").await;
        let mut server = broker.server(&["early"]);
        server.up().await;
        agent.up().await;
        exchange(&mut server, &mut agent, "early", 1).await;
        agent.stop().await;
        server.stop().await;
    });
}

fn different() {
    let broker = broker();
    runtime().block_on(async {
        let queue = agent_queue_name("other").unwrap();
        let outside = broker.outside().await;
        let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        outside.channel.queue_declare(queue.as_str().into(), durable, FieldTable::default()).await.unwrap();
        let mut server = broker.server(&["other"]);
        let reason = server.down("differs from what is to be declared").await;
        assert!(reason.contains(&queue) && reason.contains("inequivalent arg 'x-"), "{reason}");
        outside.delete(&queue).await;
        server.up().await;
        server.stop().await;
    });
}

fn refused() {
    let broker = broker();
    runtime().block_on(async {
        let url = broker.node.url();
        let (scheme, rest) = url.split_once("://").unwrap();
        let (_, place) = rest.split_once('@').unwrap();
        let mut config = broker.config(server_role(&[]));
        config.url = format!("{scheme}://longshore:not-the-password@{place}").parse().unwrap();
        let mut server = Endpoint::start(config.clone());
        let reason = server.down("refused longshore: wrong password, or no such user").await;
        assert!(!reason.contains("not-the-password"), "{reason}");
        server.stop().await;
        config.url = format!("{}-not", url).parse().unwrap();
        let mut server = Endpoint::start(config);
        server.down("does not let longshore into this virtual host").await;
        server.stop().await;
    });
}

fn blocked() {
    let broker = broker();
    let runtime = runtime();
    let before = library_threads();
    let (mut server, tags) = runtime.block_on(async {
        let mut server = broker.server(&["blocked"]);
        server.up().await;
        let outside = broker.outside().await;
        outside.tidy().await;
        let key = up_key("blocked", "link").unwrap();
        let mut tags = Vec::new();
        for number in 0..5 {
            outside.publish(UP_EXCHANGE, &key, &[number]).await;
            tags.push(server.delivery().await.0);
        }
        (server, tags)
    });
    broker.node.ctl(&["set_vm_memory_high_watermark", "0"]).unwrap();
    runtime.block_on(async {
        // The broker blocks a connection when it next publishes. Both a bounded and an unbounded amount must do no harm.
        let mut seq = 0;
        let reason = loop {
            seq += 1;
            server.publish(message(to_agent("blocked"), seq, b"held back")).await;
            let answer = server.until("answer or block", |event| match event {
                WireEvent::Blocked(reason) => Some(reason),
                WireEvent::Confirmed(_) => Some(None),
                WireEvent::Down { reason, .. } => panic!("down: {reason}"),
                _ => None,
            });
            if let Some(reason) = answer.await {
                break reason;
            }
        };
        assert!(!reason.is_empty());
        for seq in 10_000..30_000 {
            server.publish(message(to_agent("blocked"), seq, b"held back")).await;
        }
        let refused = server.until("refusal of what finds no room", |event| match event {
            WireEvent::Refused { what, .. } => Some(what),
            WireEvent::Down { reason, .. } => panic!("down: {reason}"),
            _ => None,
        });
        assert!(matches!(refused.await, Published::Message(seq) if seq > Seq::new(10_000).unwrap()));
        server.acknowledge(&tags).await;
        server.stop().await;
    });
    broker.node.ctl(&["set_vm_memory_high_watermark", "absolute", "1073741824"]).unwrap();
    runtime.block_on(async {
        let outside = broker.outside().await;
        assert_eq!(outside.waiting(SERVER_QUEUE).await, 0, "acknowledged while blocked, and still there");
        outside.delete(&agent_queue_name("blocked").unwrap()).await;
    });
    settled(before);
}

/// A proxy that forwards what it is asked to, and tells what that was.
async fn proxy() -> (u16, tokio::sync::mpsc::UnboundedReceiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (asked, heard) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let asked = asked.clone();
            tokio::spawn(async move {
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    request.push(client.read_u8().await.unwrap());
                }
                let request = String::from_utf8(request).unwrap();
                let place = request.split(' ').nth(1).unwrap().to_owned();
                let mut broker = TcpStream::connect(&place).await.unwrap();
                asked.send(place).unwrap();
                client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
                // Ends with either side.
                let _ = copy_bidirectional(&mut client, &mut broker).await;
            });
        }
    });
    (port, heard)
}

fn proxied() {
    let broker = broker();
    runtime().block_on(async {
        let (port, mut heard) = proxy().await;
        let mut config = broker.config(server_role(&["far"]));
        config.proxy = Some(format!("http://127.0.0.1:{port}").parse().unwrap());
        let mut server = Endpoint::start(config);
        server.up().await;
        server.publish_until_confirmed(message(to_agent("far"), 1, b"through")).await;
        let place = format!("127.0.0.1:{}", broker.node.port());
        assert_eq!((heard.recv().await, heard.recv().await), (Some(place.clone()), Some(place)));
        server.stop().await;
        broker.outside().await.delete(&agent_queue_name("far").unwrap()).await;
    });
}

/// Threads of the AMQP library in this process.
fn library_threads() -> usize {
    let tasks = fs::read_dir("/proc/self/task").unwrap().flatten();
    tasks
        .filter(|task| fs::read_to_string(task.path().join("comm")).is_ok_and(|name| name.starts_with("lapin")))
        .count()
}

fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Waits until no more threads of the library are there than before. Nothing announces their end.
fn settled(before: usize) {
    let start = std::time::Instant::now();
    while library_threads() > before {
        assert!(start.elapsed() < PATIENCE, "{} threads, {before} before", library_threads());
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn no_leak() {
    let broker = broker();
    let runtime = runtime();
    let round = || {
        runtime.block_on(async {
            let mut server = broker.server(&[]);
            server.up().await;
            server.stop().await;
            let mut agent = broker.agent("nobody");
            agent.down("is missing").await;
            agent.abandon().await;
        });
    };
    round();
    settled(0);
    let before = descriptors();
    for _ in 0..5 {
        round();
    }
    settled(0);
    assert!(descriptors() <= before, "{} descriptors, {before} before", descriptors());
    runtime.block_on(soon("nothing", async {}));
}
