//! A node's life: start, stop, kill, wipe, pause, detach, and what a crashed owner leaves.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::Duration;

use broker_config::node::{Node, NodeError, NodeOptions, Stopped};
use broker_config::{DOWN_EXCHANGE, QueueType, Topology, agent_queue_name, down_key};

use crate::amqp;
use crate::support::{Test, installation, started};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        ("a_broker_listens_on_loopback_only", loopback_only),
        ("durable_data_survives_a_stop_and_a_kill_at_the_same_port", survives),
        ("a_wipe_loses_the_data_and_keeps_the_url", wipe),
        ("a_paused_broker_answers_nothing_until_it_is_resumed", pause),
        ("a_paused_broker_can_be_stopped", stop_paused),
        ("what_a_crashed_owner_left_running_is_ended_by_the_next_create", stale),
        ("a_detached_broker_is_found_and_adopted", detach),
        ("a_directory_that_is_in_use_is_refused", in_use),
        ("two_brokers_run_side_by_side_and_end_separately", side_by_side),
        ("a_broker_that_cannot_start_says_why_and_leaves_nothing", cannot_start),
        ("a_taken_port_is_named", port_taken),
        ("a_memory_alarm_can_be_set_from_outside", memory_alarm),
        ("the_management_plugin_answers_on_loopback", management),
    ]
}

fn put(node: &Node, body: &[u8]) {
    let topology = Topology { queue_type: QueueType::Quorum, ..Topology::default() };
    amqp::run(async {
        let (_connection, channel) = amqp::connect(&node.url()).await.unwrap();
        amqp::declare(&channel, &topology, &["a1"]).await.unwrap();
        assert!(amqp::publish(&channel, DOWN_EXCHANGE, &down_key("a1").unwrap(), body).await.unwrap());
    });
}

fn get(node: &Node) -> Result<Vec<u8>, lapin::Error> {
    amqp::run(async {
        let (_connection, channel) = amqp::connect(&node.url()).await?;
        amqp::take(&channel, &agent_queue_name("a1").unwrap()).await
    })
}

/// Local addresses of the listening sockets of one process, as in /proc/net/tcp.
fn listening(pid: u32) -> Vec<String> {
    let links = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let sockets: Vec<String> = links
        .filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok())
        .filter_map(|to| Some(to.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned()))
        .collect();
    let mut found = Vec::new();
    for table in ["tcp", "tcp6"] {
        let text = std::fs::read_to_string(format!("/proc/net/{table}")).unwrap_or_default();
        for line in text.lines().skip(1) {
            let fields: Vec<&str> = line.split_whitespace().collect();
            if fields[3] == "0A" && sockets.iter().any(|inode| inode == fields[9]) {
                found.push(fields[1].to_owned());
            }
        }
    }
    found
}

fn loopback_only() {
    let (_dir, node) = started(NodeOptions::default());
    let listeners = listening(node.pid().unwrap());
    assert!(listeners.len() >= 2, "AMQP and Erlang's distribution: {listeners:?}");
    for listener in &listeners {
        assert!(listener.starts_with("0100007F:"), "{listener} is not 127.0.0.1 ({listeners:?})");
    }
}

fn survives() {
    let (_dir, mut node) = started(NodeOptions::default());
    let (url, first) = (node.url(), node.pid());
    put(&node, b"one");
    assert_eq!(node.stop().unwrap(), Stopped::Cleanly);
    assert!(!node.is_running());
    assert_eq!(node.stop().unwrap(), Stopped::WasNotRunning);
    node.start().unwrap_or_else(|e| panic!("{e}"));
    assert_ne!(node.pid(), first);
    put(&node, b"two");
    node.kill().unwrap();
    assert!(!node.is_running());
    assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, node.port())).is_err());
    node.start().unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(node.url(), url);
    assert_eq!(get(&node).unwrap(), b"one".to_vec());
    assert_eq!(get(&node).unwrap(), b"two".to_vec());
}

fn wipe() {
    let (_dir, mut node) = started(NodeOptions::default());
    let url = node.url();
    put(&node, b"gone");
    node.wipe().unwrap();
    assert!(!node.is_running());
    node.start().unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(node.url(), url);
    let error = get(&node).unwrap_err();
    assert!(error.to_string().contains("NOT_FOUND"), "{error}");
}

/// Sends the AMQP header; the connection's first answer comes when the broker runs.
fn greet(node: &Node) -> TcpStream {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, node.port())).unwrap();
    stream.write_all(b"AMQP\x00\x00\x09\x01").unwrap();
    stream
}

