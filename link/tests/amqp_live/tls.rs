//! TLS: who is trusted and who is not, and that nothing crosses a network in the clear.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use broker_config::render;
use futures_util::FutureExt as _;
use link::amqp::{AmqpConfig, ConfigError, TlsFiles};
use link::wire::WireEvent;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::support::{Broker, Endpoint, Test, broker, message, runtime, server_role, to_agent};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        ("a_client_with_a_certificate_is_served_over_tls", served),
        ("a_client_without_a_certificate_is_refused", anonymous),
        ("a_broker_of_an_unknown_authority_is_refused", unknown),
        ("an_expired_certificate_and_one_for_another_host_are_refused", invalid),
        ("certificates_that_were_replaced_are_used_without_a_restart", replaced),
        ("plain_amqp_off_loopback_is_refused_without_connecting", plain),
    ]
}

type Authority = CertifiedIssuer<'static, KeyPair>;

/// Certificates for a broker on 127.0.0.1 and its clients, and an authority that signed none of them.
pub(crate) struct Pki {
    dir: PathBuf,
    authority: Authority,
    pub(crate) broker: render::TlsFiles,
    client: (PathBuf, PathBuf),
    foreign_ca: PathBuf,
}

impl Pki {
    pub(crate) fn new(dir: &Path) -> Self {
        let (authority, foreign) = (authority("ours"), authority("foreign"));
        let ca = write(dir, "ca.pem", &authority.pem());
        let (certificate, key) = signed(dir, "broker", "127.0.0.1", &authority, |_| {});
        let broker = render::TlsFiles { ca, certificate, key };
        let client = signed(dir, "client", "client", &authority, |_| {});
        let foreign_ca = write(dir, "foreign.pem", &foreign.pem());
        Self { dir: dir.to_owned(), authority, broker, client, foreign_ca }
    }

    fn files(&self) -> TlsFiles {
        TlsFiles { ca: Some(self.broker.ca.clone()), client: Some(self.client.clone()) }
    }
}

fn authority(name: &str) -> Authority {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn signed(
    dir: &Path,
    file: &str,
    name: &str,
    issuer: &Authority,
    change: impl Fn(&mut CertificateParams),
) -> (PathBuf, PathBuf) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, file);
    change(&mut params);
    let certificate = params.signed_by(&key, issuer).unwrap().pem();
    (write(dir, &format!("{file}.pem"), &certificate), write(dir, &format!("{file}.key"), &key.serialize_pem()))
}

fn write(dir: &Path, name: &str, text: &str) -> PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, text).unwrap();
    path
}

fn config(broker: &Broker, tls: TlsFiles) -> AmqpConfig {
    let mut config = broker.config(server_role(&["tls"]));
    config.url = broker.node.info().tls_url.unwrap().parse().unwrap();
    config.tls = tls;
    config
}

fn served() {
    let broker = broker();
    let config = config(&broker, broker.pki.files());
    config.validate().unwrap();
    runtime().block_on(async {
        let mut server = Endpoint::start(config);
        server.up().await;
        // More than a TLS record and a frame hold.
        server.publish_until_confirmed(message(to_agent("tls"), 1, &vec![3; 200_000])).await;
        server.stop().await;
    });
}

fn anonymous() {
    let broker = broker();
    let config = config(&broker, TlsFiles { client: None, ..broker.pki.files() });
    runtime().block_on(async {
        let mut server = Endpoint::start(config);
        server
            .until("Down", |event| match event {
                WireEvent::Down { .. } => Some(()),
                WireEvent::Up { .. } => panic!("let in without a certificate"),
                _ => None,
            })
            .await;
        server.stop().await;
    });
}

fn unknown() {
    let broker = broker();
    let foreign = TlsFiles { ca: Some(broker.pki.foreign_ca.clone()), ..broker.pki.files() };
    runtime().block_on(async {
        let mut server = Endpoint::start(config(&broker, foreign));
        server.down("invalid peer certificate: UnknownIssuer").await;
        server.stop().await;
    });
}

/// Listens with that certificate, and tells whether anybody finished the handshake.
async fn listen(certificate: &Path, key: &Path) -> (u16, tokio::task::JoinHandle<bool>) {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let chain = vec![CertificateDer::from_pem_file(certificate).unwrap()];
    let key = PrivateKeyDer::from_pem_file(key).unwrap();
    let config = config.with_no_client_auth().with_single_cert(chain, key).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let accepted = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        TlsAcceptor::from(Arc::new(config)).accept(stream).await.is_ok()
    });
    (port, accepted)
}

fn invalid() {
    let broker = broker();
    let pki = &broker.pki;
    let expired = signed(&pki.dir, "expired", "127.0.0.1", &pki.authority, |params| {
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2021, 1, 1);
    });
    let elsewhere = signed(&pki.dir, "elsewhere", "broker.example", &pki.authority, |_| {});
    runtime().block_on(async {
        for ((certificate, key), word) in [(expired, "expired"), (elsewhere, "not valid for name")] {
            let (port, accepted) = listen(&certificate, &key).await;
            let mut config = config(&broker, pki.files());
            config.url = format!("amqps://u:p@127.0.0.1:{port}/v").parse().unwrap();
            let mut server = Endpoint::start(config);
            server.down(word).await;
            assert!(!accepted.await.unwrap());
            server.stop().await;
        }
    });
}

fn replaced() {
    let broker = broker();
    let ca = write(&broker.pki.dir, "rotating.pem", &std::fs::read_to_string(&broker.pki.foreign_ca).unwrap());
    let files = TlsFiles { ca: Some(ca.clone()), ..broker.pki.files() };
    runtime().block_on(async {
        let mut server = Endpoint::start(config(&broker, files));
        server.down("UnknownIssuer").await;
        std::fs::copy(&broker.pki.broker.ca, ca).unwrap();
        server.up().await;
        server.stop().await;
    });
}

fn plain() {
    let broker = broker();
    runtime().block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut config = broker.config(server_role(&[]));
        // A name that may well resolve to loopback, but is not beyond doubt.
        config.url = format!("amqp://u:p@localhost.localdomain:{port}/v").parse().unwrap();
        assert!(matches!(config.validate(), Err(ConfigError::PlainToNetwork { .. })));
        let mut server = Endpoint::start(config);
        for _ in 0..3 {
            server.down("a broker that is not on loopback needs amqps").await;
        }
        assert!(listener.accept().now_or_never().is_none(), "it connected all the same");
        server.stop().await;
    });
}
