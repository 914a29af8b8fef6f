//! Draws values of settings: right ones, wrong ones, and those that are barely one of both. Also keys of
//! annotations and labels of others. What a Service is made of is `corpus`'.

use zen_lead_core::fixtures::dice::Dice;

/// Every setting, except for `enabled`, which most Services have.
const SETTINGS: [&str; 10] = [
    "zen-lead.io/leader-service-name",
    "zen-lead.io/strategy",
    "zen-lead.io/sticky",
    "zen-lead.io/min-ready-duration",
    "zen-lead.io/failover-min-delay",
    "zen-lead.io/ports-mode",
    "zen-lead.io/leader-type",
    "zen-lead.io/copy-annotations",
    "zen-lead.io/copy-labels",
    "zen-lead.io/same-leader-as",
];

/// A setting of the Service `own`, and a value, which is right in one of two cases.
pub fn setting(dice: &mut Dice, own: &str) -> (&'static str, String) {
    let key = dice.of(&SETTINGS);
    let is_good = dice.one_in(2);
    let value = match key {
        "zen-lead.io/leader-service-name" => leader_name(dice, own, is_good),
        "zen-lead.io/same-leader-as" if is_good => dice.of(&["first", "not-there", "0"]).to_owned(),
        "zen-lead.io/same-leader-as" => bad_name(dice, own),
        "zen-lead.io/min-ready-duration" => duration(dice, is_good, LONG),
        "zen-lead.io/failover-min-delay" => duration(dice, is_good, SHORT),
        "zen-lead.io/copy-annotations" => list(dice, is_good, &ANNOTATIONS),
        "zen-lead.io/copy-labels" => list(dice, is_good, &LABELS),
        "zen-lead.io/sticky" if is_good => dice.of(&["true", "false"]).to_owned(),
        "zen-lead.io/sticky" => boolean(dice),
        key => choice(dice, key, is_good),
    };
    (key, value)
}

/// What people write instead of `true` and `false`.
pub fn boolean(dice: &mut Dice) -> String {
    let all = [
        "",
        " ",
        "True",
        "FALSE",
        "yes",
        "no",
        "1",
        "0",
        "on",
        "true ",
        "\"true\"",
        "tru",
        "null",
        "\u{1F600}",
    ];
    dice.of(&all).to_owned()
}

fn choice(dice: &mut Dice, key: &str, is_good: bool) -> String {
    let good: &[&str] = match key {
        "zen-lead.io/strategy" => &["oldest-ready"],
        "zen-lead.io/ports-mode" => &["strict", "partial"],
        _ => &["ClusterIP", "mirror"],
    };
    if is_good {
        return dice.of(good).to_owned();
    }
    let value = dice.of(good);
    match dice.below(5) {
        0 => value.to_uppercase(),
        1 => format!("{value} "),
        2 => value[1..].to_owned(),
        3 => String::new(),
        _ => dice
            .of(&["newest", "NodePort", "LoadBalancer", "none", "clusterip", "oldest"])
            .to_owned(),
    }
}

fn leader_name(dice: &mut Dice, own: &str, is_good: bool) -> String {
    if !is_good {
        return bad_name(dice, own);
    }
    match dice.below(4) {
        0 => format!("{own}-leader"),
        1 => format!("0{own}"),
        2 => format!("{own}-{}", "l".repeat(62 - own.len().min(61))),
        _ => format!("{own}-of"),
    }
}

/// A name that no Service can have, or that of the Service itself.
fn bad_name(dice: &mut Dice, own: &str) -> String {
    match dice.below(11) {
        0..=3 => own.to_owned(),
        4 => String::new(),
        5 => "n".repeat(64),
        6 => format!("{own}-"),
        7 => format!("-{own}"),
        8 => "Leader".to_owned(),
        9 => format!("{own}.leader"),
        _ => dice.of(&["my_leader", "my leader", "l\u{e9}ader", "leader\n", "a/b"]).to_owned(),
    }
}

/// Durations within and beyond a bound.
type Spans = (&'static [&'static str], &'static [&'static str]);

const LONG: Spans = (
    &["24h", "23h59m59.999999999s", "1440m", "86400s", "24h0.9ns", "86400000000000ns"],
    &["24h1ns", "24h0.001us", "1441m", "86401s", "25h", "86400000000001ns", "999h", "100h"],
);
const SHORT: Spans = (
    &["1h", "60m", "3600s", "59m60s", "3600000ms", "1h0.5ns", "3600000000\u{b5}s"],
    &["1h1ns", "61m", "3601s", "1.1h", "24h", "3600000.001ms", "1h0m0.000000001s"],
);

fn duration(dice: &mut Dice, is_good: bool, (within, beyond): Spans) -> String {
    let odd = [
        "0",
        "-0",
        "+0",
        "0s",
        "-0s",
        "+5s",
        ".5s",
        "5.s",
        "1.5m",
        "1us",
        "1\u{b5}s",
        "1\u{3bc}s",
        "5s5s",
        "1s1m",
        "000000000000000000005s",
        "0.0000000000000000000000001h",
        "-0.1ns",
        "1m30s",
        "100ms",
        // Twice 2^63 ns is 0 to Go.
        "9223372036854775808ns9223372036854775808ns",
    ];
    let wrong = [
        "",
        " ",
        "5",
        "30",
        ".",
        "s",
        ".s",
        "5d",
        "5S",
        "5 s",
        " 5s",
        "5s ",
        "1h 30m",
        "--5s",
        "1e3s",
        "5s5",
        "soon",
        "1:30",
        "P1D",
        "-1s",
        "-24h",
        "-1ns",
        "0x10s",
        "\u{ff15}s",
        "2562047h47m16.854775807s",
        "99999999999h",
        "9223372036854775807ns",
        "9223372036854775808ns",
        "100000000000000000000000h",
    ];
    if is_good {
        return match dice.below(4) {
            0 | 1 => dice.of(within).to_owned(),
            2 => dice.of(&odd).to_owned(),
            _ => format!("{}m{}.{}s", dice.below(50), dice.below(90), dice.below(1000)),
        };
    }
    if dice.one_in(3) { dice.of(beyond).to_owned() } else { dice.of(&wrong).to_owned() }
}

