//! The TLS listener of a node: the rendered settings, with certificates made here.

use broker_config::node::NodeOptions;
use broker_config::render::{ClientCertificate, TlsFiles};
use lapin::tcp::{OwnedIdentity, OwnedTLSConfig};
use lapin::{Connection, ConnectionProperties};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

use crate::amqp;
use crate::support::{Test, started};

pub(crate) fn tests() -> Vec<Test> {
    vec![(
        "a_tls_listener_takes_only_clients_with_a_certificate_of_its_authority",
        required,
    )]
}

struct Pem {
    certificate: String,
    key: String,
}

fn signed(name: &str, issuer: &CertifiedIssuer<'_, KeyPair>) -> Pem {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    Pem {
        certificate: params.signed_by(&key, issuer).unwrap().pem(),
        key: key.serialize_pem(),
    }
}

fn authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn required() {
    let (ours, foreign) = (authority(), authority());
    let files = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = files.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let broker = signed("127.0.0.1", &ours);
    let tls = TlsFiles {
        ca: write("ca.pem", &ours.pem()),
        certificate: write("broker.pem", &broker.certificate),
        key: write("broker.key", &broker.key),
    };
    let options = NodeOptions {
        tls: Some((tls, ClientCertificate::Required)),
        ..NodeOptions::default()
    };
    let (_dir, node) = started(options);
    let url = node.info().tls_url.unwrap();
    let connect = |client: Option<Pem>, ca: String| {
        let identity = client.map(|pem| OwnedIdentity::PKCS8 {
            pem: pem.certificate.into_bytes(),
            key: pem.key.into_bytes(),
        });
        let config = OwnedTLSConfig {
            identity,
            cert_chain: Some(ca),
        };
        let properties = ConnectionProperties::default();
        amqp::run(async {
            let runtime = lapin::runtime::default_runtime().unwrap();
            Connection::connect_with_config(&url, properties, config, runtime).await
        })
    };
    let good = connect(Some(signed("client", &ours)), ours.pem());
    assert!(good.is_ok(), "{:?}", good.err());
    assert!(
        connect(None, ours.pem()).is_err(),
        "a client without a certificate got in"
    );
    assert!(
        connect(Some(signed("client", &foreign)), ours.pem()).is_err(),
        "a foreign client got in"
    );
    assert!(
        connect(Some(signed("client", &ours)), foreign.pem()).is_err(),
        "a foreign broker was trusted"
    );
}
