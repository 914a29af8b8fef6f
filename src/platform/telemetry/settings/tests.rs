//! Tests of every variable: its effect, its precedence, and the message for an invalid value.

use super::*;

fn flags(endpoint: &str, ratio: &str) -> Traces {
    let some = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    Traces { otlp_endpoint: some(endpoint), trace_sample_ratio: some(ratio) }
}

fn with(variables: &[(&str, &str)]) -> Result<Option<TraceSettings>, Mistake> {
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    read(&Traces::default(), &variables.iter().map(owned).collect())
}

/// TraceSettings with an endpoint and these variables.
fn on(variables: &[(&str, &str)]) -> TraceSettings {
    let mut all = vec![("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318")];
    all.extend(variables);
    with(&all).unwrap().unwrap()
}

#[test]
fn it_is_off_until_an_endpoint_is_named_and_can_be_switched_off() {
    let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318");
    for variables in [
        vec![],
        // Without an endpoint no other value counts, valid or not.
        vec![("OTEL_SERVICE_NAME", "x"), ("OTEL_TRACES_SAMPLER", "nonsense")],
        vec![endpoint, ("OTEL_TRACES_EXPORTER", "none")],
        vec![endpoint, ("OTEL_SDK_DISABLED", "True")],
    ] {
        assert_eq!(with(&variables), Ok(None), "{variables:?}");
    }
    assert!(with(&[endpoint, ("OTEL_SDK_DISABLED", "false")]).unwrap().is_some());
    // Requested without an endpoint: the default of the standard, a local collector.
    let settings = with(&[("OTEL_TRACES_EXPORTER", "otlp")]).unwrap().unwrap();
    assert_eq!(settings.endpoint, "http://localhost:4318/v1/traces");
}

#[test]
fn what_is_not_said_is_as_the_specification_has_it() {
    assert_eq!(
        on(&[]),
        TraceSettings {
            endpoint: Uri::from_static("http://c:4318/v1/traces"),
            protocol: Protocol::Http,
            timeout: Duration::from_secs(10),
            sampling: Sampling { parent_based: true, ratio: 1.0 },
            batch: Batch { queue: 2048, size: 512, delay: Duration::from_secs(5) },
            resource: vec![],
            certificate: None,
            identity: None,
        }
    );
}

#[test]
fn endpoints_and_their_paths() {
    const GENERAL: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
    const SPECIAL: &str = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";
    const PROTOCOL: &str = "OTEL_EXPORTER_OTLP_PROTOCOL";
    for (variables, want) in [
        (vec![(GENERAL, "https://c:4318/otlp/")], "https://c:4318/otlp/v1/traces"),
        (vec![(SPECIAL, "http://t:1/x")], "http://t:1/x"),
        (vec![(GENERAL, "http://c:2"), (SPECIAL, "http://t:1/x")], "http://t:1/x"),
        (vec![(GENERAL, "http://c:4317"), (PROTOCOL, "grpc")], "http://c:4317/"),
        (vec![("OTEL_TRACES_EXPORTER", "otlp"), (PROTOCOL, "grpc")], "http://localhost:4317/"),
    ] {
        assert_eq!(with(&variables).unwrap().unwrap().endpoint, want, "{variables:?}");
    }
    // The flag takes precedence over both variables.
    let both =
        [(GENERAL.to_owned(), "http://c:2".to_owned()), (SPECIAL.into(), "http://t:1".into())];
    let settings = read(&flags("http://f:3", ""), &both.into()).unwrap().unwrap();
    assert_eq!(settings.endpoint, "http://f:3/v1/traces");
}

#[test]
fn each_variable_is_heard_and_the_one_for_traces_first() {
    let settings = on(&[
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
        ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "grpc"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "4000"),
        ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "3000"),
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/a"),
        ("OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", "/b"),
        ("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", "/c"),
        ("OTEL_EXPORTER_OTLP_CLIENT_KEY", "/k"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20x,a=b"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "none"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "100"),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "10"),
        ("OTEL_BSP_SCHEDULE_DELAY", "200"),
        ("OTEL_RESOURCE_ATTRIBUTES", "a=1, service.name=no ,b=x%2Cy"),
        ("OTEL_SERVICE_NAME", "zl"),
    ]);
    assert_eq!(
        settings,
        TraceSettings {
            endpoint: Uri::from_static("http://c:4318"),
            protocol: Protocol::Grpc,
            timeout: Duration::from_secs(3),
            sampling: Sampling { parent_based: true, ratio: 1.0 },
            batch: Batch { queue: 100, size: 10, delay: Duration::from_millis(200) },
            resource: [("a", "1"), ("b", "x,y"), ("service.name", "zl")]
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .into(),
            certificate: Some("/b".into()),
            identity: Some(("/c".into(), "/k".into())),
        }
    );
    assert_eq!(on(&[("OTEL_BSP_EXPORT_TIMEOUT", "700")]).timeout, Duration::from_millis(700));
    assert_eq!(on(&[("OTEL_BSP_MAX_QUEUE_SIZE", "7")]).batch.size, 7, "never above the queue");
}

