//! Certificates from a mounted directory: `tls.crt` (a chain, leaf first) and `tls.key`.
//!
//! How often it is read is `platform::files`'.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem};
use thiserror::Error;

use super::{CertificateError, CertificateSource};
use crate::platform::clock::Clock;
use crate::platform::files::Reread;

/// The symlink that the kubelet swaps, so that both files change in one step.
const GENERATION: &str = "..data";

/// Why a directory has no usable certificate.
#[derive(Debug, Error)]
pub enum ReadError {
    /// A file is missing or cannot be read.
    #[error("cannot read {path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// A file has no PEM block of the right type.
    #[error("{path} holds no usable PEM: {source}")]
    Pem {
        /// The file.
        path: PathBuf,
        /// The error of the parser.
        source: pem::Error,
    },
    /// The pair was refused.
    #[error("{path}: {source}")]
    Refused {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: CertificateError,
    },
}

/// A directory that feeds a [`CertificateSource`].
pub struct Mounted {
    directory: PathBuf,
    source: Arc<CertificateSource>,
    clock: Clock,
    /// The files of the last attempt, so that a broken pair is reported once and not at every poll.
    tried: Option<(Vec<u8>, Vec<u8>)>,
}

impl Mounted {
    /// A directory that has not been read yet.
    pub fn new(
        directory: impl Into<PathBuf>,
        source: Arc<CertificateSource>,
        clock: Clock,
    ) -> Self {
        Self { directory: directory.into(), source, clock, tried: None }
    }

    /// Reads the files once; `Ok(None)` if nothing changed since the last time.
    ///
    /// # Errors
    /// See [`ReadError`]; the certificate in use stays.
    pub async fn poll(&mut self) -> Result<Option<Timestamp>, ReadError> {
        // Both files through one resolved link, so that a swap between the two reads cannot pair
        // the old certificate with the new key.
        let link = self.directory.join(GENERATION);
        let from = tokio::fs::canonicalize(&link).await.unwrap_or_else(|_| self.directory.clone());
        let files = (read(&from, "tls.crt").await?, read(&from, "tls.key").await?);
        if self.tried.as_ref() == Some(&files) {
            return Ok(None);
        }
        let loaded = self.load(&files.0, &files.1);
        // A certificate that is expired by our clock is tried again: the clock may be corrected.
        let expired =
            matches!(&loaded, Err(ReadError::Refused { source: CertificateError::Expired(_), .. }));
        self.tried = (!expired).then_some(files);
        loaded.map(Some)
    }

    pub(super) fn load(&self, chain: &[u8], key: &[u8]) -> Result<Timestamp, ReadError> {
        let wrong = |name: &str, source| ReadError::Pem { path: self.directory.join(name), source };
        let chain = CertificateDer::pem_slice_iter(chain)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|e| wrong("tls.crt", e))?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|e| wrong("tls.key", e))?;
        self.source
            .swap(chain, key, self.clock.now())
            .map_err(|source| ReadError::Refused { path: self.directory.clone(), source })
    }
}

impl Reread for Mounted {
    const WHAT: &'static str = "certificate";
    type Error = ReadError;

    /// Counts each failure.
    async fn reread(&mut self) -> Result<Option<String>, ReadError> {
        let polled = self.poll().await;
        if matches!(polled, Err(ReadError::File { .. } | ReadError::Pem { .. })) {
            self.source.metrics.certificate_load("unreadable");
        }
        let shown = self.directory.display();
        Ok(polled?.map(|ends| format!("certificate loaded from {shown}, valid until {ends}")))
    }
}

async fn read(directory: &Path, name: &str) -> Result<Vec<u8>, ReadError> {
    let path = directory.join(name);
    tokio::fs::read(&path).await.map_err(|source| ReadError::File { path, source })
}
