//! `http(s)://host[:port]` as configuration names a server.

use std::fmt;
use std::str::FromStr;

use hyper::http::uri::Authority;

/// How a server is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// Plain text; meant for loopback.
    Http,
    /// TLS, verified.
    Https,
}

impl Scheme {
    /// `http` or `https`.
    pub fn as_str(self) -> &'static str {
        match self {
            Scheme::Http => "http",
            Scheme::Https => "https",
        }
    }

    /// The port when none is written.
    pub fn default_port(self) -> u16 {
        match self {
            Scheme::Http => 80,
            Scheme::Https => 443,
        }
    }
}

/// A server: scheme and authority, without path.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// How to speak to it.
    pub scheme: Scheme,
    /// `host` or `host:port`, lower case, the port left out where it is the scheme's own: the form
    /// in which it also goes into the Host header.
    pub authority: String,
}

impl Endpoint {
    /// The host without the port; an IPv6 address keeps its brackets.
    pub fn host(&self) -> &str {
        match self.authority.rsplit_once(':') {
            Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) && !port.is_empty() => host,
            _ => &self.authority,
        }
    }

    /// Whether the host is an IP address or a name of this machine (`localhost`).
    pub fn is_loopback(&self) -> bool {
        let host = self.host().trim_start_matches('[').trim_end_matches(']');
        host == "localhost"
            || host.ends_with(".localhost")
            || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
    }
}

/// What is wrong with the text of an endpoint; completes "the endpoint ...".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointError(String);

impl fmt::Display for EndpointError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for EndpointError {}

impl FromStr for Endpoint {
    type Err = EndpointError;

    /// Takes `http://host[:port]` or `https://host[:port]`, with at most a single `/` behind it.
    fn from_str(text: &str) -> Result<Self, EndpointError> {
        let refuse = |why: &str| EndpointError(format!("`{text}` {why}"));
        let (scheme, rest) =
            text.split_once("://").ok_or_else(|| refuse("names no scheme: write https://host or http://host:port"))?;
        let scheme = match scheme.to_ascii_lowercase().as_str() {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            _ => return Err(refuse("has an unknown scheme: only http and https are known")),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if rest.contains(['/', '?', '#', '@']) {
            return Err(refuse("holds more than a host and a port"));
        }
        let authority: Authority =
            rest.parse().map_err(|_| refuse("holds no valid host: write https://host or http://host:port"))?;
        if authority.host().is_empty() {
            return Err(refuse("holds no host"));
        }
        let host = authority.host().to_ascii_lowercase();
        // `host:` and `host:99999` are authorities to the parser, but no port can be read of them.
        if authority.port_u16().is_none() && rest.len() != host.len() {
            return Err(refuse("holds no valid port: a number from 1 to 65535"));
        }
        let authority = match authority.port_u16() {
            Some(0) => return Err(refuse("holds no valid port: a number from 1 to 65535")),
            Some(port) if port != scheme.default_port() => format!("{host}:{port}"),
            _ => host,
        };
        Ok(Endpoint { scheme, authority })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme.as_str(), self.authority)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_parse_and_print() {
        let parse = |text: &str| text.parse::<Endpoint>();
        assert_eq!(parse("HTTP://127.0.0.1:9000/").unwrap().to_string(), "http://127.0.0.1:9000");
        assert_eq!(parse("https://Cos.Example.com:443").unwrap().to_string(), "https://cos.example.com");
        assert_eq!(parse("http://[::1]:9000").unwrap().host(), "[::1]");
        assert_eq!(parse("http://[::1]").unwrap().host(), "[::1]");
        assert!(parse("http://[::1]:9000").unwrap().is_loopback());
        assert!(parse("http://127.0.0.9").unwrap().is_loopback());
        assert!(!parse("http://10.0.0.1:80").unwrap().is_loopback());
        for wrong in [
            "cos.example.com",
            "ftp://host",
            "http://",
            "http://host/path",
            "http://host:",
            "http://host:0",
            "http://host:99999",
            "http://user@host",
            "http://a b",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