fn pause() {
    let (_dir, node) = started(NodeOptions::default());
    node.pause().unwrap();
    assert!(node.is_running());
    // The kernel still accepts; the broker must stay silent. It cannot answer while it is stopped, however long we wait.
    let mut stream = greet(&node);
    stream.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    assert!(stream.read(&mut [0; 8]).is_err());
    node.resume().unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let mut reply = [0; 8];
    stream.read_exact(&mut reply).unwrap();
    assert_eq!(reply[0], 1);
}

fn stop_paused() {
    let (_dir, mut node) = started(NodeOptions::default());
    node.pause().unwrap();
    assert_eq!(node.stop().unwrap(), Stopped::Cleanly);
    assert!(matches!(node.pause(), Err(NodeError::NotRunning)));
}

fn stale() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::create(dir.path(), installation(), NodeOptions::default()).unwrap();
    node.start().unwrap_or_else(|e| panic!("{e}"));
    let (url, port) = (node.url(), node.port());
    // Detaching leaves exactly what a killed owner leaves: the processes and no lock.
    let pid = node.detach().pid.unwrap();
    let mut node = Node::create(dir.path(), installation(), NodeOptions::default()).unwrap();
    assert!(!node.is_running());
    let environ = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    assert!(environ.is_empty(), "the old broker is still alive");
    assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err());
    node.start().unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(node.url(), url);
}

fn detach() {
    let (dir, node) = started(NodeOptions::default());
    let place = node.dir().to_owned();
    put(&node, b"kept");
    let left = node.detach();
    let found = Node::find(&place).unwrap().unwrap();
    assert_eq!(found, left);
    assert!(found.pid.is_some());
    let mut node = Node::adopt(&place, installation(), NodeOptions::default()).unwrap();
    assert_eq!(node.pid(), left.pid);
    assert!(matches!(node.start(), Err(NodeError::AlreadyRunning { .. })));
    assert_eq!(get(&node).unwrap(), b"kept".to_vec());
    assert_eq!(node.stop().unwrap(), Stopped::Cleanly);
    assert_eq!(Node::find(&place).unwrap().unwrap().pid, None);
    assert_eq!(Node::find(dir.path()).unwrap(), None);
}

fn in_use() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::create(dir.path(), installation(), NodeOptions::default()).unwrap();
    let error = Node::create(dir.path(), installation(), NodeOptions::default()).unwrap_err();
    assert!(matches!(error, NodeError::InUse { .. }), "{error}");
    drop(node);
    Node::create(dir.path(), installation(), NodeOptions::default()).unwrap();
}

fn side_by_side() {
    let (_first_dir, mut first) = started(NodeOptions::default());
    let (_second_dir, second) = started(NodeOptions::default());
    assert_ne!(first.port(), second.port());
    put(&first, b"first");
    put(&second, b"second");
    first.kill().unwrap();
    assert_eq!(get(&second).unwrap(), b"second".to_vec());
    let pid = second.pid().unwrap();
    drop(second);
    let environ = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    assert!(environ.is_empty(), "dropping a node must end its broker");
}

fn cannot_start() {
    let dir = tempfile::tempdir().unwrap();
    let options = NodeOptions { extra: vec![("no.such.setting".to_owned(), "1".to_owned())], ..NodeOptions::default() };
    let mut node = Node::create(dir.path(), installation(), options).unwrap();
    let error = node.start().unwrap_err();
    assert!(matches!(error, NodeError::Exited { .. }), "{error}");
    assert!(error.to_string().contains("no.such.setting"), "{error}");
    assert!(!node.is_running());
    assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, node.port())).is_err());
}

fn port_taken() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::create(dir.path(), installation(), NodeOptions::default()).unwrap();
    let _listener = TcpListener::bind((Ipv4Addr::LOCALHOST, node.port())).unwrap();
    let error = node.start().unwrap_err();
    assert!(matches!(error, NodeError::PortTaken { port, .. } if port == node.port()), "{error}");
}

fn memory_alarm() {
    let (_dir, node) = started(NodeOptions::default());
    node.ctl(&["set_vm_memory_high_watermark", "absolute", "1MB"]).unwrap();
    let alarms = node.ctl(&["status"]).unwrap();
    assert!(alarms.contains("Memory alarm"), "{alarms}");
    let error = node.ctl(&["no_such_command"]).unwrap_err();
    assert!(matches!(error, NodeError::Ctl(_)), "{error}");
}

fn management() {
    let (_dir, node) = started(NodeOptions { management: true, ..NodeOptions::default() });
    let url = node.info().management_url.unwrap();
    let mut stream = TcpStream::connect(url.strip_prefix("http://").unwrap()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    stream.write_all(b"GET /api/overview HTTP/1.0\r\nHost: localhost\r\n\r\n").unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).unwrap();
    assert!(reply.starts_with("HTTP/1.1 401"), "{reply}");
    for listener in listening(node.pid().unwrap()) {
        assert!(listener.starts_with("0100007F:"), "{listener} is not 127.0.0.1");
    }
}
