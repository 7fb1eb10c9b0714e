//! Golden files of what is rendered: a change to names, arguments or rights must show up in a review.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;

use broker_config::render::{
    AgentUser, ClientCertificate, Definitions, DefinitionsError, PasswordHash, RabbitmqConf, TlsFiles, TlsListener,
    UserLogin,
};
use broker_config::{QueueType, Topology};

fn definitions(queue_type: QueueType) -> Definitions {
    Definitions {
        topology: Topology { queue_type, ..Topology::default() },
        server: UserLogin {
            name: "longshore-server".to_owned(),
            password: Some(PasswordHash::new("server", [1, 2, 3, 4])),
        },
        administrator: None,
        agents: vec![
            ("web-03".to_owned(), AgentUser::Password(PasswordHash::new("web", [5, 6, 7, 8]))),
            ("db_1".to_owned(), AgentUser::Token),
            ("edge-7".to_owned(), AgentUser::Certificate),
        ],
    }
}

/// Compares with a file beside this one. `LONGSHORE_BLESS=1` writes it instead.
fn golden(name: &str, actual: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if std::env::var_os("LONGSHORE_BLESS").is_some() {
        fs::write(&path, actual).unwrap();
    }
    let expected = fs::read_to_string(&path).unwrap();
    assert_eq!(actual, expected, "{name} changed; LONGSHORE_BLESS=1 accepts it");
}

#[test]
fn definitions_with_quorum_queues_are_as_reviewed() {
    golden("definitions-quorum.json", &definitions(QueueType::Quorum).to_json().unwrap());
}

#[test]
fn definitions_with_classic_queues_are_as_reviewed() {
    golden("definitions-classic.json", &definitions(QueueType::Classic).to_json().unwrap());
}

#[test]
fn the_order_in_which_agents_are_given_does_not_matter() {
    let mut reversed = definitions(QueueType::Quorum);
    reversed.agents.reverse();
    assert_eq!(reversed.to_json().unwrap(), definitions(QueueType::Quorum).to_json().unwrap());
}

#[test]
fn names_that_would_share_rights_are_refused() {
    let mut twice = definitions(QueueType::Quorum);
    twice.agents.push(("web-03".to_owned(), AgentUser::Token));
    assert_eq!(twice.to_json(), Err(DefinitionsError::Twice { name: "web-03".to_owned() }));
    let mut as_server = definitions(QueueType::Quorum);
    as_server.agents.push(("longshore-server".to_owned(), AgentUser::Token));
    assert!(matches!(as_server.to_json(), Err(DefinitionsError::Twice { .. })));
}

#[test]
fn invalid_ids_and_names_are_refused() {
    let mut wide = definitions(QueueType::Quorum);
    wide.agents.push(("web.#".to_owned(), AgentUser::Token));
    assert!(matches!(wide.to_json(), Err(DefinitionsError::Id(_))));
    let mut nameless = definitions(QueueType::Quorum);
    nameless.topology.vhost.clear();
    assert!(matches!(nameless.to_json(), Err(DefinitionsError::Name { .. })));
    let mut many = definitions(QueueType::Quorum);
    many.agents = (0..20_001).map(|n| (format!("a{n}"), AgentUser::Token)).collect();
    assert_eq!(many.to_json(), Err(DefinitionsError::TooMany { count: 20_001 }));
}

#[test]
fn the_development_configuration_is_as_reviewed() {
    let mut conf = RabbitmqConf::development("127.0.0.1:5672".parse().unwrap());
    conf.definitions = Some("/etc/rabbitmq/definitions.json".into());
    golden("development.conf", &conf.render().unwrap());
}

#[test]
fn the_tls_configuration_is_as_reviewed() {
    let conf = RabbitmqConf::tls(TlsListener {
        address: "0.0.0.0:5671".parse().unwrap(),
        files: TlsFiles {
            ca: "/etc/longshore/ca.pem".into(),
            certificate: "/etc/longshore/broker.pem".into(),
            key: "/etc/longshore/broker.key".into(),
        },
        client_certificate: ClientCertificate::Required,
    });
    golden("tls.conf", &conf.render().unwrap());
}
