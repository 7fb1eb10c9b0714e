//! The topology on a real broker: loaded from definitions, declared over AMQP, and working, for both queue types.

use broker_config::node::{Login, Node, NodeOptions};
use broker_config::render::{AgentUser, Definitions, PasswordHash, UserLogin};
use broker_config::{CLASS_LINK, DOWN_EXCHANGE, QueueType, SERVER_QUEUE, Topology, UP_EXCHANGE};
use broker_config::{DEAD_EXCHANGE, DEAD_QUEUE, agent_queue_name, down_key, up_key};

use crate::amqp;
use crate::support::{Test, started};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        ("definitions_with_quorum_queues_load_and_agree_with_what_is_declared", || loaded(QueueType::Quorum)),
        ("definitions_with_classic_queues_load_and_agree_with_what_is_declared", || loaded(QueueType::Classic)),
        ("a_blank_broker_takes_the_declared_quorum_topology", || blank(QueueType::Quorum)),
        ("a_blank_broker_takes_the_declared_classic_topology", || blank(QueueType::Classic)),
    ]
}

/// A node that loads definitions with agents `a1` and `a2`, whose passwords are their names.
pub(crate) fn with_definitions(queue_type: QueueType) -> (tempfile::TempDir, Node, Topology) {
    let topology = Topology { queue_type, ..Topology::default() };
    let login = Login { user: "srv".to_owned(), password: "a:b/c@d".to_owned() };
    let agent = |id: &str| (id.to_owned(), AgentUser::Password(PasswordHash::new(id, [9, 9, 9, 9])));
    let definitions = Definitions {
        topology: topology.clone(),
        server: UserLogin {
            name: login.user.clone(),
            password: Some(PasswordHash::new(&login.password, [1, 2, 3, 4])),
        },
        administrator: None,
        agents: vec![agent("a1"), agent("a2"), ("a3".to_owned(), AgentUser::Certificate)],
    };
    let options =
        NodeOptions { login: Some(login), definitions: Some(definitions.to_json().unwrap()), ..NodeOptions::default() };
    let (dir, node) = started(options);
    (dir, node, topology)
}

fn loaded(queue_type: QueueType) {
    let (_dir, mut node, topology) = with_definitions(queue_type);
    let check = |url: String| {
        amqp::run(async {
            let (_connection, channel) = amqp::connect(&url).await.unwrap();
            // A queue that exists with other arguments would be refused with 406.
            amqp::declare(&channel, &topology, &["a1", "a2", "a3"]).await.unwrap();
            works(&channel).await;
        });
    };
    check(node.url());
    let policies = node.ctl(&["list_policies", "-p", &topology.vhost]).unwrap();
    assert!(policies.contains("queue-leader-locator"), "{policies}");
    let queues = node.ctl(&["list_queues", "-p", &topology.vhost, "name", "type", "policy"]).unwrap();
    // Pieces of logs have a classic queue in either case. On 3.10 the policy says something about quorum queues only.
    let (of_type, with_policy) = match queue_type {
        QueueType::Quorum => (5, 5),
        QueueType::Classic => (6, 0),
    };
    assert_eq!(queues.matches(queue_type.as_str()).count(), of_type, "{queues}");
    assert!(queues.matches("longshore-v1").count() >= with_policy, "{queues}");
    // A wiped broker comes back complete, because the definitions are loaded again.
    node.wipe().unwrap();
    node.start().unwrap_or_else(|e| panic!("{e}"));
    check(node.url());
}

fn blank(queue_type: QueueType) {
    let (_dir, node) = started(NodeOptions::default());
    let topology = Topology { queue_type, ..Topology::default() };
    amqp::run(async {
        let (_connection, channel) = amqp::connect(&node.url()).await.unwrap();
        for _ in 0..2 {
            amqp::declare(&channel, &topology, &["a1", "a2"]).await.unwrap();
        }
        works(&channel).await;
    });
}

/// A message goes each way, one without a queue is returned, and what is dead is kept.
async fn works(channel: &lapin::Channel) {
    let (down, up) = (down_key("a1").unwrap(), up_key("a1", CLASS_LINK).unwrap());
    assert!(amqp::publish(channel, DOWN_EXCHANGE, &down, b"go").await.unwrap());
    assert!(amqp::publish(channel, UP_EXCHANGE, &up, b"done").await.unwrap());
    assert!(amqp::publish(channel, DEAD_EXCHANGE, "any", b"dead").await.unwrap());
    assert!(!amqp::publish(channel, DOWN_EXCHANGE, "agent.nobody", b"lost").await.unwrap());
    let own = agent_queue_name("a1").unwrap();
    assert_eq!(amqp::take(channel, &own).await.unwrap(), b"go");
    assert_eq!(amqp::count(channel, &agent_queue_name("a2").unwrap()).await.unwrap(), 0);
    assert_eq!(amqp::take(channel, SERVER_QUEUE).await.unwrap(), b"done");
    assert_eq!(amqp::take(channel, DEAD_QUEUE).await.unwrap(), b"dead");
}
