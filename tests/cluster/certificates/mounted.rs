//! Certificates of another issuer, in a directory that changes as the kubelet changes a mounted Secret: a
//! new directory, then one rename of the link `..data` through which all files are reached.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::ByteString;
use serde_json::json;

use super::try_write;
use super::writes::Writes;
use crate::support::case::Case;
use crate::support::harness::Test;
use crate::support::issuer::{Issuer, Pair};
use crate::support::rights::{self, Call};
use crate::support::waiting::{check, until};
use crate::support::webhook::{Hook, recorded, review};

pub fn tests() -> Vec<Test> {
    let name = "mounted_directory_is_read_again_when_its_link_is_swapped";
    vec![Test::new("certificates", name, swapped)]
}

/// A volume as the kubelet writes it (pkg/volume/util/atomic_writer.go of Kubernetes).
struct Volume {
    dir: PathBuf,
    generation: usize,
}

impl Volume {
    fn new(dir: &Path, chain: &str, key: &str) -> Self {
        fs::create_dir_all(dir).unwrap();
        let mut made = Self { dir: dir.to_owned(), generation: 0 };
        made.update(chain, key);
        for name in ["tls.crt", "tls.key"] {
            symlink(Path::new("..data").join(name), dir.join(name)).unwrap();
        }
        made
    }

    fn update(&mut self, chain: &str, key: &str) {
        let old = format!("..generation-{}", self.generation);
        self.generation += 1;
        let new = format!("..generation-{}", self.generation);
        fs::create_dir(self.dir.join(&new)).unwrap();
        fs::write(self.dir.join(&new).join("tls.crt"), chain).unwrap();
        fs::write(self.dir.join(&new).join("tls.key"), key).unwrap();
        symlink(&new, self.dir.join("..data_tmp")).unwrap();
        fs::rename(self.dir.join("..data_tmp"), self.dir.join("..data")).unwrap();
        let _ = fs::remove_dir_all(self.dir.join(old));
    }
}

async fn swapped(t: Arc<Case>) {
    let (admin, system, product) = (t.admin(), &t.world.system, &t.world.product);
    let [old, new] = ["old", "new"].map(Issuer::new);
    let first = old.server();
    let mut volume = Volume::new(&t.world.dir.join("mounted"), &first.chain, &first.key);
    let bundle = format!("{}{}", old.pem, new.pem);
    // The issuer of the certificates also writes the bundle.
    for hook in Hook::BOTH {
        let ca = json!({"clientConfig": {"caBundle": ByteString(bundle.clone().into_bytes())}});
        hook.apply(&admin, system, &ca).await;
    }
    let began = Timestamp::now();
    let dir = volume.dir.display().to_string();
    product.spawn(0, &["--cert-dir", &dir]);
    product.until_ready(0).await;
    until("writes are reviewed", || try_write(&t)).await;
    shows(&t, &bundle, &first).await;
    let writes = Writes::start(&t);

    // The same issuer, then the next one.
    for issuer in [&old, &new] {
        let pair = issuer.server();
        volume.update(&pair.chain, &pair.key);
        shows(&t, &bundle, &pair).await;
    }
    // A key of another certificate, then no key: the old certificate stays, and the fault is reported.
    let (good, other) = (new.server(), new.server());
    volume.update(&other.chain, &good.key);
    counted(&t, "refused").await;
    volume.update(&good.chain, "rubbish");
    counted(&t, "unreadable").await;
    writes.more(20).await;
    volume.update(&good.chain, &good.key);
    shows(&t, &bundle, &good).await;

    let (made, failed) = writes.finish().await;
    println!("certificates: {made} writes while a mounted directory was swapped 5 times");
    assert!(failed.is_empty(), "{failed:#?}");
    // It needs no right on what others write.
    let calls = rights::calls(&t.world.cluster, system, began);
    assert!(!calls.is_empty(), "the audit log has no call of this replica");
    let others = ["namespaces", "secrets", "webhookconfigurations"];
    let about = |call: &&Call| others.iter().any(|what| call.resource().ends_with(what));
    let unneeded: Vec<_> = calls.iter().filter(about).collect();
    assert!(unneeded.is_empty(), "{unneeded:#?}");
    for hook in Hook::BOTH {
        assert_eq!(
            hook.bundle(&admin, system).await.unwrap(),
            bundle,
            "{hook:?} is not ours to write"
        );
        hook.wipe(&admin, system).await;
    }
    product.stop(0).await;
}

async fn shows(t: &Case, bundle: &str, pair: &Pair) {
    let (port, body) = (t.world.product.webhook_port(0), recorded("create-enabled"));
    until("the certificate of the directory is shown", || async {
        let reviewed = review(port, Hook::Validating, bundle, &body).await?;
        check(reviewed.shown == pair.certificate, "another certificate is shown")
    })
    .await;
}

async fn counted(t: &Case, result: &str) {
    until(format!("a load is {result}"), || async {
        let scrape = t.world.product.scrape(0).await?;
        let loads = scrape.value("zen_lead_certificate_loads_total", &[("result", result)]);
        check(loads.is_some_and(|n| n > 0.0), format!("{loads:?}"))
    })
    .await;
}
