//! Makes, reads and signs keys and certificates.
//!
//! No API, no clock (times are passed in), no decision about when to make something.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use pem::{EncodeConfig, LineEnding, Pem};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use thiserror::Error;
use x509_parser::prelude::{FromDer, X509Certificate};

/// How far a certificate without a predecessor is backdated, for clocks that are behind.
const BACKDATE: Duration = Duration::from_hours(24);
/// Longest PEM text that is read: a certificate has about 700 bytes.
const MAX_PEM: usize = 64 * 1024;

/// Why a key or certificate could not be made or read.
#[derive(Debug, Error)]
pub enum MaterialError {
    /// Making or signing failed.
    #[error("cannot make a certificate: {0}")]
    Make(#[from] rcgen::Error),
    /// A certificate is not readable.
    #[error("the certificate cannot be read: {0}")]
    Certificate(String),
    /// A certificate is not a CA certificate.
    #[error("the certificate is not a CA certificate (see its basicConstraints)")]
    NotCa,
    /// A key is not readable. The message of the parser is omitted: it could quote the key.
    #[error("the private key cannot be read (PEM PKCS#8 is needed)")]
    Key,
    /// Key and certificate are not a pair.
    #[error("the private key does not belong to the certificate")]
    Mismatch,
    /// A time outside the range of certificates.
    #[error("the time {0} cannot be written into a certificate")]
    Time(Timestamp),
}

/// A private key; its Debug output does not show it.
#[derive(Clone)]
pub struct PrivateKey(Arc<KeyPair>);

impl PrivateKey {
    fn generate() -> Result<Self, MaterialError> {
        Ok(Self(Arc::new(KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?)))
    }

    fn from_pem(pem: &[u8]) -> Result<Self, MaterialError> {
        if pem.len() > MAX_PEM {
            return Err(MaterialError::Key);
        }
        let der = PrivatePkcs8KeyDer::from_pem_slice(pem).map_err(|_| MaterialError::Key)?;
        let pair = KeyPair::try_from(&der).map_err(|_| MaterialError::Key)?;
        Ok(Self(Arc::new(pair)))
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey(hidden)")
    }
}

/// The certificate of a CA, without its key.
#[derive(Clone, PartialEq, Eq)]
pub struct CaCertificate {
    der: CertificateDer<'static>,
    /// When its validity begins.
    pub begins: Timestamp,
    /// When it expires.
    pub ends: Timestamp,
}

impl CaCertificate {
    /// Reads the first certificate of a PEM text.
    ///
    /// # Errors
    /// If there is none, or it is not a CA certificate.
    pub fn from_pem(pem: &[u8]) -> Result<Self, MaterialError> {
        if pem.len() > MAX_PEM {
            return Err(MaterialError::Certificate(format!("it has {} bytes", pem.len())));
        }
        let der = CertificateDer::from_pem_slice(pem)
            .map_err(|e| MaterialError::Certificate(e.to_string()))?;
        Self::from_der(der)
    }

    fn from_der(der: CertificateDer<'static>) -> Result<Self, MaterialError> {
        let (begins, ends) = {
            let parsed = parse(&der)?;
            if !parsed.is_ca() {
                return Err(MaterialError::NotCa);
            }
            let validity = parsed.validity();
            (at(validity.not_before.timestamp())?, at(validity.not_after.timestamp())?)
        };
        Ok(Self { der, begins, ends })
    }

    /// The certificate itself.
    pub fn der(&self) -> &CertificateDer<'static> {
        &self.der
    }

    /// The certificate as PEM; always the same text for the same certificate.
    pub fn to_pem(&self) -> String {
        to_pem(&self.der)
    }
}

impl fmt::Debug for CaCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The end of the signature distinguishes two certificates; the whole would be too long.
        let tail = &self.der[self.der.len().saturating_sub(4)..];
        write!(f, "CaCertificate({tail:02x?}, {} to {})", self.begins, self.ends)
    }
}

/// A CA that can sign.
#[derive(Clone, Debug)]
pub struct Ca {
    /// Its certificate.
    pub certificate: CaCertificate,
    key: PrivateKey,
}

impl PartialEq for Ca {
    fn eq(&self, other: &Self) -> bool {
        // A certificate names its public key, so equal certificates have equal keys.
        self.certificate == other.certificate
    }
}

impl Eq for Ca {}

