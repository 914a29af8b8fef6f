//! Client certificates: who is served, and how the file of CAs is followed.

use std::fs;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tempfile::NamedTempFile;
use tls::{Clients, Followed};

use super::*;
use crate::platform::files::Reread;

/// A CA of clients.
struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// What a client presents.
type Shown = (CertificateDer<'static>, PrivateKeyDer<'static>);

impl Authority {
    fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    fn sign(&self, common: &str, other: &[&str], usage: ExtendedKeyUsagePurpose) -> Shown {
        let key = KeyPair::generate().unwrap();
        let others: Vec<String> = other.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(others).unwrap();
        params.distinguished_name.push(DnType::CommonName, common);
        params.extended_key_usages = vec![usage];
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (certificate.der().clone(), PrivateKeyDer::try_from(key.serialize_der()).unwrap())
    }

    fn client(&self, common: &str, other: &[&str]) -> Shown {
        self.sign(common, other, ExtendedKeyUsagePurpose::ClientAuth)
    }
}

/// A file of CAs.
fn cas(text: &str) -> NamedTempFile {
    let file = NamedTempFile::new().unwrap();
    fs::write(&file, text).unwrap();
    file
}

fn load(file: &NamedTempFile, names: &[&str]) -> Arc<Clients> {
    let names = names.iter().map(|&name| name.to_owned()).collect();
    Clients::load(file.path().to_owned(), names).unwrap()
}

fn config(ca: &Ca, shown: Option<&Shown>) -> ClientConfig {
    match shown {
        None => trusting(ca).with_no_client_auth(),
        Some((certificate, key)) => {
            let chain = vec![certificate.clone()];
            trusting(ca).with_client_auth_cert(chain, key.clone_key()).unwrap()
        }
    }
}

/// Whether a client with this configuration gets an answer. In TLS 1.3 the verdict on its certificate arrives
/// after its own handshake.
async fn is_served(running: &Running, config: &ClientConfig) -> bool {
    let tcp = TcpStream::connect(running.address).await.unwrap();
    let Ok(mut stream) = shake(tcp, config.clone(), NAME, "http/1.1").await else { return false };
    let get = b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    let mut answer = String::new();
    stream.write_all(get).await.is_ok()
        && stream.read_to_string(&mut answer).await.is_ok()
        && answer.ends_with("hello")
}

#[tokio::test]
async fn only_clients_of_the_ca_with_one_of_the_names_are_served() {
    let ca = new_ca();
    let (authority, stranger) = (Authority::new("clients"), Authority::new("strangers"));
    let file = cas(&authority.pem);
    let running =
        start_for(ServerLimits::default(), &ca, Some(load(&file, &["api", "api.example"]))).await;
    let server = authority.sign("api", &[], ExtendedKeyUsagePurpose::ServerAuth);
    for (what, shown, served) in [
        ("none", None, false),
        ("its common name", Some(authority.client("api", &[])), true),
        ("its DNS name", Some(authority.client("other", &["api.example"])), true),
        ("another name", Some(authority.client("other", &["other.example"])), false),
        ("part of a name", Some(authority.client("api.example.org", &["ap"])), false),
        ("another CA", Some(stranger.client("api", &[])), false),
        ("a certificate for servers", Some(server), false),
    ] {
        assert_eq!(is_served(&running, &config(&ca, shown.as_ref())).await, served, "{what}");
    }
    let failed = "webhook_connection_errors_total{reason=\"handshake_failed\"}";
    assert_eq!(running.counted(failed), 5);
    running.end().await;

    let running = start_for(ServerLimits::default(), &ca, Some(load(&file, &[]))).await;
    let any = authority.client("any", &[]);
    assert!(is_served(&running, &config(&ca, Some(&any))).await, "without names each is accepted");
    assert!(!is_served(&running, &config(&ca, None)).await);
    running.end().await;
}

#[tokio::test]
async fn a_changed_file_counts_for_the_next_handshake_and_a_broken_one_does_not() {
    let ca = new_ca();
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let file = cas(&old.pem);
    let clients = load(&file, &[]);
    let running = start_for(ServerLimits::default(), &ca, Some(clients.clone())).await;
    // The same configurations throughout: they would resume a session if they could.
    let shown = [old.client("api", &[]), new.client("api", &[])];
    let [before, after] = shown.map(|shown| config(&ca, Some(&shown)));
    let served = async || (is_served(&running, &before).await, is_served(&running, &after).await);
    assert_eq!(served().await, (true, false));

    let mut followed = Followed::from(clients.clone());
    for (text, taken, want) in [
        (old.pem.clone(), Some(true), (true, false)),
        (format!("{}{}", old.pem, new.pem), Some(true), (true, true)),
        ("no certificate".to_owned(), None, (true, true)),
        (new.pem.clone(), Some(true), (false, true)),
        (new.pem.clone(), Some(false), (false, true)),
    ] {
        fs::write(&file, &text).unwrap();
        assert_eq!(followed.reread().await.ok().map(|new| new.is_some()), taken, "{text}");
        assert_eq!(served().await, want, "{text}");
    }
    fs::remove_file(&file).unwrap();
    assert!(followed.reread().await.is_err());
    assert_eq!(served().await, (false, true), "a file that is gone changes nothing");
    running.end().await;
}

#[test]
fn a_file_that_cannot_be_used_is_an_error_that_names_it() {
    let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let open = "-----BEGIN CERTIFICATE-----\nAAAA\n";
    for (text, want) in [
        ("", "has no certificate"),
        (broken, "has a certificate that cannot be used as a CA"),
        (open, "cannot be read as PEM"),
    ] {
        let file = cas(text);
        let error = Clients::load(file.path().to_owned(), Vec::new()).unwrap_err().to_string();
        assert!(error.contains(want) && error.contains(file.path().to_str().unwrap()), "{error}");
    }
    let error = Clients::load("/nowhere/ca.crt".into(), Vec::new()).unwrap_err().to_string();
    assert!(error.starts_with("cannot read /nowhere/ca.crt: "), "{error}");
}
