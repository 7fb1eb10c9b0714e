//! TLS from files: trust in exactly one set of authorities, and perhaps a client certificate. Never falls back to the
//! system's authorities, never skips a check.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};

use super::config::{AmqpConfig, ConfigError};

/// Bytes of a PEM file. A long chain has 20 KiB; reading a device file by mistake must end.
const PEM_BYTES_MAX: u64 = 1024 * 1024;

const CA: &str = "CA file";
const CERTIFICATE: &str = "client certificate";
const KEY: &str = "client key";

/// Reads the files anew and makes the TLS configuration of one connection.
pub(super) fn load(config: &AmqpConfig) -> Result<Arc<ClientConfig>, ConfigError> {
    let ca = config.tls.ca.as_deref().ok_or(ConfigError::MissingCa)?;
    if ServerName::try_from(config.url.host.as_str()).is_err() {
        return Err(ConfigError::ServerName { host: config.url.host.clone() });
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| ConfigError::Provider { why: e.to_string() })?
        .with_root_certificates(roots(ca)?);
    let Some((certificate, key)) = &config.tls.client else {
        return Ok(Arc::new(builder.with_no_client_auth()));
    };
    let chain = certificates(certificate, CERTIFICATE)?;
    let bytes = read(key, KEY)?;
    let private = PrivateKeyDer::from_pem_slice(&bytes).map_err(|e| invalid(KEY, key, &e))?;
    let config = builder.with_client_auth_cert(chain, private).map_err(|e| ConfigError::ClientCertificate {
        certificate: certificate.clone(),
        key: key.clone(),
        why: e.to_string(),
    })?;
    Ok(Arc::new(config))
}

fn roots(path: &Path) -> Result<RootCertStore, ConfigError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path, CA)? {
        roots.add(certificate).map_err(|e| invalid(CA, path, &e))?;
    }
    Ok(roots)
}

fn certificates(path: &Path, what: &'static str) -> Result<Vec<CertificateDer<'static>>, ConfigError> {
    let bytes = read(path, what)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    let found = found.map_err(|e| invalid(what, path, &e))?;
    if found.is_empty() {
        return Err(invalid(what, path, &"it holds no PEM certificate"));
    }
    Ok(found)
}

fn read(path: &Path, what: &'static str) -> Result<Vec<u8>, ConfigError> {
    let io = |source| ConfigError::Read { what, path: path.to_owned(), source };
    let mut bytes = Vec::new();
    File::open(path).map_err(io)?.take(PEM_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(io)?;
    if bytes.len() as u64 > PEM_BYTES_MAX {
        return Err(ConfigError::TooLarge { what, path: path.to_owned(), max: PEM_BYTES_MAX });
    }
    Ok(bytes)
}

fn invalid(what: &'static str, path: &Path, why: &dyn std::fmt::Display) -> ConfigError {
    ConfigError::Invalid { what, path: path.to_owned(), why: why.to_string() }
}
