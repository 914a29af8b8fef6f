//! Chooses the proxy for the API server, if any: the kubeconfig's `proxy-url`, or that of the environment.
//!
//! Follows kubectl. A `proxy-url` always applies (client-go: rest.Config.Proxy). The variables apply as
//! golang.org/x/net/http/httpproxy reads them, also in a pod. kube 5 does not support NO_PROXY in this
//! build; with its feature `http-proxy` it compares NO_PROXY with the address of the proxy, not of the
//! server. No connection is made here.

mod exceptions;

use std::fmt;

use base64::Engine as _;
use http::{HeaderValue, Uri};
use percent_encoding::percent_decode_str;
use thiserror::Error;

use crate::config::proxy::Variables;

/// The protocol of a proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// HTTP with the method CONNECT.
    Http,
    /// SOCKS5; the proxy resolves names.
    Socks5,
}

/// A proxy for the API server.
#[derive(Clone, PartialEq, Eq)]
pub struct Proxy {
    /// Its protocol.
    pub scheme: Scheme,
    /// Its address: scheme, host and port.
    pub address: Uri,
    /// User name and password, decoded.
    pub credentials: Option<(String, String)>,
    /// The variable or the field that names it.
    pub set_by: &'static str,
}

/// A proxy that cannot be used. The text contains no password.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "{set_by} names a proxy that cannot be used: {why}; write for example http://proxy.example.com:3128 \
     or socks5://proxy.example.com:1080{instead}"
)]
pub struct ProxyError {
    set_by: &'static str,
    why: String,
    instead: &'static str,
}

/// How messages call the `proxy-url` of a kubeconfig.
const PROXY_URL: &str = "proxy-url of the kubeconfig";

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = self.address.to_string();
        write!(f, "{} ({})", address.trim_end_matches('/'), self.set_by)
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Proxy {
    /// The header `Proxy-Authorization`, if there are credentials.
    pub fn basic_auth(&self) -> Option<HeaderValue> {
        let (user, password) = self.credentials.as_ref()?;
        let text = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
        let mut value = HeaderValue::try_from(format!("Basic {text}")).ok()?;
        value.set_sensitive(true);
        Some(value)
    }
}

/// The proxy for this server.
///
/// # Errors
/// If the proxy that applies has no valid address, or a scheme that is not supported.
pub fn choose(
    server: &Uri,
    proxy_url: Option<&str>,
    variables: &Variables,
) -> Result<Option<Proxy>, ProxyError> {
    if let Some(text) = proxy_url.filter(|text| !text.is_empty()) {
        return read(PROXY_URL, text, "").map(Some);
    }
    let plain = server.scheme_str() == Some("http");
    let named = if plain { &variables.http } else { &variables.https };
    let Some((name, text)) = named else { return Ok(None) };
    let host = server.host().unwrap_or_default();
    let port = server.port_u16().unwrap_or(if plain { 80 } else { 443 });
    if exceptions::cover(&variables.none_for, host, port) {
        return Ok(None);
    }
    read(name, text, "; or add the API server to NO_PROXY").map(Some)
}