/// Keys of a list: right ones and wrong ones.
struct Keys {
    right: &'static [&'static str],
    wrong: &'static [&'static str],
}

const ANNOTATIONS: Keys = Keys {
    right: &[
        "example.com/note",
        "Team",
        "a",
        "-metallb.io/loadBalancerIPs",
        "-b",
        "Example.COM/x.y_z",
        "a.b-c.example/1",
        "service.beta.kubernetes.io/aws-load-balancer-internal",
        "cilium.io/x",
    ],
    wrong: &[
        "zen-lead.io/sticky",
        "-zen-lead.io/x",
        "kubectl.kubernetes.io/last-applied-configuration",
        "example.com/",
        "/x",
        "a/b/c",
        "-",
        "--a",
        "a-",
        "_a",
        "exa_mple.com/a",
        ".com/a",
        "a..b/c",
        "\u{e9}",
        "a=b",
        "a;b",
        "*",
    ],
};

const LABELS: Keys = Keys {
    right: &[
        "team",
        "app.kubernetes.io/name",
        "a",
        "Tier",
        "example.com/Team",
        "topology.kubernetes.io/zone",
    ],
    wrong: &[
        "zen-lead.io/source-service",
        "app.kubernetes.io/managed-by",
        "kubernetes.io/service-name",
        "endpointslice.kubernetes.io/managed-by",
        "service.kubernetes.io/headless",
        "service.kubernetes.io/service-proxy-name",
        "-team",
        "Example.com/team",
        "a/b/c",
        "team:",
        "a b/",
    ],
};

/// White space that separates, of Unicode too.
const SEPARATORS: [&str; 9] = [",", ", ", " ", "\n", "\t", ",,", "\u{b}", "\u{a0}", "\u{2003}"];

fn list(dice: &mut Dice, is_good: bool, keys: &Keys) -> String {
    let separator = dice.of(&SEPARATORS);
    if dice.one_in(5) {
        // Around the bound of 32 keys and the lengths of a key.
        let name = "n".repeat(if is_good { 63 } else { 64 });
        let domain = format!("{}{}", "d.".repeat(126), if is_good { "d" } else { "dd" });
        let many = |n: usize| (0..n).map(|n| format!("k{n}")).collect::<Vec<_>>().join(separator);
        return match dice.below(4) {
            0 => many(if is_good { 32 } else { 33 }),
            1 if is_good => format!("{0},{0},{0}", many(30)),
            1 => many(100),
            2 => name,
            _ => format!("{domain}/x"),
        };
    }
    let mut entries: Vec<&str> = (0..dice.below(4)).map(|_| dice.of(keys.right)).collect();
    if !is_good {
        let place = dice.below(entries.len() + 1);
        entries.insert(place, dice.of(keys.wrong));
    }
    entries.join(separator)
}

/// Keys that do not exist.
pub fn unknown(dice: &mut Dice) -> String {
    let all = [
        "enable",
        "Enabled",
        "leader-name",
        "strategi",
        "stickyy",
        "min-ready",
        "failover-delay",
        "port-mode",
        "type",
        "copy-annotation",
        "same-leader",
        "rotate-ca",
        "x",
    ];
    format!("zen-lead.io/{}", dice.of(&all))
}

/// Keys that only zen-lead writes.
pub fn status_key(dice: &mut Dice) -> String {
    let all = [
        "current-leader",
        "leader-pod-name",
        "leader-pod-uid",
        "leader-last-switch-time",
        "leader-epoch",
        "switch-reason",
        "writer",
        "write-id",
        "decided-at",
        "asked",
        "not-ready-since",
        "decision-version",
        "effective-settings",
        "copied-annotations",
        "copied-labels",
        "load-balancer-class",
        "source-service",
    ];
    format!("zen-lead.io/{}", dice.of(&all))
}

/// Annotations of other tools, of which the webhook asks nothing.
pub fn other(dice: &mut Dice) -> &'static str {
    dice.of(&[
        "example.com/note",
        "kubectl.kubernetes.io/last-applied-configuration",
        "meta.helm.sh/release-name",
        "prometheus.io/scrape",
        "external-dns.alpha.kubernetes.io/internal-hostname",
        "service.kubernetes.io/topology-mode",
        "metallb.io/ip-allocated-from-pool",
        "kube-vip.io/loadbalancerIPs",
        "zen-lead.io.example.com/x",
        "elbow",
        "ncp.example.com/x",
        "vips/name",
    ])
}

/// Annotations that may steer a load balancer, and some that look alike.
pub fn provider(dice: &mut Dice) -> &'static str {
    if dice.one_in(4) {
        return other(dice);
    }
    dice.of(&[
        "service.beta.kubernetes.io/aws-load-balancer-internal",
        "service.beta.kubernetes.io/azure-load-balancer-internal",
        "networking.gke.io/load-balancer-type",
        "cloud.google.com/l4-rbs",
        "metallb.io/loadBalancerIPs",
        "metallb.universe.tf/address-pool",
        "LoadBalancer",
        "example.com/load_balancer",
        "example.com/my-internal-address",
        "example.com/VIP",
        "external-dns.example",
        "lb",
        "x.cilium.io/y",
        "ncp/x",
        "load-balancer.hetzner.cloud/location",
    ])
}