#[test]
fn samplers() {
    let sampler =
        |name, arg| on(&[("OTEL_TRACES_SAMPLER", name), ("OTEL_TRACES_SAMPLER_ARG", arg)]).sampling;
    for (name, parent_based, ratio) in [
        ("always_on", false, 1.0),
        ("always_off", false, 0.0),
        ("traceidratio", false, 0.25),
        ("parentbased_always_on", true, 1.0),
        ("parentbased_always_off", true, 0.0),
        ("parentbased_traceidratio", true, 0.25),
    ] {
        assert_eq!(sampler(name, "0.25"), Sampling { parent_based, ratio }, "{name}");
    }
    let none = on(&[("OTEL_TRACES_SAMPLER", "traceidratio")]).sampling;
    assert_eq!(none, Sampling { parent_based: false, ratio: 1.0 });
    let variables = [("OTEL_TRACES_SAMPLER".to_owned(), "always_on".to_owned())].into();
    let flag = read(&flags("http://c:1", "0.5"), &variables).unwrap().unwrap().sampling;
    assert_eq!(flag, Sampling { parent_based: true, ratio: 0.5 }, "the flag is nearer");
}

#[test]
fn a_wrong_value_is_named_with_what_to_write_instead() {
    for (name, value, message) in [
        ("OTEL_SDK_DISABLED", "yes", r#"OTEL_SDK_DISABLED is "yes": write "true" or "false""#),
        (
            "OTEL_TRACES_EXPORTER",
            "zipkin",
            r#"OTEL_TRACES_EXPORTER is "zipkin": write "otlp" or "none""#,
        ),
        (
            "OTEL_EXPORTER_OTLP_PROTOCOL",
            "http/json",
            r#"OTEL_EXPORTER_OTLP_PROTOCOL is "http/json": write "grpc" or "http/protobuf""#,
        ),
        (
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
            "collector:4317",
            r#"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT is "collector:4317": write a URL with scheme and host, for example http://collector:4318"#,
        ),
        (
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
            "http://me:secret@c",
            r#"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT is "(hidden)": write credentials in OTEL_EXPORTER_OTLP_HEADERS"#,
        ),
        (
            "OTEL_EXPORTER_OTLP_HEADERS",
            "Bearer secret",
            r#"OTEL_EXPORTER_OTLP_HEADERS is "(hidden)": write name=value,name=value with the values percent-encoded"#,
        ),
        (
            "OTEL_EXPORTER_OTLP_COMPRESSION",
            "gzip",
            r#"OTEL_EXPORTER_OTLP_COMPRESSION is "gzip": compression is not built in; write "none""#,
        ),
        (
            "OTEL_EXPORTER_OTLP_TIMEOUT",
            "10s",
            r#"OTEL_EXPORTER_OTLP_TIMEOUT is "10s": write a number of milliseconds from 1 to 600000"#,
        ),
        (
            "OTEL_BSP_MAX_QUEUE_SIZE",
            "0",
            r#"OTEL_BSP_MAX_QUEUE_SIZE is "0": write a number of spans from 1 to 100000"#,
        ),
        (
            "OTEL_BSP_MAX_EXPORT_BATCH_SIZE",
            "4096",
            r#"OTEL_BSP_MAX_EXPORT_BATCH_SIZE is "4096": write at most OTEL_BSP_MAX_QUEUE_SIZE (2048 by default)"#,
        ),
        (
            "OTEL_TRACES_SAMPLER",
            "jaeger_remote",
            r#"OTEL_TRACES_SAMPLER is "jaeger_remote": write one of always_on, always_off, traceidratio, parentbased_always_on, parentbased_always_off, parentbased_traceidratio"#,
        ),
        (
            "OTEL_RESOURCE_ATTRIBUTES",
            "just words",
            r#"OTEL_RESOURCE_ATTRIBUTES is "just words": write key=value,key=value with the values percent-encoded"#,
        ),
        (
            "OTEL_EXPORTER_OTLP_CLIENT_KEY",
            "/k",
            r#"OTEL_EXPORTER_OTLP_CLIENT_KEY is "/k": OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE and OTEL_EXPORTER_OTLP_CLIENT_KEY go together: set both or neither"#,
        ),
    ] {
        let all = [("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318"), (name, value)];
        assert_eq!(with(&all).unwrap_err().to_string(), message);
    }
    for ratio in ["1.5", "-0.1", "NaN", "ten"] {
        let message = read(&flags("http://c:1", ratio), &Variables::new()).unwrap_err().to_string();
        let want = format!(
            "--trace-sample-ratio is {ratio:?}: write a number from 0 to 1, for example 0.1"
        );
        assert_eq!(message, want);
    }
}