/// Reads the address of a proxy; the default scheme is HTTP.
fn read(set_by: &'static str, text: &str, instead: &'static str) -> Result<Proxy, ProxyError> {
    let wrong = |why: &str| ProxyError { set_by, why: why.to_owned(), instead };
    let whole = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
    let uri: Uri = whole.parse().map_err(|_| wrong("it is not a valid address"))?;
    let (scheme, name, default) = match uri.scheme_str().unwrap_or_default() {
        "http" => (Scheme::Http, "http", 80),
        "socks5" | "socks5h" => (Scheme::Socks5, "socks5", 1080),
        other => return Err(wrong(&format!("the scheme {other}:// is not supported"))),
    };
    let authority = uri.authority().ok_or_else(|| wrong("it has no host"))?;
    let (host, port) = (authority.host(), authority.port_u16().unwrap_or(default));
    let address = Uri::builder()
        .scheme(name)
        .authority(format!("{host}:{port}"))
        .path_and_query("/")
        .build()
        .map_err(|_| wrong("it is not a valid address"))?;
    let decoded = |part: &str| percent_decode_str(part).decode_utf8_lossy().into_owned();
    let credentials = authority.as_str().rsplit_once('@').map(|(login, _)| {
        let (user, password) = login.split_once(':').unwrap_or((login, ""));
        (decoded(user), decoded(password))
    });
    Ok(Proxy { scheme, address, credentials, set_by })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(text: &str) -> Uri {
        text.parse().unwrap()
    }

    fn https(value: &str, none_for: &str) -> Variables {
        Variables {
            https: Some(("HTTPS_PROXY", value.to_owned())),
            none_for: none_for.to_owned(),
            ..Variables::default()
        }
    }

    /// The proxy chosen for a server, as text.
    fn chosen(to: &str, proxy_url: Option<&str>, variables: &Variables) -> String {
        match choose(&server(to), proxy_url, variables) {
            Ok(None) => "none".to_owned(),
            Ok(Some(proxy)) => proxy.to_string(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn the_variables_apply_unless_no_proxy_covers_the_server() {
        let far = "https://api.example.com:6443";
        for (to, none_for, wanted) in [
            (far, "", "http://p:3128 (HTTPS_PROXY)"),
            (far, "example.org", "http://p:3128 (HTTPS_PROXY)"),
            (far, "example.com", "none"),
            ("https://10.96.0.1:443", "10.96.0.0/12", "none"),
            ("https://kubernetes.default.svc", ".svc", "none"),
            ("https://[fd00::1]:6443", "fd00::/8", "none"),
            ("https://127.0.0.1:6443", "", "none"),
            // Only the variable for its own scheme counts.
            ("http://api.example.com", "", "none"),
        ] {
            assert_eq!(
                chosen(to, None, &https("http://p:3128", none_for)),
                wanted,
                "{to} {none_for}"
            );
        }
        let plain =
            Variables { http: Some(("http_proxy", "p".to_owned())), ..Variables::default() };
        assert_eq!(chosen("http://api.example.com", None, &plain), "http://p:80 (http_proxy)");
        assert_eq!(chosen(far, None, &plain), "none");
        assert_eq!(chosen(far, None, &Variables::default()), "none");
    }

    #[test]
    fn the_proxy_of_the_kubeconfig_always_applies() {
        let variables = https("http://other:1", "*");
        let wanted = "socks5://localhost:1080 (proxy-url of the kubeconfig)";
        let found = chosen("https://127.0.0.1:6443", Some("socks5://localhost:1080"), &variables);
        assert_eq!(found, wanted);
        assert_eq!(chosen("https://127.0.0.1:6443", Some(""), &variables), "none");
    }

    #[test]
    fn addresses_are_read_with_their_defaults_and_credentials() {
        let read = |text| read("HTTPS_PROXY", text, "").unwrap();
        for (text, address) in [
            ("http://p:3128", "http://p:3128/"),
            ("http://p:3128/", "http://p:3128/"),
            ("p:3128", "http://p:3128/"),
            ("10.0.0.1", "http://10.0.0.1:80/"),
            ("http://[::1]:8", "http://[::1]:8/"),
            ("socks5://p", "socks5://p:1080/"),
            ("socks5h://p:9", "socks5://p:9/"),
        ] {
            let proxy = read(text);
            assert_eq!((proxy.address.to_string(), proxy.credentials), (address.to_owned(), None));
        }
        let proxy = read("http://bob:pa%40ss%3A@p:3128");
        assert_eq!(proxy.credentials, Some(("bob".to_owned(), "pa@ss:".to_owned())));
        assert_eq!(proxy.basic_auth().unwrap(), "Basic Ym9iOnBhQHNzOg==");
        assert!(proxy.basic_auth().unwrap().is_sensitive());
        assert_eq!(
            format!("{proxy} {proxy:?}"),
            "http://p:3128 (HTTPS_PROXY) http://p:3128 (HTTPS_PROXY)"
        );
    }

    #[test]
    fn what_cannot_be_used_is_refused_without_its_password() {
        let far = "https://api.example.com";
        for (value, why) in [
            ("https://bob:secret@p:3128", "the scheme https:// is not supported"),
            ("socks4://p", "the scheme socks4:// is not supported"),
            ("http://bob:secret @p", "it is not a valid address"),
            ("http://", "it is not a valid address"),
        ] {
            let said = chosen(far, None, &https(value, ""));
            let wanted = format!(
                "HTTPS_PROXY names a proxy that cannot be used: {why}; write for example \
                 http://proxy.example.com:3128 or socks5://proxy.example.com:1080; or add the API \
                 server to NO_PROXY"
            );
            assert_eq!(said, wanted, "{value}");
            // A proxy that does not apply is not validated.
            assert_eq!(chosen(far, None, &https(value, "example.com")), "none");
        }
        let said = chosen(far, Some("ftp://p"), &Variables::default());
        assert!(said.starts_with("proxy-url of the kubeconfig names a proxy"), "{said}");
        assert!(said.ends_with("socks5://proxy.example.com:1080"), "{said}");
    }
}
