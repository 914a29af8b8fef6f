//! Reads NO_PROXY as golang.org/x/net/http/httpproxy does, so that it has the same effect as for kubectl.
//!
//! Values only. Entries are separated by commas; an entry that is not valid matches nothing.

use std::net::IpAddr;

/// Whether a server is reached without a proxy. `host` may carry the brackets of an IPv6 address.
pub(super) fn cover(list: &str, host: &str, port: u16) -> bool {
    let host = unbracketed(host).to_ascii_lowercase();
    let address = host.parse::<IpAddr>().ok();
    // A proxy on another machine cannot reach this machine's loopback.
    if host == "localhost" || address.is_some_and(|ip| ip.to_canonical().is_loopback()) {
        return true;
    }
    list.split(',').any(|entry| matches(&entry.trim().to_ascii_lowercase(), &host, address, port))
}

/// One entry: `*`, an address range, an address, or a host name; the last two with a port or without.
fn matches(entry: &str, host: &str, address: Option<IpAddr>, port: u16) -> bool {
    if entry == "*" {
        return true;
    }
    if let Some((network, bits)) = range(entry) {
        return address.is_some_and(|ip| within(network, bits, ip));
    }
    let (name, wanted_port) = split_port(entry);
    if !wanted_port.is_empty() && wanted_port != port.to_string() {
        return false;
    }
    let name = unbracketed(name);
    if let Ok(ip) = name.parse::<IpAddr>() {
        return address.is_some_and(|address| address.to_canonical() == ip.to_canonical());
    }
    let name = name.strip_prefix('*').filter(|rest| rest.starts_with('.')).unwrap_or(name);
    if name.starts_with('.') {
        return host.ends_with(name);
    }
    let below = host.strip_suffix(name).is_some_and(|rest| rest.ends_with('.'));
    !name.is_empty() && (host == name || below)
}

/// Splits off the port: `host:port` and `[address]:port`, but not the colons of a bare IPv6 address.
fn split_port(entry: &str) -> (&str, &str) {
    match entry.rsplit_once(':') {
        Some((name, port)) if !name.contains(':') || name.ends_with(']') => (name, port),
        _ => (entry, ""),
    }
}

fn unbracketed(host: &str) -> &str {
    host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host)
}

fn range(entry: &str) -> Option<(IpAddr, u32)> {
    let (network, bits) = entry.split_once('/')?;
    let network: IpAddr = network.parse().ok()?;
    let longest = if network.is_ipv4() { 32 } else { 128 };
    bits.parse().ok().filter(|bits| *bits <= longest).map(|bits| (network, bits))
}

fn within(network: IpAddr, bits: u32, address: IpAddr) -> bool {
    match (network, address.to_canonical()) {
        (IpAddr::V4(network), IpAddr::V4(address)) => {
            let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
            network.to_bits() & mask == address.to_bits() & mask
        }
        (IpAddr::V6(network), IpAddr::V6(address)) => {
            let mask = u128::MAX.checked_shl(128 - bits).unwrap_or(0);
            network.to_bits() & mask == address.to_bits() & mask
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// List, host, port, and whether no proxy is used.
    const CASES: &[(&str, &str, u16, bool)] = &[
        ("", "api.example.com", 443, false),
        (",, ,", "api.example.com", 443, false),
        ("*", "api.example.com", 443, true),
        ("other, *", "10.0.0.1", 443, true),
        // Host names match themselves and what is below them, in any case.
        ("example.com", "example.com", 443, true),
        ("Example.COM", "api.EXAMPLE.com", 443, true),
        ("example.com", "notexample.com", 443, false),
        ("example.com", "example.com.org", 443, false),
        ("a.example.com", "example.com", 443, false),
        // With a dot first, only what is below them.
        (".example.com", "api.example.com", 443, true),
        (".example.com", "example.com", 443, false),
        ("*.example.com", "api.example.com", 443, true),
        ("*.example.com", "example.com", 443, false),
        ("*example.com", "example.com", 443, false),
        (".svc,.cluster.local", "kubernetes.default.svc", 443, true),
        (".svc", "kubernetes.default", 443, false),
        // Ports.
        ("example.com:6443", "example.com", 6443, true),
        ("example.com:6443", "example.com", 443, false),
        (".example.com:443", "api.example.com", 443, true),
        ("10.0.0.1:6443", "10.0.0.1", 6443, true),
        ("10.0.0.1:6443", "10.0.0.1", 443, false),
        ("[fd00::1]:6443", "[fd00::1]", 6443, true),
        ("[fd00::1]:6443", "[fd00::1]", 443, false),
        (":443", "example.com", 443, false),
        // Addresses and ranges.
        ("10.0.0.1", "10.0.0.1", 443, true),
        ("10.0.0.1", "10.0.0.10", 443, false),
        ("fd00::1", "[fd00:0:0::1]", 443, true),
        ("[fd00::1]", "fd00::1", 443, true),
        ("10.96.0.0/12", "10.111.255.255", 443, true),
        ("10.96.0.0/12", "10.112.0.0", 443, false),
        ("10.96.7.7/12", "10.96.0.1", 443, true),
        ("10.0.0.1/32", "10.0.0.1", 443, true),
        ("0.0.0.0/0", "10.0.0.1", 443, true),
        ("0.0.0.0/0", "[fd00::1]", 443, false),
        ("fd00::/8", "[fdff::1]", 443, true),
        ("::/0", "[fd00::1]", 443, true),
        ("::/0", "10.0.0.1", 443, false),
        ("10.0.0.0/33", "10.0.0.1", 443, false),
        ("10.0.0.0/8", "ten.example.com", 443, false),
        // This machine needs no proxy, whatever the list says.
        ("", "localhost", 6443, true),
        ("", "127.9.9.9", 6443, true),
        ("", "[::1]", 6443, true),
    ];

    #[test]
    fn lists_are_read_as_go_reads_them() {
        for (list, host, port, covered) in CASES {
            assert_eq!(cover(list, host, *port), *covered, "{list:?} {host}:{port}");
        }
    }
}
