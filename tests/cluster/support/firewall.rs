//! Drops packets: rules in the network of the cluster, never in the network of the machine.

use std::net::Ipv4Addr;
use std::process::Command;

/// A table of rules of its own; gone when this is dropped.
pub struct Firewall {
    table: String,
}

impl Firewall {
    /// Whether rules can be set here.
    ///
    /// # Errors
    /// Why not, and what to do.
    pub fn usable() -> Result<(), String> {
        if std::env::var("CLUSTER_EXEC").unwrap_or_default().is_empty() {
            return Err("the cluster has no network of its own, and the machine's is not to be \
                        touched; unset KUBEBUILDER_ASSETS and run e2e/cluster.sh up as root"
                .to_owned());
        }
        nft("list tables").map_err(|why| format!("nft (package nftables): {why}"))
    }

    /// No rule yet.
    pub fn new(table: &str) -> Self {
        let made = Self { table: format!("inet {table}") };
        let table = &made.table;
        nft(&format!(
            "add table {table}; add chain {table} out {{ type filter hook output priority 0; }}"
        ))
        .unwrap();
        made
    }

    /// Drops every packet from and to an address.
    pub fn cut(&self, address: Ipv4Addr) {
        for side in ["saddr", "daddr"] {
            nft(&format!("add rule {} out ip {side} {address} drop", self.table)).unwrap();
        }
    }

    /// Everything passes again.
    pub fn heal(&self) {
        nft(&format!("flush chain {} out", self.table)).unwrap();
    }
}

impl Drop for Firewall {
    fn drop(&mut self) {
        if let Err(why) = nft(&format!("delete table {}", self.table)) {
            eprintln!("the rules of the test are still there: {why}");
        }
    }
}

fn nft(commands: &str) -> Result<(), String> {
    let output = Command::new("nft").arg(commands).output().map_err(|e| e.to_string())?;
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    if output.status.success() { Ok(()) } else { Err(said) }
}
