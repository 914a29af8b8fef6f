//! Logging: one line per event, JSON or text, filtered by level and target. The submodules are tracing: its
//! configuration (`settings`), the spans (`spans`, `http`), and their export (`otlp`).
//!
//! Settings are passed in as values; no environment is read here. Metrics are elsewhere.

pub mod http;
pub mod otlp;
pub mod settings;
pub mod spans;

use std::fmt;

use opentelemetry::Context;
use opentelemetry::trace::TraceContextExt as _;
use serde_json::{Map, Value};
use tracing::{Event, Subscriber};
use tracing_serde::fields::AsMap as _;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::{JsonFields, Writer};
use tracing_subscriber::fmt::{
    FmtContext, FormatEvent, FormatFields, FormattedFields, MakeWriter, layer,
};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::{LookupSpan, Scope};
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::LogFormat;
use crate::platform::clock::Clock;

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter is not valid.
    #[error(
        "{filter:?} is not a log filter (for example \"info\" or \"info,zen_lead::control::watch=debug\"): {source}"
    )]
    Filter {
        /// What was given.
        filter: String,
        /// What is wrong with it.
        source: tracing_subscriber::filter::ParseError,
    },
    /// Logging has been set up before.
    #[error("logging is already set up: {0}")]
    Already(#[from] tracing_subscriber::util::TryInitError),
}

/// Sets up logging to standard error for the whole process. `filter` is a level (`debug`) or directives as
/// in `RUST_LOG` (`info,zen_lead::control::watch=debug`).
///
/// # Errors
/// If the filter is not valid, or on a second call.
pub fn init(format: LogFormat, filter: &str) -> Result<(), TelemetryError> {
    Ok(subscriber(format, filter, std::io::stderr)?.try_init()?)
}

/// The layers.
fn subscriber<W>(
    format: LogFormat,
    filter: &str,
    writer: W,
) -> Result<impl Subscriber + Send + Sync + for<'a> LookupSpan<'a>, TelemetryError>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let filter = EnvFilter::builder()
        .parse(filter)
        .map_err(|source| TelemetryError::Filter { filter: filter.to_owned(), source })?;
    let lines: Box<dyn tracing_subscriber::Layer<_> + Send + Sync> = match format {
        LogFormat::Json => Box::new(
            layer()
                .fmt_fields(JsonFields::new())
                .event_format(JsonLine { clock: Clock::system() })
                .with_writer(writer),
        ),
        LogFormat::Text => Box::new(layer().with_ansi(false).with_writer(writer)),
    };
    Ok(tracing_subscriber::registry().with(filter).with(lines))
}

/// Formats a JSON line. The format of tracing-subscriber nests the message under another name.
struct JsonLine {
    clock: Clock,
}

impl<S, N> FormatEvent<S, N> for JsonLine
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let fields = serde_json::to_value(event.field_map()).map_err(|_| fmt::Error)?;
        let mut fields = fields.as_object().cloned().unwrap_or_default();
        let message = fields.remove("message").unwrap_or_else(|| "".into());
        // Fields of an inner span, and of the event, take precedence over those of an outer span.
        let mut others = Map::new();
        for span in context.event_scope().into_iter().flat_map(Scope::from_root) {
            let extensions = span.extensions();
            let text = extensions.get::<FormattedFields<N>>().map_or("", |f| f.fields.as_str());
            others.extend(serde_json::from_str::<Map<String, Value>>(text).unwrap_or_default());
        }
        others.append(&mut fields);

        let json = |text: &str| Value::from(text).to_string();
        let meta = event.metadata();
        let level = meta.level().as_str().to_ascii_lowercase();
        write!(writer, r#"{{"ts":"{:.6}","level":"{level}","#, self.clock.now())?;
        write!(writer, r#""msg":{message},"target":{}"#, json(meta.target()))?;
        if let Some((trace, span)) = trace() {
            write!(writer, r#","trace_id":"{trace}","span_id":"{span}""#)?;
        }
        for (name, value) in &others {
            // A field cannot replace the names of the line itself.
            let taken =
                matches!(name.as_str(), "ts" | "level" | "msg" | "target" | "trace_id" | "span_id");
            let name = if taken { format!("field.{name}") } else { name.clone() };
            write!(writer, ",{}:{value}", json(&name))?;
        }
        writeln!(writer, "}}")
    }
}

/// The ids of the current span, if its trace is sampled.
fn trace() -> Option<(opentelemetry::TraceId, opentelemetry::SpanId)> {
    Context::map_current(|current| {
        let span = current.span();
        let ids = span.span_context();
        (ids.is_valid() && ids.is_sampled()).then(|| (ids.trace_id(), ids.span_id()))
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::Arc;

    use parking_lot::Mutex;

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    impl<'a> MakeWriter<'a> for Lines {
        type Writer = Self;

        fn make_writer(&'a self) -> Self {
            self.clone()
        }
    }

    fn logged(format: LogFormat, filter: &str, log: impl FnOnce()) -> String {
        let lines = Lines::default();
        tracing::subscriber::with_default(subscriber(format, filter, lines.clone()).unwrap(), log);
        let bytes = lines.0.lock().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_json_line_has_time_level_message_and_all_fields() {
        let text = logged(LogFormat::Json, "info", || {
            let outer = tracing::info_span!("reconcile", service = "a/b", attempt = 1);
            let _outer = outer.enter();
            let inner = tracing::info_span!("write", attempt = 2);
            let _inner = inner.enter();
            tracing::warn!(ok = false, level = "high", why = ?Some("x"), "it \"broke\"\n{}", 7);
            tracing::debug!("not wanted");
        });
        assert_eq!(text.lines().count(), 1, "{text}");
        let line: Value = serde_json::from_str(&text).unwrap();
        let ts = line["ts"].as_str().unwrap();
        assert!(ts.parse::<jiff::Timestamp>().is_ok() && ts.len() == 27, "{ts}");
        assert!(text.starts_with(r#"{"ts":""#), "{text}");
        let mut rest = line.as_object().unwrap().clone();
        rest.remove("ts");
        assert_eq!(
            Value::Object(rest),
            serde_json::json!({
                "level": "warn", "msg": "it \"broke\"\n7", "target": "zen_lead::platform::telemetry::tests",
                "service": "a/b", "attempt": 2, "ok": false, "why": "Some(\"x\")",
                "field.level": "high",
            })
        );
    }

    #[test]
    fn text_is_for_people_and_filters_take_targets() {
        let filter = "warn,zen_lead::platform::telemetry=debug";
        let text = logged(LogFormat::Text, filter, || {
            tracing::debug!(n = 3, "hello");
            tracing::info!(target: "elsewhere", "not wanted");
        });
        assert!(text.contains("DEBUG zen_lead::platform::telemetry::tests: hello n=3"), "{text}");
        assert_eq!(text.lines().count(), 1, "{text}");
    }

    #[test]
    fn errors_say_what_to_write_instead() {
        let error = subscriber(LogFormat::Json, "zen_lead=loud", std::io::sink).err().unwrap();
        let error = error.to_string();
        assert!(
            error.starts_with(
                r#""zen_lead=loud" is not a log filter (for example "info" or "info,zen_lead::control::watch=debug"): "#
            ),
            "{error}"
        );
    }
}