impl Ca {
    /// Makes a CA (ECDSA P-256, may sign leaves only) that ends `lifetime` after `now`.
    ///
    /// Its validity begins with that of its predecessor, or a day ago. The begin protects nothing, and
    /// otherwise a CA from a replica whose clock is ahead would not be valid yet for the others.
    ///
    /// # Errors
    /// If the random source of the system fails, or a time is out of range.
    pub fn generate(
        now: Timestamp,
        lifetime: Duration,
        predecessor: Option<&CaCertificate>,
    ) -> Result<Self, MaterialError> {
        let key = PrivateKey::generate()?;
        let backdated = now.checked_sub(BACKDATE).map_err(|_| MaterialError::Time(now))?;
        let begins = predecessor.map_or(backdated, |p| p.begins.min(backdated));
        let ends = now.checked_add(lifetime).map_err(|_| MaterialError::Time(now))?;

        let mut params = CertificateParams::default();
        // Two CAs must not share a name: a verifier finds issuers by name. Skips the first byte: it is the
        // same for all uncompressed points.
        let point = key.0.public_key_raw().iter().skip(1).take(4);
        let tag = point.fold(String::new(), |tag, byte| format!("{tag}{byte:02x}"));
        let name = format!("zen-lead webhook CA {tag}");
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        params.not_before = rcgen::date_time_ymd(1970, 1, 1) + since_1970(begins)?;
        params.not_after = rcgen::date_time_ymd(1970, 1, 1) + since_1970(ends)?;
        let certificate = params.self_signed(&*key.0)?;
        Ok(Self { certificate: CaCertificate::from_der(certificate.into())?, key })
    }

    /// Reads a certificate and its key.
    ///
    /// # Errors
    /// If either is unreadable, the certificate is not a CA certificate, or they are not a pair.
    pub fn from_pem(certificate: &[u8], key: &[u8]) -> Result<Self, MaterialError> {
        let certificate = CaCertificate::from_pem(certificate)?;
        let key = PrivateKey::from_pem(key)?;
        let matches = {
            let parsed = parse(&certificate.der)?;
            parsed.public_key().raw == key.0.subject_public_key_info()
        };
        if matches { Ok(Self { certificate, key }) } else { Err(MaterialError::Mismatch) }
    }

    /// The key as PEM: only for the Secret.
    pub(super) fn key_pem(&self) -> String {
        self.key.0.serialize_pem()
    }

    /// Signs a new leaf for `names` (DNS names and IP addresses) that expires `lifetime` after `now`, or with
    /// the CA.
    ///
    /// # Errors
    /// If a name is not valid, or as [`Ca::generate`].
    pub fn sign(
        &self,
        names: &[String],
        now: Timestamp,
        lifetime: Duration,
    ) -> Result<Leaf, MaterialError> {
        let key = PrivateKey::generate()?;
        let ends = now.checked_add(lifetime).map_err(|_| MaterialError::Time(now))?;
        let ends = ends.min(self.certificate.ends);

        let mut params = CertificateParams::new(names.to_vec())?;
        let first_dns = names.iter().find(|n| n.parse::<IpAddr>().is_err());
        // A common name has at most 64 characters (RFC 5280, upper bounds); clients ignore it.
        let subject = first_dns.filter(|n| n.len() <= 64).map_or("zen-lead", String::as_str);
        params.distinguished_name.push(DnType::CommonName, subject);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        params.not_before = rcgen::date_time_ymd(1970, 1, 1) + since_1970(self.certificate.begins)?;
        params.not_after = rcgen::date_time_ymd(1970, 1, 1) + since_1970(ends)?;
        let issuer = Issuer::from_ca_cert_der(&self.certificate.der, &*self.key.0)?;
        let certificate = params.signed_by(&*key.0, &issuer)?;
        Ok(Leaf { der: certificate.into(), key, ends, made: now })
    }
}

/// A certificate for serving, with its key.
#[derive(Clone, Debug)]
pub struct Leaf {
    der: CertificateDer<'static>,
    key: PrivateKey,
    /// When it expires.
    pub ends: Timestamp,
    /// When it was signed.
    pub made: Timestamp,
}

impl Leaf {
    /// The chain to serve: only the leaf, because the caller knows its CA as root.
    pub fn chain(&self) -> Vec<CertificateDer<'static>> {
        vec![self.der.clone()]
    }

    /// Its key, for rustls.
    pub fn key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key.0.serialize_der()))
    }

    /// When two thirds of its lifetime are over: time for the next one.
    ///
    /// A clock that was set back does not make it due. If the clock was wrong before, the leaf expires late,
    /// which does no harm. If it is wrong now, a new leaf would expire early.
    pub fn due_at(&self) -> Timestamp {
        let third = self.ends.duration_since(self.made) / 3;
        self.ends.checked_sub(third).unwrap_or(self.made)
    }
}

/// PEM of a certificate, with LF line ends.
pub(super) fn to_pem(der: &CertificateDer<'_>) -> String {
    let config = EncodeConfig::new().set_line_ending(LineEnding::LF);
    pem::encode_config(&Pem::new("CERTIFICATE", der.as_ref()), config)
}

fn parse<'a>(der: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, MaterialError> {
    X509Certificate::from_der(der)
        .map(|(_, parsed)| parsed)
        .map_err(|e| MaterialError::Certificate(e.to_string()))
}

fn at(seconds: i64) -> Result<Timestamp, MaterialError> {
    Timestamp::from_second(seconds).map_err(|e| MaterialError::Certificate(e.to_string()))
}

/// The time since 1970, to be added to a date of rcgen. (The type for times of rcgen is that of the crate
/// `time`, which is not needed otherwise.)
fn since_1970(at: Timestamp) -> Result<Duration, MaterialError> {
    u64::try_from(at.as_second()).map(Duration::from_secs).map_err(|_| MaterialError::Time(at))
}
