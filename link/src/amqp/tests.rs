//! What can be tested without a broker: addresses, files, and a peer that never speaks.

#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::time::{Duration, Instant};

use broker_config::QueueType;
use rcgen::{CertificateParams, KeyPair};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;

use super::dial::{Purpose, dial_within};
use super::failure::Failure;
use super::{AmqpConfig, BrokerUrl, ConfigError, LISTEN_ANEW, Role, TlsFiles, UrlError};

fn config(url: &str) -> AmqpConfig {
    AmqpConfig {
        url: url.parse().unwrap(),
        tls: TlsFiles::default(),
        role: Role::Server { agents: Vec::new() },
        queue_type: QueueType::Quorum,
        proxy: None,
        listen_anew: LISTEN_ANEW,
    }
}

fn wrong(url: &str) -> UrlError {
    let error = url.parse::<BrokerUrl>().unwrap_err();
    assert!(!error.to_string().contains("hush"), "{error}");
    error
}

#[test]
fn a_url_shows_everything_but_the_password() {
    let url: BrokerUrl = "amqps://me:hush%2F%40@broker.example/long%2fshore".parse().unwrap();
    assert_eq!(url.to_string(), "amqps://me@broker.example:5671/long%2fshore");
    assert_eq!(format!("{url:?}"), "BrokerUrl(amqps://me@broker.example:5671/long%2fshore)");
    assert_eq!((url.host(), url.port(), url.vhost()), ("broker.example", 5671, "long/shore"));
    let url: BrokerUrl = "amqp://me:hush@[::1]:5673".parse().unwrap();
    assert_eq!(url.to_string(), "amqp://me@[::1]:5673/%2f");
    let config = format!("{:?}", config("amqp://me:hush@localhost/v"));
    assert!(!config.contains("hush"), "{config}");
    let url: BrokerUrl = "amqps://b/v?auth_mechanism=external".parse().unwrap();
    assert_eq!(url.to_string(), "amqps://b:5671/v");
}

#[test]
fn what_is_no_broker_url_is_refused_without_showing_a_password() {
    assert!(matches!(wrong("http://me:hush@b/v"), UrlError::Scheme { found } if found == "http"));
    assert!(matches!(wrong("me:hush@b/v"), UrlError::Scheme { .. }));
    assert_eq!(wrong("amqp://me:hush@/v"), UrlError::MissingHost);
    assert_eq!(wrong("amqp://me:hush/v"), UrlError::Port);
    assert_eq!(wrong("amqp://me:hush@b:0/v"), UrlError::Port);
    assert_eq!(wrong("amqp://me:hush@b:+5/v"), UrlError::Port);
    assert!(matches!(wrong("amqp://me:hush@b c/v"), UrlError::Host { .. }));
    assert!(matches!(wrong("amqp://me:hush@[::1/v"), UrlError::Host { .. }));
    assert_eq!(wrong("amqp://b/v"), UrlError::MissingUser);
    assert_eq!(wrong("amqp://me:hush@b/"), UrlError::Length { part: "virtual host" });
    assert_eq!(wrong("amqp://me:hush%zz@b/v"), UrlError::Encoding { part: "password" });
    assert_eq!(wrong("amqp://me%00:hush@b/v"), UrlError::Encoding { part: "user" });
    assert!(matches!(wrong("amqp://me:hush@b/v?heartbeat=0"), UrlError::QueryKey { key } if key == "heartbeat"));
    assert_eq!(wrong("amqp://me:a?hush@b/v"), UrlError::Port);
    assert!(matches!(wrong("amqp://b?hush@b/v"), UrlError::QueryKey { .. }));
    assert!(matches!(wrong("amqp://me:hush@b/v?auth_mechanism=anonymous"), UrlError::Mechanism { .. }));
    assert!(matches!(wrong(&format!("amqp://{}", "hush".repeat(3_000))), UrlError::TooLong { .. }));
}

#[test]
fn plain_amqp_is_for_loopback_only() {
    for url in ["amqp://u:p@127.0.0.1/v", "amqp://u:p@127.9.9.9/v", "amqp://u:p@[::1]/v", "amqp://u:p@LocalHost/v"] {
        config(url).validate().unwrap();
    }
    for url in ["amqp://u:p@192.0.2.1/v", "amqp://u:p@0.0.0.0/v", "amqp://u:p@localhost.example/v", "amqp://u:p@[::]/v"]
    {
        assert!(matches!(config(url).validate(), Err(ConfigError::PlainToNetwork { .. })), "{url}");
    }
}

