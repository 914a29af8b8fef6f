//! Traces over HTTP: the W3C headers of a trace, and the attributes that a request adds to its span.
//!
//! Reads requests and adds headers; sends nothing. Does not read bodies or other headers.

use http::{HeaderMap, Request, StatusCode, Uri};
use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::TraceContextExt;
use opentelemetry::{Context, KeyValue};
use opentelemetry_http::{HeaderExtractor, HeaderInjector};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_semantic_conventions::attribute::{
    HTTP_REQUEST_METHOD, HTTP_RESPONSE_STATUS_CODE, SERVER_ADDRESS, SERVER_PORT, URL_FULL,
};

use super::spans::word;

/// The trace that a request belongs to; a new one if its headers name none, or are not valid by W3C.
pub(super) fn caller(headers: &HeaderMap) -> Context {
    let mut named = headers.get_all("traceparent").iter();
    let (Some(parent), None) = (named.next(), named.next()) else { return Context::new() };
    if !parent.to_str().is_ok_and(well_formed) {
        return Context::new();
    }
    TraceContextPropagator::new().extract_with_context(&Context::new(), &HeaderExtractor(headers))
}

/// Whether the parts have the right lengths: the propagator would accept short ids and pad them.
fn well_formed(traceparent: &str) -> bool {
    let lengths: Vec<usize> = traceparent.split('-').map(str::len).collect();
    lengths.starts_with(&[2, 32, 16, 2]) && (lengths.len() == 4 || !traceparent.starts_with("00"))
}

/// Call before a request is sent: names the current span after it and adds the headers of the trace.
///
/// Does nothing outside a span.
pub fn sent<B>(request: &mut Request<B>) {
    let context = Context::current();
    if !context.has_active_span() {
        return;
    }
    TraceContextPropagator::new()
        .inject_context(&context, &mut HeaderInjector(request.headers_mut()));
    let span = context.span();
    if !span.is_recording() {
        return;
    }
    let (method, uri) = (request.method().as_str(), request.uri());
    match template(uri.path()) {
        Some(template) => span.update_name(format!("{method} {template}")),
        None => span.update_name(method.to_owned()),
    }
    span.set_attribute(KeyValue::new(HTTP_REQUEST_METHOD, method.to_owned()));
    span.set_attribute(word(SERVER_ADDRESS, uri.host().unwrap_or_default()));
    let port = uri.port_u16().unwrap_or(if uri.scheme_str() == Some("http") { 80 } else { 443 });
    span.set_attribute(KeyValue::new(SERVER_PORT, i64::from(port)));
    span.set_attribute(word(URL_FULL, &plain(uri)));
}

/// Call when the answer has arrived: adds the status to the current span.
pub fn answered(status: StatusCode) {
    Context::map_current(|context| {
        if context.has_active_span() {
            let code = i64::from(status.as_u16());
            context.span().set_attribute(KeyValue::new(HTTP_RESPONSE_STATUS_CODE, code));
        }
    });
}

/// The URL without user name and password.
fn plain(uri: &Uri) -> String {
    let scheme = uri.scheme_str().unwrap_or("https");
    let host = uri.authority().map_or("", |a| a.as_str().rsplit('@').next().unwrap_or_default());
    let path = uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    format!("{scheme}://{host}{path}")
}

/// A path of the Kubernetes API with placeholders for names, for example
/// `/api/v1/namespaces/{namespace}/services/{name}/status`; `None` for any other path.
fn template(path: &str) -> Option<String> {
    let mut parts = path.trim_start_matches('/').split('/');
    let mut shown = match parts.next()? {
        "api" => format!("/api/{}", parts.next()?),
        "apis" => format!("/apis/{}/{}", parts.next()?, parts.next()?),
        only @ "version" => return parts.next().is_none().then(|| format!("/{only}")),
        _ => return None,
    };
    let mut resource = parts.next()?;
    let rest: Vec<&str> = parts.collect();
    let mut rest = rest.as_slice();
    if resource == "namespaces"
        && let [_, inner, more @ ..] = rest
    {
        shown.push_str("/namespaces/{namespace}");
        (resource, rest) = (*inner, more);
    }
    shown.push('/');
    shown.push_str(resource);
    match rest {
        [] => {}
        [_] => shown.push_str("/{name}"),
        [_, below] => {
            shown.push_str("/{name}/");
            shown.push_str(below);
        }
        _ => return None,
    }
    Some(shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_shown_without_names() {
        for (path, want) in [
            ("/version", Some("/version")),
            ("/api/v1/services", Some("/api/v1/services")),
            ("/api/v1/namespaces/team", Some("/api/v1/namespaces/{name}")),
            ("/api/v1/namespaces/team/pods", Some("/api/v1/namespaces/{namespace}/pods")),
            (
                "/api/v1/namespaces/team/services/web/status",
                Some("/api/v1/namespaces/{namespace}/services/{name}/status"),
            ),
            (
                "/apis/discovery.k8s.io/v1/namespaces/team/endpointslices/web-x",
                Some("/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices/{name}"),
            ),
            (
                "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/zen-lead",
                Some(
                    "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/{name}",
                ),
            ),
            ("/", None),
            ("/api", None),
            ("/api/v1", None),
            ("/metrics", None),
            ("/version/more", None),
            ("/api/v1/namespaces/team/pods/a/exec/more", None),
        ] {
            assert_eq!(template(path).as_deref(), want, "{path}");
        }
    }

    #[test]
    fn credentials_in_a_url_are_not_shown() {
        let uri = Uri::from_static("https://me:secret@kube:6443/api/v1/pods?limit=1");
        assert_eq!(plain(&uri), "https://kube:6443/api/v1/pods?limit=1");
    }

    #[test]
    fn only_a_valid_traceparent_names_a_trace() {
        for (text, valid) in [
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", true),
            ("00-00000000000000000000000000000000-00f067aa0ba902b7-01", false),
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01", false),
            ("ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", false),
            ("00-4bf92f-00f067aa0ba902b7-01", false),
            ("nonsense", false),
        ] {
            let headers =
                HeaderMap::from_iter([("traceparent".parse().unwrap(), text.parse().unwrap())]);
            let context = caller(&headers);
            assert_eq!(context.span().span_context().is_valid(), valid, "{text}");
        }
        assert!(!caller(&HeaderMap::new()).has_active_span());
    }
}
