//! The certificate of the webhook server: a checked swap, and the mounted directory as a source.
//!
//! The other source, self-made certificates, is `pki`. Nothing here panics on bad input: a pair that fails
//! the checks is refused, and the old one stays in use.

pub mod clients;
mod mounted;

#[cfg(test)]
pub(crate) mod tests;

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use jiff::Timestamp;
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use thiserror::Error;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::platform::metrics::Metrics;
pub use clients::{Clients, Followed};
pub use mounted::{Mounted, ReadError};

/// Why a certificate and key were refused.
#[derive(Debug, Error)]
pub enum CertificateError {
    /// The chain is empty.
    #[error("no certificate was given")]
    Empty,
    /// The first certificate is not X.509.
    #[error("the certificate cannot be read: {0}")]
    Unreadable(String),
    /// The key has a type that rustls (ring) cannot use.
    #[error("the private key cannot be used (PKCS#8, PKCS#1 RSA or SEC1 EC is needed): {0}")]
    Key(rustls::Error),
    /// Certificate and key are not a pair.
    #[error("the private key does not belong to the certificate")]
    Mismatch,
    /// The certificate has expired.
    #[error("the certificate expired at {0}")]
    Expired(Timestamp),
}

/// The certificate in use, shared by the TLS server and the task that renews it.
pub struct CertificateSource {
    current: ArcSwapOption<CertifiedKey>,
    provider: Arc<CryptoProvider>,
    metrics: Arc<Metrics>,
}

impl CertificateSource {
    /// A source without a certificate: handshakes fail until the first [`CertificateSource::swap`].
    pub fn new(metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self { current: ArcSwapOption::empty(), provider: provider(), metrics })
    }

    /// Whether there is a certificate; a gate of readiness.
    pub fn is_loaded(&self) -> bool {
        self.current.load().is_some()
    }

    /// Puts a new chain (leaf first) and key into use; returns when the leaf expires.
    ///
    /// New handshakes use it immediately; open connections continue. A leaf that is not valid *yet* is
    /// accepted: the clock of this machine may be wrong, and the client checks by its own clock.
    ///
    /// # Errors
    /// See [`CertificateError`]; the certificate in use stays.
    pub fn swap(
        &self,
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
        now: Timestamp,
    ) -> Result<Timestamp, CertificateError> {
        let ends = self.checked(chain, key, now).map(|(certified, ends)| {
            self.current.store(Some(Arc::new(certified)));
            ends
        });
        match &ends {
            Ok(ends) => {
                #[allow(clippy::cast_precision_loss, reason = "seconds since 1970 fit 52 bits")]
                self.metrics.set_certificate_expiry("webhook", ends.as_second() as f64);
                self.metrics.certificate_load("ok");
            }
            Err(_) => self.metrics.certificate_load("refused"),
        }
        ends
    }

    /// The chain in use, for tests.
    #[cfg(test)]
    pub(crate) fn chain(&self) -> Vec<CertificateDer<'static>> {
        self.current.load().as_ref().map(|c| c.cert.clone()).unwrap_or_default()
    }

    fn checked(
        &self,
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
        now: Timestamp,
    ) -> Result<(CertifiedKey, Timestamp), CertificateError> {
        let leaf = chain.first().ok_or(CertificateError::Empty)?;
        let ends = ends_at(leaf)?;
        if ends <= now {
            return Err(CertificateError::Expired(ends));
        }
        let key =
            self.provider.key_provider.load_private_key(key).map_err(CertificateError::Key)?;
        let certified = CertifiedKey::new(chain, key);
        certified.keys_match().map_err(|_| CertificateError::Mismatch)?;
        Ok((certified, ends))
    }
}

impl ResolvesServerCert for CertificateSource {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        // Ignores the name that the client asks for: there is one certificate, and a client that wants
        // another name rejects it.
        self.current.load_full()
    }
}

impl fmt::Debug for CertificateSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CertificateSource").field("loaded", &self.is_loaded()).finish()
    }
}

/// TLS 1.2 and 1.3 with ring, HTTP/2 and HTTP/1.1 by ALPN, certificates from `source`. With `clients`, a
/// client needs a certificate that they accept.
///
/// # Errors
/// If the provider supports neither version: an error in the build.
pub fn server_config(
    source: Arc<CertificateSource>,
    clients: Option<Arc<Clients>>,
) -> Result<Arc<ServerConfig>, rustls::Error> {
    let provider = Arc::clone(&source.provider);
    let builder = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?;
    let mut config = match clients {
        None => builder.with_no_client_auth().with_cert_resolver(source),
        Some(clients) => {
            let mut config = builder.with_client_cert_verifier(clients).with_cert_resolver(source);
            // A resumed session would keep the verdict on a certificate whose CA may be gone by now.
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
            config
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// The crypto provider of this process, passed explicitly so that no process-wide default is needed.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// When a certificate expires.
fn ends_at(certificate: &CertificateDer<'_>) -> Result<Timestamp, CertificateError> {
    let unreadable = |e: &dyn fmt::Display| CertificateError::Unreadable(e.to_string());
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|e| unreadable(&e))?;
    Timestamp::from_second(parsed.validity().not_after.timestamp()).map_err(|e| unreadable(&e))
}