fn write(dir: &Path, name: &str, text: &str) -> std::path::PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, text).unwrap();
    path
}

#[test]
fn tls_files_are_read_and_understood_before_connecting() {
    let dir = tempfile::tempdir().unwrap();
    let made = |name: &str| {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec![name.to_owned()]).unwrap().self_signed(&key).unwrap();
        (write(dir.path(), &format!("{name}.pem"), &certificate.pem()), write(dir.path(), name, &key.serialize_pem()))
    };
    let ((ca, key), (other, _)) = (made("one"), made("two"));
    let broken = write(dir.path(), "broken", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    let empty = write(dir.path(), "empty", "");
    let with = |ca: Option<&Path>, client: Option<(&Path, &Path)>| {
        let mut config = config("amqps://u:p@192.0.2.1/v");
        config.tls.ca = ca.map(Path::to_owned);
        config.tls.client = client.map(|(certificate, key)| (certificate.to_owned(), key.to_owned()));
        config.validate()
    };
    with(Some(&ca), None).unwrap();
    with(Some(&ca), Some((&ca, &key))).unwrap();
    assert!(matches!(with(None, None), Err(ConfigError::MissingCa)));
    assert!(matches!(with(Some(&dir.path().join("none")), None), Err(ConfigError::Read { .. })));
    assert!(matches!(with(Some(&empty), None), Err(ConfigError::Invalid { what: "CA file", .. })));
    assert!(matches!(with(Some(&broken), None), Err(ConfigError::Invalid { .. })));
    assert!(matches!(with(Some(Path::new("/dev/zero")), None), Err(ConfigError::TooLarge { .. })));
    assert!(matches!(with(Some(&ca), Some((&ca, &empty))), Err(ConfigError::Invalid { what: "client key", .. })));
    assert!(matches!(with(Some(&ca), Some((&other, &key))), Err(ConfigError::ClientCertificate { .. })));
    let mut plain = config("amqp://u:p@localhost/v");
    plain.tls.ca = Some(ca);
    assert!(matches!(plain.validate(), Err(ConfigError::TlsFilesWithoutTls)));
    let external = config("amqps://192.0.2.1/v?auth_mechanism=external");
    assert!(matches!(external.validate(), Err(ConfigError::ExternalWithoutCertificate)));
}

/// Threads of the AMQP library in this process.
fn library_threads() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
    tasks
        .filter(|task| std::fs::read_to_string(task.path().join("comm")).is_ok_and(|name| name.starts_with("lapin")))
        .count()
}

/// Descriptors of this process that are sockets connected to that port.
fn sockets_to(port: u16) -> usize {
    let table = std::fs::read_to_string("/proc/self/net/tcp").unwrap();
    let inodes: Vec<String> = table
        .lines()
        .skip(1)
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .filter(|fields| fields[2].ends_with(&format!(":{port:04X}")))
        .map(|fields| format!("socket:[{}]", fields[9]))
        .collect();
    let descriptors = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
    descriptors
        .filter_map(|fd| std::fs::read_link(fd.path()).ok())
        .filter(|link| inodes.iter().any(|inode| link.as_os_str() == inode.as_str()))
        .count()
}

#[tokio::test]
async fn a_peer_that_never_speaks_costs_neither_a_thread_nor_a_socket() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let silent = config(&format!("amqp://u:p@127.0.0.1:{port}/v"));
    for _ in 0..20 {
        let (dialled, accepted) =
            tokio::join!(dial_within(&silent, Purpose::Publish, Duration::from_millis(50)), listener.accept());
        assert!(matches!(dialled, Err(Failure::TimedOut { what: "logging in to the broker", .. })));
        // The protocol header came, and then the end, although nobody ever answered.
        let mut heard = Vec::new();
        accepted.unwrap().0.read_to_end(&mut heard).await.unwrap();
        assert!(b"AMQP\x00\x00\x09\x01".starts_with(&heard));
    }
    // Nothing announces the end of a thread.
    let start = Instant::now();
    while library_threads() > 0 || sockets_to(port) > 0 {
        let (threads, sockets) = (library_threads(), sockets_to(port));
        assert!(start.elapsed() < Duration::from_secs(60), "{threads} threads and {sockets} sockets are left");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
