//! What an agent's user may do on a real broker, and what the broker refuses it.

use broker_config::{CLASS_LINK, DOWN_EXCHANGE, QueueType, SERVER_QUEUE, UP_EXCHANGE};
use broker_config::{agent_queue_name, down_key, up_key};
use lapin::{Channel, Connection};

use crate::amqp;
use crate::support::Test;
use crate::topology::with_definitions;

pub(crate) fn tests() -> Vec<Test> {
    vec![
        ("an_agent_reads_its_own_queue_and_writes_its_own_key_and_nothing_else", least_rights),
        ("an_agent_without_a_password_cannot_log_in_by_password", no_password),
    ]
}

fn least_rights() {
    let (_dir, node, topology) = with_definitions(QueueType::Classic);
    let url = format!("amqp://a1:a1@127.0.0.1:{}/{}", node.port(), topology.vhost);
    amqp::run(async {
        let (_connection, channel) = amqp::connect(&url).await.unwrap();
        let own_key = up_key("a1", CLASS_LINK).unwrap();
        assert!(amqp::publish(&channel, UP_EXCHANGE, &own_key, b"mine").await.unwrap());
        let own = agent_queue_name("a1").unwrap();
        let (_server, server) = amqp::connect(&node.url()).await.unwrap();
        let key = down_key("a1").unwrap();
        assert!(amqp::publish(&server, DOWN_EXCHANGE, &key, b"for you").await.unwrap());
        assert_eq!(amqp::take(&channel, &own).await.unwrap(), b"for you");

        let other_key = up_key("a2", CLASS_LINK).unwrap();
        refused(&url, async |c| amqp::publish(&c, UP_EXCHANGE, &other_key, b"").await.map(drop)).await;
        let down = down_key("a2").unwrap();
        refused(&url, async |c| amqp::publish(&c, DOWN_EXCHANGE, &down, b"").await.map(drop)).await;
        let other = agent_queue_name("a2").unwrap();
        refused(&url, async |c| amqp::take(&c, &other).await.map(drop)).await;
        refused(&url, async |c| amqp::take(&c, SERVER_QUEUE).await.map(drop)).await;
        // Another queue, for one that exists may be declared again without configure rights on some versions.
        let queue = topology.agent_queue("a9").unwrap();
        refused(&url, async |c| amqp::declare_queue(&c, &queue).await).await;
    });
}

/// Each attempt needs a connection of its own: the broker closes the channel that was refused.
async fn refused(url: &str, attempt: impl AsyncFnOnce(Channel) -> Result<(), lapin::Error>) {
    let (_connection, channel): (Connection, _) = amqp::connect(url).await.unwrap();
    let error = attempt(channel).await.unwrap_err();
    assert!(error.to_string().contains("ACCESS_REFUSED"), "{error}");
}

fn no_password() {
    let (_dir, node, topology) = with_definitions(QueueType::Classic);
    for password in ["", "a3"] {
        let url = format!("amqp://a3:{password}@127.0.0.1:{}/{}", node.port(), topology.vhost);
        let result = amqp::run(amqp::connect(&url));
        assert!(result.is_err(), "logged in with {password:?}");
    }
}
