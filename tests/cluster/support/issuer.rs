//! Certificates of an issuer like cert-manager or the CA of a cluster, not made by zen-lead's own code.

use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use rustls_pki_types::CertificateDer;

/// A CA.
pub struct Issuer {
    issuer: rcgen::Issuer<'static, KeyPair>,
    pub pem: String,
}

/// A certificate and its key, as PEM.
pub struct Pair {
    pub certificate: CertificateDer<'static>,
    pub chain: String,
    pub key: String,
}

impl Issuer {
    pub fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: rcgen::Issuer::new(params, key), pem }
    }

    /// A certificate of a server on 127.0.0.1.
    pub fn server(&self) -> Pair {
        self.sign(&CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap())
    }

    /// A certificate of a client of this common name.
    pub fn client(&self, name: &str) -> Pair {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(&params)
    }

    fn sign(&self, params: &CertificateParams) -> Pair {
        let key = KeyPair::generate().unwrap();
        let made = params.signed_by(&key, &self.issuer).unwrap();
        Pair { certificate: made.der().clone(), chain: made.pem(), key: key.serialize_pem() }
    }
}
