//! The TLS listener of a node: the rendered settings, with certificates made here.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use broker_config::node::NodeOptions;
use broker_config::render::{ClientCertificate, TlsFiles};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::support::{Test, started};

pub(crate) fn tests() -> Vec<Test> {
    vec![("a_tls_listener_takes_only_clients_with_a_certificate_of_its_authority", required)]
}

struct Pem {
    certificate: String,
    key: String,
}

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority() -> Authority {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "authority");
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn signed(name: &str, issuer: &Authority) -> Pem {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    // Unlike the authority's: Erlang takes equal names for a self-signed certificate.
    params.distinguished_name.push(DnType::CommonName, name);
    let certificate = params.signed_by(&key, issuer).unwrap().pem();
    Pem { certificate, key: key.serialize_pem() }
}

/// Shakes hands and asks for AMQP; the first byte of the answer (1: a method frame).
fn greet(port: u16, trusted: &Authority, client: Option<Pem>) -> io::Result<u8> {
    let der = |pem: &str| CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(der(&trusted.pem())).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let config = match client {
        Some(pem) => {
            let key = PrivateKeyDer::from_pem_slice(pem.key.as_bytes()).unwrap();
            config.with_client_auth_cert(vec![der(&pem.certificate)], key).unwrap()
        }
        None => config.with_no_client_auth(),
    };
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let connection = ClientConnection::new(Arc::new(config), name).map_err(io::Error::other)?;
    let socket = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    socket.set_read_timeout(Some(Duration::from_secs(60)))?;
    let mut stream = StreamOwned::new(connection, socket);
    stream.write_all(b"AMQP\x00\x00\x09\x01")?;
    let mut first = [0];
    stream.read_exact(&mut first)?;
    Ok(first[0])
}

fn port_of(url: &str) -> u16 {
    let (_, rest) = url.rsplit_once(':').unwrap();
    rest.split('/').next().unwrap().parse().unwrap()
}

fn write(dir: &Path, name: &str, text: &str) -> std::path::PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, text).unwrap();
    path
}

fn required() {
    let (ours, foreign) = (authority(), authority());
    let files = tempfile::tempdir().unwrap();
    let broker = signed("127.0.0.1", &ours);
    let tls = TlsFiles {
        ca: write(files.path(), "ca.pem", &ours.pem()),
        certificate: write(files.path(), "broker.pem", &broker.certificate),
        key: write(files.path(), "broker.key", &broker.key),
    };
    let tls = Some((tls, ClientCertificate::Required));
    let (_dir, node) = started(NodeOptions { tls, ..NodeOptions::default() });
    let port = port_of(&node.info().tls_url.unwrap());
    assert_eq!(greet(port, &ours, Some(signed("client", &ours))).unwrap(), 1);
    assert!(greet(port, &ours, None).is_err(), "a client without a certificate got in");
    let stranger = Some(signed("client", &foreign));
    assert!(greet(port, &ours, stranger).is_err(), "a foreign client got in");
    let client = Some(signed("client", &ours));
    assert!(greet(port, &foreign, client).is_err(), "a foreign broker was trusted");
}
