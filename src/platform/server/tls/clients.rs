//! The clients of the webhook, if they have to present a certificate: the CAs and the names that are accepted.
//!
//! The file of the CAs is read again when it changes. What the API server has to be told is in
//! docs/admission.md.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::CryptoProvider;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore,
    SignatureScheme,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, UnixTime, pem};
use thiserror::Error;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::provider;
use crate::platform::files::Reread;

/// Why a file of CAs was not taken.
#[derive(Debug, Error)]
pub enum ClientsError {
    /// The file is missing or cannot be read.
    #[error("cannot read {0}: {1}")]
    File(PathBuf, io::Error),
    /// The file is not PEM.
    #[error("{0} cannot be read as PEM: {1}")]
    Pem(PathBuf, pem::Error),
    /// The file has no certificate.
    #[error("{0} has no certificate")]
    Empty(PathBuf),
    /// A certificate cannot be used as a CA.
    #[error("{0} has a certificate that cannot be used as a CA: {1}")]
    Certificate(PathBuf, Error),
    /// rustls made no verifier of them.
    #[error("the certificates in {0} cannot be used: {1}")]
    Verifier(PathBuf, VerifierBuilderError),
}

/// Accepts certificates that a CA of the file signed, with one of the names.
pub struct Clients {
    file: PathBuf,
    names: Vec<String>,
    provider: Arc<CryptoProvider>,
    current: ArcSwap<Arc<dyn ClientCertVerifier>>,
}

impl Clients {
    /// Reads the file of CAs. Without `names`, each certificate of theirs is accepted.
    ///
    /// # Errors
    /// See [`ClientsError`].
    pub fn load(file: PathBuf, names: Vec<String>) -> Result<Arc<Self>, ClientsError> {
        let provider = provider();
        let text = std::fs::read(&file).map_err(|e| ClientsError::File(file.clone(), e))?;
        let verifier = verifier(&file, &text, &provider)?;
        let current = ArcSwap::from_pointee(verifier);
        Ok(Arc::new(Self { file, names, provider, current }))
    }
}

/// Reads the CAs again when the file changes.
pub struct Followed {
    clients: Arc<Clients>,
    /// Content of the last attempt.
    tried: Vec<u8>,
}

impl From<Arc<Clients>> for Followed {
    fn from(clients: Arc<Clients>) -> Self {
        Self { clients, tried: Vec::new() }
    }
}

impl Reread for Followed {
    const WHAT: &'static str = "CAs of clients";
    type Error = ClientsError;

    async fn reread(&mut self) -> Result<Option<String>, ClientsError> {
        let Clients { file, provider, current, .. } = &*self.clients;
        let text = tokio::fs::read(file).await.map_err(|e| ClientsError::File(file.clone(), e))?;
        if self.tried == text {
            return Ok(None);
        }
        let taken = verifier(file, &text, provider);
        self.tried = text;
        current.store(Arc::new(taken?));
        Ok(Some(format!("CAs of clients loaded from {}", file.display())))
    }
}

fn verifier(
    file: &Path,
    text: &[u8],
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, ClientsError> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(text) {
        let certificate = certificate.map_err(|e| ClientsError::Pem(file.to_owned(), e))?;
        roots.add(certificate).map_err(|e| ClientsError::Certificate(file.to_owned(), e))?;
    }
    if roots.is_empty() {
        return Err(ClientsError::Empty(file.to_owned()));
    }
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
        .build()
        .map_err(|e| ClientsError::Verifier(file.to_owned(), e))
}

/// The common names and the DNS names of a certificate.
fn names(certificate: &CertificateDer<'_>) -> Vec<String> {
    let Ok((_, parsed)) = X509Certificate::from_der(certificate) else { return Vec::new() };
    let common = parsed.subject().iter_common_name().filter_map(|name| name.as_str().ok());
    let mut names: Vec<String> = common.map(str::to_owned).collect();
    if let Ok(Some(others)) = parsed.subject_alternative_name() {
        names.extend(others.value.general_names.iter().filter_map(|name| match name {
            GeneralName::DNSName(name) => Some((*name).to_owned()),
            _ => None,
        }));
    }
    names
}

impl ClientCertVerifier for Clients {
    /// None: the list is sent to clients that have presented nothing yet. A client with one certificate sends
    /// it all the same.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.current.load().verify_client_cert(end_entity, intermediates, now)?;
        let found = names(end_entity);
        if self.names.is_empty() || found.iter().any(|name| self.names.contains(name)) {
            return Ok(verified);
        }
        tracing::warn!(?found, "a client certificate has no name of --webhook-client-names");
        Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.current.load().verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.current.load().verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.current.load().supported_verify_schemes()
    }
}

impl fmt::Debug for Clients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Clients");
        shown.field("file", &self.file).field("names", &self.names).finish_non_exhaustive()
    }
}
