//! The checked swap and the mounted directory.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;

use super::*;
use crate::platform::clock::Clock;
use crate::platform::pki::{Ca, Leaf};

const DAY: Duration = Duration::from_hours(24);

fn t0() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().unwrap()
}

fn source() -> (Arc<CertificateSource>, Arc<Metrics>) {
    let metrics = Arc::new(Metrics::new().unwrap());
    (CertificateSource::new(Arc::clone(&metrics)), metrics)
}

fn leaf(lifetime: Duration) -> Leaf {
    let ca = Ca::generate(t0(), DAY * 365, None).unwrap();
    ca.sign(&["a.b.svc".to_owned()], t0(), lifetime).unwrap()
}

fn text(metrics: &Metrics) -> String {
    metrics.exposition().unwrap()
}

#[test]
fn only_a_matching_and_living_pair_is_taken() {
    let (source, metrics) = source();
    assert!(!source.is_loaded());
    let (good, other) = (leaf(DAY), leaf(DAY));
    let ends = source.swap(good.chain(), good.key(), t0()).unwrap();
    assert_eq!(ends, t0() + DAY);
    assert!(source.is_loaded());

    let garbage = vec![CertificateDer::from(vec![1, 2, 3])];
    for (chain, key, now, want) in [
        (vec![], good.key(), t0(), "no certificate was given"),
        (good.chain(), other.key(), t0(), "the private key does not belong to the certificate"),
        (good.chain(), good.key(), t0() + DAY, "the certificate expired at 2026-01-02T00:00:00Z"),
        (garbage, good.key(), t0(), "the certificate cannot be read: "),
    ] {
        let error = source.swap(chain, key, now).unwrap_err().to_string();
        assert!(error.starts_with(want), "{error}");
        assert_eq!(source.chain(), good.chain(), "the old certificate stays: {want}");
    }
    let text = text(&metrics);
    for line in [
        "zen_lead_certificate_loads_total{result=\"ok\"} 1",
        "zen_lead_certificate_loads_total{result=\"refused\"} 4",
        "zen_lead_certificate_expiry_timestamp_seconds{certificate=\"webhook\"} 1767312000",
    ] {
        assert!(text.lines().any(|l| l == line), "{line} is not in {text}");
    }
}

/// A directory like the kubelet makes: `tls.crt -> ..data/tls.crt`, `..data -> ..N`.
struct Volume(TempDir);

impl Volume {
    fn new() -> Self {
        let root = TempDir::new().unwrap();
        for file in ["tls.crt", "tls.key"] {
            symlink(Path::new("..data").join(file), root.path().join(file)).unwrap();
        }
        Self(root)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn publish(&self, generation: &str, crt: &str, key: &str) {
        let dir = self.path().join(generation);
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join("tls.crt"), crt).unwrap();
        fs::write(dir.join("tls.key"), key).unwrap();
        let link = self.path().join("..data_tmp");
        symlink(generation, &link).unwrap();
        fs::rename(&link, self.path().join("..data")).unwrap();
    }
}

/// A pair as files, with a CA certificate behind the leaf.
fn files(days: u32) -> (String, String, Vec<CertificateDer<'static>>) {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(vec!["a.b.svc".to_owned()]).unwrap();
    let begin = Duration::from_secs(u64::try_from(t0().as_second()).unwrap());
    params.not_after = rcgen::date_time_ymd(1970, 1, 1) + begin + DAY * days;
    let leaf = params.self_signed(&key).unwrap();
    let ca = Ca::generate(t0(), DAY * 365, None).unwrap().certificate;
    let chain = vec![leaf.der().clone(), ca.der().clone()];
    (leaf.pem() + &ca.to_pem(), key.serialize_pem(), chain)
}

#[tokio::test]
async fn a_mounted_directory_is_followed_through_every_swap() {
    let volume = Volume::new();
    let (source, metrics) = source();
    let clock = Clock::fixed(t0());
    let mut mounted = Mounted::new(volume.path(), Arc::clone(&source), clock.clone());

    let error = mounted.poll().await.unwrap_err().to_string();
    assert!(error.starts_with("cannot read ") && error.contains("tls.crt: "), "{error}");

    for (generation, days) in [("..1", 10), ("..2", 20), ("..3", 30)] {
        let (crt, key, chain) = files(days);
        volume.publish(generation, &crt, &key);
        assert_eq!(mounted.poll().await.unwrap(), Some(t0() + DAY * days), "{generation}");
        assert_eq!(source.chain(), chain, "the whole chain is shown");
        assert_eq!(mounted.poll().await.unwrap(), None, "nothing changed");
    }
    let kept = source.chain();

    let ((crt, _, _), (_, foreign, _)) = (files(40), files(50));
    volume.publish("..4", &crt, &foreign);
    let error = mounted.poll().await.unwrap_err().to_string();
    let want =
        format!("{}: the private key does not belong to the certificate", volume.path().display());
    assert_eq!(error, want);
    assert_eq!(mounted.poll().await.unwrap(), None, "one broken pair is reported once");
    volume.publish("..5", "no certificate", &foreign);
    assert!(mounted.poll().await.is_err());
    assert_eq!(source.chain(), kept);

    let (crt, key, chain) = files(1);
    volume.publish("..6", &crt, &key);
    clock.set(t0() + DAY * 2);
    let error = mounted.poll().await.unwrap_err().to_string();
    assert!(error.ends_with("the certificate expired at 2026-01-02T00:00:00Z"), "{error}");
    assert_eq!(source.chain(), kept);
    clock.set(t0());
    assert_eq!(mounted.poll().await.unwrap(), Some(t0() + DAY), "the clock was put right");
    assert_eq!(source.chain(), chain);
    assert!(text(&metrics).contains("zen_lead_certificate_loads_total{result=\"ok\"} 4"));
}

#[tokio::test]
async fn a_plain_directory_will_do() {
    let volume = Volume::new();
    let (source, _) = source();
    let mut mounted = Mounted::new(volume.path(), Arc::clone(&source), Clock::fixed(t0()));
    for days in [1, 2] {
        let (crt, key, chain) = files(days);
        for (name, text) in [("tls.crt", crt), ("tls.key", key)] {
            let _absent = fs::remove_file(volume.path().join(name));
            fs::write(volume.path().join(name), text).unwrap();
        }
        assert_eq!(mounted.poll().await.unwrap(), Some(t0() + DAY * days));
        assert_eq!(source.chain(), chain);
    }
}

proptest::proptest! {
    #[test]
    fn no_pair_of_files_makes_a_panic(crt in ".{0,300}", key in ".{0,300}", armour in 0..2_u8) {
        let (source, _) = source();
        let mounted = Mounted::new("/nowhere", Arc::clone(&source), Clock::fixed(t0()));
        let (crt, key) = if armour == 0 {
            (crt, key)
        } else {
            let wrap = |label: &str, text: &str| {
                let body = base64::Engine::encode(&base64::prelude::BASE64_STANDARD, text);
                format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n")
            };
            (wrap("CERTIFICATE", &crt), wrap("PRIVATE KEY", &key))
        };
        proptest::prop_assert!(mounted.load(crt.as_bytes(), key.as_bytes()).is_err());
        proptest::prop_assert!(!source.is_loaded());
    }
}
