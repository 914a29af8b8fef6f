//! Interprets the flags and the OTEL_ variables: whether to trace, where to send, what to sample.
//!
//! Values in, values out: nothing is read from the environment here, nothing is started. A value
//! that is not valid is an error; it never silently disables traces.

use std::path::PathBuf;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Uri};
use percent_encoding::percent_decode_str;

use crate::config::traces::{Traces, Variables};

/// The protocol of the export.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// OTLP over gRPC.
    Grpc,
    /// OTLP over HTTP, as protobuf.
    Http,
}

/// Which traces are sampled.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// Follow the caller's decision if there is one.
    pub parent_based: bool,
    /// Fraction of the traces that begin here to keep, from 0 to 1.
    pub ratio: f64,
}

/// How spans are batched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Spans in the queue; more are dropped.
    pub queue: usize,
    /// Spans per batch.
    pub size: usize,
    /// The longest a span waits before it is sent.
    pub delay: Duration,
}

/// Tracing that is on.
#[derive(Clone, Debug, PartialEq)]
pub struct TraceSettings {
    /// Endpoint of the collector, with the path for HTTP.
    pub endpoint: Uri,
    /// Protocol of the export.
    pub protocol: Protocol,
    /// How long sending one batch may take, including retries.
    pub timeout: Duration,
    /// Which traces are sampled.
    pub sampling: Sampling,
    /// How spans are batched.
    pub batch: Batch,
    /// Additional attributes of the process; may include `service.name`.
    pub resource: Vec<(String, String)>,
    /// PEM file with the certificates to verify the collector with.
    pub certificate: Option<PathBuf>,
    /// PEM files with the client certificate and key for the collector.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// A value that is not valid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name} is {value:?}: {wanted}")]
pub struct Mistake {
    /// The variable or flag.
    pub name: String,
    /// What was given.
    pub value: String,
    /// What is allowed.
    pub wanted: &'static str,
}

fn mistake(name: &str, value: &str, wanted: &'static str) -> Mistake {
    Mistake { name: name.to_owned(), value: value.to_owned(), wanted }
}

/// A variable or flag and its value.
type Given<'a> = Option<(&'static str, &'a str)>;

const URL: &str = "write a URL with scheme and host, for example http://collector:4318";

/// Reads flags and variables; `None` means no traces.
///
/// # Errors
/// Names the first value that is not valid, and what to write instead.
pub fn read(flags: &Traces, variables: &Variables) -> Result<Option<TraceSettings>, Mistake> {
    let var = |name: &'static str| variables.get(name).map(|value| (name, value.as_str()));
    // The variable for traces takes precedence over the general one.
    let either = |special, general| var(special).or_else(|| var(general));
    if let Some((name, value)) = var("OTEL_SDK_DISABLED")
        && flag(name, value)?
    {
        return Ok(None);
    }
    let wanted = match var("OTEL_TRACES_EXPORTER") {
        None => false,
        Some((_, "none")) => return Ok(None),
        Some((_, "otlp")) => true,
        Some((name, other)) => {
            return Err(mistake(name, other, "write \"otlp\" or \"none\""));
        }
    };
    let flag_endpoint = flags.otlp_endpoint.as_deref().filter(|text| !text.is_empty());
    let general = flag_endpoint
        .map(|value| ("--otlp-endpoint", value))
        .or_else(|| var("OTEL_EXPORTER_OTLP_ENDPOINT"));
    // A flag takes precedence over any variable.
    let special = var("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT").filter(|_| flag_endpoint.is_none());
    if !wanted && general.is_none() && special.is_none() {
        return Ok(None);
    }

    let protocol =
        protocol(either("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"))?;
    let compression =
        either("OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "OTEL_EXPORTER_OTLP_COMPRESSION");
    if let Some((name, value)) = compression.filter(|(_, value)| *value != "none") {
        return Err(mistake(name, value, "compression is not built in; write \"none\""));
    }
    headers(either("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS"))?;
    let timeout = either("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT");
    let timeout = milliseconds(timeout, 10_000)?;
    let whole = milliseconds(var("OTEL_BSP_EXPORT_TIMEOUT"), 30_000)?;
    let certificate =
        either("OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", "OTEL_EXPORTER_OTLP_CERTIFICATE");
    Ok(Some(TraceSettings {
        endpoint: endpoint(special, general, protocol)?,
        protocol,
        timeout: timeout.min(whole),
        sampling: sampling(flags, var("OTEL_TRACES_SAMPLER"), var("OTEL_TRACES_SAMPLER_ARG"))?,
        batch: batch(
            var("OTEL_BSP_MAX_QUEUE_SIZE"),
            var("OTEL_BSP_MAX_EXPORT_BATCH_SIZE"),
            var("OTEL_BSP_SCHEDULE_DELAY"),
        )?,
        resource: resource(var("OTEL_RESOURCE_ATTRIBUTES"), var("OTEL_SERVICE_NAME"))?,
        certificate: certificate.map(|(_, path)| path.into()),
        identity: identity(
            either(
                "OTEL_EXPORTER_OTLP_TRACES_CLIENT_CERTIFICATE",
                "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE",
            ),
            either("OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY", "OTEL_EXPORTER_OTLP_CLIENT_KEY"),
        )?,
    }))
}

fn flag(name: &str, value: &str) -> Result<bool, Mistake> {
    match value.to_ascii_lowercase().as_str() {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(mistake(name, value, "write \"true\" or \"false\"")),
    }
}

fn protocol(given: Given<'_>) -> Result<Protocol, Mistake> {
    match given {
        None | Some((_, "http/protobuf")) => Ok(Protocol::Http),
        Some((_, "grpc")) => Ok(Protocol::Grpc),
        Some((name, other)) => Err(mistake(name, other, "write \"grpc\" or \"http/protobuf\"")),
    }
}

/// With HTTP, the path for traces is added to the general endpoint; the endpoint for traces is used
/// unchanged. gRPC has no path.
fn endpoint(special: Given<'_>, general: Given<'_>, how: Protocol) -> Result<Uri, Mistake> {
    let (name, text, path) = match (special, general, how) {
        (Some((name, text)), _, _) | (None, Some((name, text)), Protocol::Grpc) => (name, text, ""),
        (None, Some((name, text)), Protocol::Http) => (name, text, "/v1/traces"),
        (None, None, Protocol::Grpc) => ("", "http://localhost:4317", ""),
        (None, None, Protocol::Http) => ("", "http://localhost:4318", "/v1/traces"),
    };
    let whole =
        format!("{}{path}", if path.is_empty() { text } else { text.trim_end_matches('/') });
    let uri: Uri = whole.parse().map_err(|_| mistake(name, text, URL))?;
    let known = matches!(uri.scheme_str(), Some("http" | "https"));
    if !known || uri.host().is_none_or(str::is_empty) || uri.query().is_some() {
        return Err(mistake(name, text, URL));
    }
    if uri.authority().is_some_and(|a| a.as_str().contains('@')) {
        return Err(mistake(name, "(hidden)", "write credentials in OTEL_EXPORTER_OTLP_HEADERS"));
    }
    Ok(uri)
}

/// Only validates: the exporter reads these variables itself, and ignores what it cannot read.
fn headers(given: Given<'_>) -> Result<(), Mistake> {
    // The value may hold a token: it is not repeated.
    let wrong = |name: &str| {
        mistake(name, "(hidden)", "write name=value,name=value with the values percent-encoded")
    };
    let Some((name, text)) = given else { return Ok(()) };
    for pair in text.split(',').filter(|pair| !pair.trim().is_empty()) {
        let (key, value) = pair.split_once('=').ok_or_else(|| wrong(name))?;
        let value = percent_decode_str(value.trim()).decode_utf8().map_err(|_| wrong(name))?;
        HeaderName::try_from(key.trim()).map_err(|_| wrong(name))?;
        HeaderValue::try_from(&*value).map_err(|_| wrong(name))?;
    }
    Ok(())
}

fn milliseconds(given: Given<'_>, default: u64) -> Result<Duration, Mistake> {
    const WANTED: &str = "write a number of milliseconds from 1 to 600000";
    let Some((name, text)) = given else { return Ok(Duration::from_millis(default)) };
    match text.parse::<u64>() {
        Ok(number @ 1..=600_000) => Ok(Duration::from_millis(number)),
        _ => Err(mistake(name, text, WANTED)),
    }
}

fn count(given: Given<'_>, default: usize) -> Result<usize, Mistake> {
    const WANTED: &str = "write a number of spans from 1 to 100000";
    let Some((name, text)) = given else { return Ok(default) };
    match text.parse::<usize>() {
        Ok(number @ 1..=100_000) => Ok(number),
        _ => Err(mistake(name, text, WANTED)),
    }
}

fn batch(queue: Given<'_>, size: Given<'_>, delay: Given<'_>) -> Result<Batch, Mistake> {
    let queue = count(queue, 2048)?;
    let wanted = count(size, 512.min(queue))?;
    if let Some((name, text)) = size.filter(|_| wanted > queue) {
        return Err(mistake(name, text, "write at most OTEL_BSP_MAX_QUEUE_SIZE (2048 by default)"));
    }
    Ok(Batch { queue, size: wanted, delay: milliseconds(delay, 5_000)? })
}

fn sampling(flags: &Traces, sampler: Given<'_>, arg: Given<'_>) -> Result<Sampling, Mistake> {
    const SAMPLERS: &str = "write one of always_on, always_off, traceidratio, parentbased_always_on, \
                            parentbased_always_off, parentbased_traceidratio";
    let of = |parent_based, ratio| Ok(Sampling { parent_based, ratio });
    if let Some(text) = flags.trace_sample_ratio.as_deref().filter(|text| !text.is_empty()) {
        return of(true, ratio("--trace-sample-ratio", text)?);
    }
    let by_arg = || arg.map_or(Ok(1.0), |(name, text)| ratio(name, text));
    match sampler {
        None | Some((_, "parentbased_always_on")) => of(true, 1.0),
        Some((_, "parentbased_always_off")) => of(true, 0.0),
        Some((_, "parentbased_traceidratio")) => of(true, by_arg()?),
        Some((_, "always_on")) => of(false, 1.0),
        Some((_, "always_off")) => of(false, 0.0),
        Some((_, "traceidratio")) => of(false, by_arg()?),
        Some((name, other)) => Err(mistake(name, other, SAMPLERS)),
    }
}

fn ratio(name: &str, text: &str) -> Result<f64, Mistake> {
    let number = text.parse::<f64>().ok().filter(|number| (0.0..=1.0).contains(number));
    number.ok_or_else(|| mistake(name, text, "write a number from 0 to 1, for example 0.1"))
}

fn resource(attributes: Given<'_>, service: Given<'_>) -> Result<Vec<(String, String)>, Mistake> {
    const WANTED: &str = "write key=value,key=value with the values percent-encoded";
    let mut found = Vec::new();
    if let Some((name, text)) = attributes {
        for pair in text.split(',').filter(|pair| !pair.trim().is_empty()) {
            let wrong = || mistake(name, text, WANTED);
            let (key, value) = pair.split_once('=').ok_or_else(wrong)?;
            let value = percent_decode_str(value.trim()).decode_utf8().map_err(|_| wrong())?;
            if key.trim().is_empty() {
                return Err(wrong());
            }
            found.push((key.trim().to_owned(), value.into_owned()));
        }
    }
    if let Some((_, service)) = service {
        found.retain(|(key, _)| key != "service.name");
        found.push(("service.name".to_owned(), service.to_owned()));
    }
    Ok(found)
}

fn identity(certificate: Given<'_>, key: Given<'_>) -> Result<Option<(PathBuf, PathBuf)>, Mistake> {
    match (certificate, key) {
        (None, None) => Ok(None),
        (Some((_, certificate)), Some((_, key))) => Ok(Some((certificate.into(), key.into()))),
        (Some((name, path)), None) | (None, Some((name, path))) => {
            let wanted = "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE and OTEL_EXPORTER_OTLP_CLIENT_KEY \
                          go together: set both or neither";
            Err(mistake(name, path, wanted))
        }
    }
}

#[cfg(test)]
mod tests;
