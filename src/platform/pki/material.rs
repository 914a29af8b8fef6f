//! Keys and certificates: making, reading and signing them.
//!
//! No API, no clock (times are given), no decision when something is made.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use pem::{EncodeConfig, LineEnding, Pem};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PublicKeyData,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use thiserror::Error;
use x509_parser::prelude::{FromDer, X509Certificate};

/// How far a certificate without a predecessor is dated back, for clocks that are behind.
const BACKDATE: Duration = Duration::from_hours(24);
/// Longest PEM read: a certificate is about 700 bytes.
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
    /// A certificate is not one of a CA.
    #[error("the certificate is not one of a CA (basicConstraints says so)")]
    NotCa,
    /// A key is not readable. The text of the parser is left out: it could quote the key.
    #[error("the private key cannot be read (PEM PKCS#8 is needed)")]
    Key,
    /// Key and certificate are not a pair.
    #[error("the private key does not belong to the certificate")]
    Mismatch,
    /// A time outside of what certificates can say.
    #[error("{0} cannot be written into a certificate")]
    Time(Timestamp),
}

/// A private key whose Debug shows nothing of it.
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

    /// The key as PEM: for the Secret, and nothing else.
    pub(super) fn to_pem(&self) -> String {
        self.0.serialize_pem()
    }

    /// The key for rustls.
    pub fn to_der(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.0.serialize_der()))
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
    /// First moment at which it is valid.
    pub begins: Timestamp,
    /// Moment at which it ends.
    pub ends: Timestamp,
}

impl CaCertificate {
    /// Reads the first certificate of a PEM text.
    ///
    /// # Errors
    /// When there is none, or when it is not one of a CA.
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

    /// The certificate as PEM, always the same text for the same certificate.
    pub fn to_pem(&self) -> String {
        to_pem(&self.der)
    }
}

impl fmt::Debug for CaCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The tail of the signature tells two apart; the whole would drown everything else.
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
    /// It begins where its predecessor does, or a day ago: the begin guards nothing, and so a
    /// replica whose clock runs ahead makes no CA that everybody else holds to be not valid yet.
    ///
    /// # Errors
    /// When the randomness of the system fails, or a time cannot be written down.
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
        // Two CAs must not share a name: a verifier looks issuers up by it. The first byte of an
        // uncompressed point says only that it is one.
        let point = key.0.public_key_raw().iter().skip(1).take(4);
        let tag = point.fold(String::new(), |tag, byte| format!("{tag}{byte:02x}"));
        params.distinguished_name = common_name(&format!("zen-lead webhook CA {tag}"));
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
    /// When either is unreadable, the certificate is no CA's, or they are not a pair.
    pub fn from_pem(certificate: &[u8], key: &[u8]) -> Result<Self, MaterialError> {
        let certificate = CaCertificate::from_pem(certificate)?;
        let key = PrivateKey::from_pem(key)?;
        let matches = {
            let parsed = parse(&certificate.der)?;
            parsed.public_key().raw == key.0.subject_public_key_info()
        };
        if matches { Ok(Self { certificate, key }) } else { Err(MaterialError::Mismatch) }
    }

    /// The key as PEM: for the Secret, and nothing else.
    pub(super) fn key_pem(&self) -> String {
        self.key.to_pem()
    }

    /// Signs a fresh leaf for `names` (DNS names and IP addresses) that ends `lifetime` after `now`,
    /// or with the CA.
    ///
    /// # Errors
    /// When a name is not one, or as [`Ca::generate`].
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
        // A common name holds 64 characters at most (RFC 5280, upper bounds); nobody reads it.
        let subject = first_dns.filter(|n| n.len() <= 64).map_or("zen-lead", String::as_str);
        params.distinguished_name = common_name(subject);
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
    /// Moment at which it ends.
    pub ends: Timestamp,
    /// Moment at which it was signed.
    pub made: Timestamp,
}

impl Leaf {
    /// The chain to show: the leaf alone, its CA being the root that the caller knows.
    pub fn chain(&self) -> Vec<CertificateDer<'static>> {
        vec![self.der.clone()]
    }

    /// Its key.
    pub fn key(&self) -> PrivateKeyDer<'static> {
        self.key.to_der()
    }

    /// When two thirds of its life are over: time for the next one.
    ///
    /// A clock that was set back does not make it due: either the clock was wrong before, then the
    /// leaf ends late, which harms nobody; or it is wrong now, then a new leaf would end early.
    pub fn due_at(&self) -> Timestamp {
        let third = self.ends.duration_since(self.made) / 3;
        self.ends.checked_sub(third).unwrap_or(self.made)
    }
}

/// PEM of a certificate, with the line ends that kubectl and openssl write.
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

fn common_name(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

/// The seconds from 1970 to a time; from there rcgen counts on (its time type is that of the crate
/// `time`, which we need for nothing else).
fn since_1970(at: Timestamp) -> Result<Duration, MaterialError> {
    u64::try_from(at.as_second()).map(Duration::from_secs).map_err(|_| MaterialError::Time(at))
}
