//! Bad Services, and every cause they are refused for, word by word.

use serde_json::{Value, json};

use super::{load_balancer, on, service, with};

const NO_COPY: &str = "FieldValueRequired | metadata.annotations[zen-lead.io/copy-annotations] | \
     Required value: leader-type \"mirror\" makes a second load balancer, and these annotations of \
     the Service may say who can reach it: ";
const NAME_IT: &str = "; name each of them, or with a leading \"-\" where it must not be copied";

/// Bad Services as they are created, and every cause they are refused for.
pub(super) fn refused() -> Vec<(Value, Vec<String>)> {
    let own = |key: &str| format!("metadata.annotations[zen-lead.io/{key}]");
    let invalid =
        |key: &str, text: &str| format!("FieldValueInvalid | {} | Invalid value: {text}", own(key));
    let unsupported = |key: &str, text: &str| {
        format!("FieldValueNotSupported | {} | Unsupported value: {text}", own(key))
    };
    let duplicate = |key: &str, text: &str| {
        format!("FieldValueDuplicate | {} | Duplicate value: {text}", own(key))
    };
    let one = |object: Value, cause: String| (object, vec![cause]);
    let name = "leader-service-name";
    let long = "a".repeat(57);
    vec![
        one(
            service(&[("zen-lead.io/enabled", "yes")]),
            invalid("enabled", r#""yes": must be "true" or "false"; write "true""#),
        ),
        one(
            service(&[("zen-lead.io/enabled", "False")]),
            invalid("enabled", r#""False": must be "true" or "false"; write "false""#),
        ),
        one(on("sticky", "1"), invalid("sticky", r#""1": must be "true" or "false"; write "true""#)),
        one(
            on("sticky", " true"),
            invalid("sticky", r#"" true": must be "true" or "false"; write "true""#),
        ),
        one(on("sticky", "maybe"), invalid("sticky", r#""maybe": must be "true" or "false""#)),
        one(on("sticky", ""), invalid("sticky", r#""": must be "true" or "false""#)),
        one(
            on("sticky", &"x".repeat(1 << 20)),
            invalid(
                "sticky",
                &format!(
                    r#""{}"... (1048576 bytes): must be "true" or "false""#,
                    "x".repeat(64)
                ),
            ),
        ),
        one(
            service(&[("zen-lead.io/enabeld", "true")]),
            unsupported(
                "enabeld",
                r#""zen-lead.io/enabeld": no such key; did you mean "zen-lead.io/enabled"?"#,
            ),
        ),
        one(
            service(&[("zen-lead.io/foo", "bar")]),
            unsupported(
                "foo",
                r#""zen-lead.io/foo": no such key; the known keys are "zen-lead.io/enabled", "zen-lead.io/leader-service-name", "zen-lead.io/strategy", "zen-lead.io/sticky", "zen-lead.io/min-ready-duration", "zen-lead.io/failover-min-delay", "zen-lead.io/ports-mode", "zen-lead.io/leader-type", "zen-lead.io/copy-annotations", "zen-lead.io/copy-labels", "zen-lead.io/same-leader-as""#,
            ),
        ),
        one(
            on("strategy", "Oldest-Ready"),
            unsupported(
                "strategy",
                r#""Oldest-Ready": supported values: "oldest-ready"; write "oldest-ready""#,
            ),
        ),
        one(
            on("strategy", "newest"),
            unsupported("strategy", r#""newest": supported values: "oldest-ready""#),
        ),
        one(
            on("ports-mode", "partail"),
            unsupported(
                "ports-mode",
                r#""partail": supported values: "strict", "partial"; write "partial""#,
            ),
        ),
        one(
            on("leader-type", "LoadBalancer"),
            unsupported(
                "leader-type",
                r#""LoadBalancer": supported values: "ClusterIP", "mirror"; write "mirror""#,
            ),
        ),
        one(
            on("min-ready-duration", "30"),
            invalid("min-ready-duration", r#""30": has no unit; write "30s" for seconds"#),
        ),
        one(
            on("min-ready-duration", "1h30"),
            invalid(
                "min-ready-duration",
                r#""1h30": has a number without a unit; units are "ns", "us", "ms", "s", "m" and "h""#,
            ),
        ),
        one(
            on("min-ready-duration", "5d"),
            invalid(
                "min-ready-duration",
                r#""5d": unknown unit "d"; units are "ns", "us", "ms", "s", "m" and "h", such as "1m30s""#,
            ),
        ),
        one(
            on("min-ready-duration", " 5s"),
            invalid(
                "min-ready-duration",
                r#"" 5s": must be a duration without spaces; write "5s""#,
            ),
        ),
        one(
            on("min-ready-duration", ""),
            invalid(
                "min-ready-duration",
                r#""": must be a duration such as "30s", "1m30s" or "2h""#,
            ),
        ),
        one(
            on("min-ready-duration", "24h0m0.000000001s"),
            invalid("min-ready-duration", r#""24h0m0.000000001s": must be at most "24h0m0s""#),
        ),
        one(
            on("failover-min-delay", "2h"),
            invalid("failover-min-delay", r#""2h": must be at most "1h0m0s""#),
        ),
        one(
            on("failover-min-delay", "-1s"),
            invalid("failover-min-delay", r#""-1s": must not be negative; write "0s""#),
        ),
        one(
            on(name, "web"),
            invalid(
                name,
                r#""web": must not be the Service itself; the leader Service is a second one, for example "web-leader""#,
            ),
        ),
        one(
            on(name, "Web_Leader"),
            invalid(
                name,
                r#""Web_Leader": must consist of lower case letters, digits or '-' (for example 'my-leader'); write "web-leader""#,
            ),
        ),
        one(
            on(name, ""),
            invalid(name, r#""": must not be empty; leave the annotation out for the default"#),
        ),
        one(
            with(on("sticky", "true"), "/metadata/name", long.as_str().into()),
            format!(
                "FieldValueRequired | {} | Required value: the default \"{long}-leader\" has 64 \
                 characters, and a Service name at most 63; set a shorter one here",
                own(name)
            ),
        ),
        one(
            on(name, "plain"),
            duplicate(
                name,
                r#""plain": Service "plain" exists in namespace "shop" and was not made by zen-lead; choose another name, or delete that Service first"#,
            ),
        ),
        one(
            on(name, "api-leader"),
            duplicate(
                name,
                r#""api-leader": this is the leader Service of Service "api" already; choose another name"#,
            ),
        ),
        one(
            on(name, "soon"),
            duplicate(
                name,
                r#""soon": asked for as leader name by Service "s1", "s2", "s3" and 2 more already; choose another name"#,
            ),
        ),
        one(
            with(service(&[("zen-lead.io/enabled", "false")]), "/metadata/name", "soon".into()),
            r#"FieldValueDuplicate | metadata.name | Duplicate value: "soon": this is the name of the leader Service of "s1", "s2", "s3" and 2 more; choose another name"#
                .into(),
        ),
        one(
            with(on("sticky", "true"), "/metadata/namespace", "full".into()),
            format!(
                "FieldValueForbidden | {} | Forbidden: namespace \"full\" has 501 enabled Services, \
                 and zen-lead serves at most 500 there; turn another one off, or ask who runs \
                 zen-lead for a higher --max-services-per-namespace",
                own("enabled")
            ),
        ),
        one(
            on("leader-epoch", "7"),
            format!(
                "FieldValueForbidden | {} | Forbidden: \"7\": only zen-lead writes this key, on the \
                 leader Services it makes; remove it",
                own("leader-epoch")
            ),
        ),
        (
            with(
                on("sticky", "true"),
                "/metadata/labels",
                json!({"zen-lead.io/source-service": "api"}),
            ),
            vec![
                "FieldValueForbidden | metadata.labels[zen-lead.io/source-service] | Forbidden: \
                 \"api\": only zen-lead writes this key, on the leader Services it makes; remove it"
                    .into(),
                invalid(
                    "enabled",
                    r#""true": this Service is itself the leader Service of "api"; enable it there"#,
                ),
            ],
        ),
        one(
            with(on("sticky", "true"), "/spec", json!({"type": "ExternalName", "externalName": "a.b"})),
            r#"FieldValueInvalid | spec.type | Invalid value: "ExternalName": an ExternalName Service has no pods to choose a leader from; use "ClusterIP", "NodePort" or "LoadBalancer", or remove zen-lead.io/enabled"#
                .into(),
        ),
        (
            with(on("sticky", "true"), "/spec", json!({"selector": {}, "ports": []})),
            vec![
                "FieldValueRequired | spec.selector | Required value: the leader is chosen among the \
                 pods it matches; set it, or remove zen-lead.io/enabled"
                    .into(),
                "FieldValueRequired | spec.ports | Required value: the leader Service has the ports \
                 of this one; set at least one, or remove zen-lead.io/enabled"
                    .into(),
            ],
        ),
        one(
            on("copy-annotations", "a b, zen-lead.io/sticky"),
            invalid(
                "copy-annotations",
                r#""a b, zen-lead.io/sticky": "zen-lead.io/sticky" is zen-lead's own; leave it out"#,
            ),
        ),
        one(
            on("copy-annotations", "kubectl.kubernetes.io/last-applied-configuration"),
            invalid(
                "copy-annotations",
                r#""kubectl.kubernetes.io/last-applied-configuration": "kubectl.kubernetes.io/last-applied-configuration" is kubectl's own; leave it out"#,
            ),
        ),
        one(
            on("copy-annotations", "a_b.c/x"),
            invalid(
                "copy-annotations",
                r#""a_b.c/x": "a_b.c/x" is no annotation key: before the "/" there must be a DNS name, such as "example.com""#,
            ),
        ),
        one(
            on("copy-annotations", "a,-a"),
            invalid(
                "copy-annotations",
                r#""a,-a": "a" is named twice, to be copied and (with "-") not to be; keep one"#,
            ),
        ),
        one(
            on("copy-annotations", "k0 k1 k2 k3 k4 k5 k6 k7 k8 k9 l0 l1 l2 l3 l4 l5 l6 l7 l8 l9 m0 m1 m2 m3 m4 m5 m6 m7 m8 m9 n0 n1 n2"),
            format!(
                "FieldValueTooMany | {} | Too many: must name at most 32 annotation keys",
                own("copy-annotations")
            ),
        ),
        one(
            load_balancer(&[
                ("service.beta.kubernetes.io/aws-load-balancer-scheme", "internal"),
                ("networking.gke.io/load-balancer-type", "Internal"),
                ("example.com/team", "shop"),
            ]),
            format!(
                "{NO_COPY}\"networking.gke.io/load-balancer-type\", \
                 \"service.beta.kubernetes.io/aws-load-balancer-scheme\"{NAME_IT}"
            ),
        ),
        // Everything at once.
        (
            with(
                service(&[
                    ("zen-lead.io/enabled", "true"),
                    ("zen-lead.io/sticky", "no"),
                    ("zen-lead.io/strateggy", "oldest-ready"),
                    ("zen-lead.io/leader-service-name", "plain"),
                ]),
                "/spec/ports",
                json!([]),
            ),
            vec![
                invalid("sticky", r#""no": must be "true" or "false"; write "false""#),
                unsupported(
                    "strateggy",
                    r#""zen-lead.io/strateggy": no such key; did you mean "zen-lead.io/strategy"?"#,
                ),
                "FieldValueRequired | spec.ports | Required value: the leader Service has the ports \
                 of this one; set at least one, or remove zen-lead.io/enabled"
                    .into(),
                duplicate(
                    name,
                    r#""plain": Service "plain" exists in namespace "shop" and was not made by zen-lead; choose another name, or delete that Service first"#,
                ),
            ],
        ),
    ]
}
