//! The standard environment variables that name a proxy.
//!
//! `platform::api::proxy` decides whether one of them applies to the API server.

/// Name and value of a variable that is set.
pub type Named = (&'static str, String);

/// The proxies that the environment names. Of two spellings, the first non-empty one counts, as in
/// Go's golang.org/x/net/http/httpproxy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Variables {
    /// The proxy for `https://` servers.
    pub https: Option<Named>,
    /// The proxy for `http://` servers.
    pub http: Option<Named>,
    /// Servers to connect to without a proxy.
    pub none_for: String,
}

/// Reads the variables. A value that is not UTF-8 cannot be an address and counts as absent.
pub fn variables() -> Variables {
    let first = |names: [&'static str; 2]| {
        names.into_iter().find_map(|name| {
            let value = std::env::var_os(name)?.into_string().ok()?;
            (!value.is_empty()).then_some((name, value))
        })
    };
    Variables {
        https: first(["HTTPS_PROXY", "https_proxy"]),
        http: first(["HTTP_PROXY", "http_proxy"]),
        none_for: first(["NO_PROXY", "no_proxy"]).map(|(_, list)| list).unwrap_or_default(),
    }
}
