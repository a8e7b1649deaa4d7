//! What a request is about: its target taken apart, its bucket and key found. Pure.
//!
//! The path is read undecoded: a key may hold `//`, `.`, `..` and `%2F` and means what it says.

use std::net::IpAddr;

use hyper::HeaderMap;
use hyper::Method;
use hyper::Uri;
use hyper::header::HOST;

use super::encoding::decode_form;
use super::encoding::decode_path;
use super::reply::Refusal;

/// Where a request goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// `/_emulator/<what>`.
    Control(String),
    /// `/v2/<project>/sync-tasks/<task>/events`.
    Oms {
        /// Not empty.
        project: String,
        /// Not empty.
        task: String,
    },
    /// The list of buckets.
    Service,
    /// A bucket.
    Bucket(String),
    /// An object.
    Object {
        /// Its bucket.
        bucket: String,
        /// Not empty.
        key: String,
    },
}

/// A request without its body.
#[derive(Clone, Debug)]
pub(super) struct Call {
    pub(super) method: Method,
    pub(super) place: Place,
    /// Decoded, in order.
    pub(super) query: Vec<(String, String)>,
    /// As sent, without the question mark.
    pub(super) raw_query: String,
    /// As sent.
    pub(super) raw_path: String,
    /// The authority that the client addressed, with its port.
    pub(super) host: String,
    pub(super) headers: HeaderMap,
    /// Decoded paths that a signature may cover: what was sent and, with path addressing, what
    /// the bucket's own host would have been sent.
    pub(super) signed_paths: Vec<Vec<u8>>,
}

impl Call {
    /// Takes a request apart.
    pub(super) fn parse(method: Method, uri: &Uri, headers: HeaderMap) -> Result<Call, Refusal> {
        // RFC 9112 3.2.2: the authority of an absolute target wins over Host.
        let host = match uri.authority() {
            Some(authority) => authority.as_str().to_owned(),
            None => header(&headers, HOST.as_str()).unwrap_or_default().to_owned(),
        };
        let raw_path = if uri.path().is_empty() { "/" } else { uri.path() }.to_owned();
        let raw_query = uri.query().unwrap_or_default().to_owned();
        let query = parse_query(&raw_query)?;
        let mut signed_paths = vec![decode_path(&raw_path)];
        let name = host_name(&host);
        let rest = raw_path.strip_prefix('/').unwrap_or(&raw_path);
        let place = if is_bare(&name) {
            match own_place(rest) {
                Some(place) => place,
                None => {
                    let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
                    if !bucket.is_empty() {
                        signed_paths.push([b"/", decode_path(key).as_slice()].concat());
                    }
                    object_place(text(decode_path(bucket))?, text(decode_path(key))?)
                }
            }
        } else {
            match name.split_once('.').map_or(name.as_str(), |(first, _)| first) {
                // `service.cos.myqcloud.com` and `cos.<region>.myqcloud.com`.
                "service" | "cos" => object_place(String::new(), String::new()),
                bucket => object_place(bucket.to_owned(), text(decode_path(rest))?),
            }
        };
        Ok(Call { method, place, query, raw_query, raw_path, host, headers, signed_paths })
    }

    pub(super) fn param(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.param(name).is_some()
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        header(&self.headers, name)
    }

    pub(super) fn bucket(&self) -> &str {
        match &self.place {
            Place::Bucket(bucket) | Place::Object { bucket, .. } => bucket,
            _ => "",
        }
    }

    pub(super) fn key(&self) -> &str {
        match &self.place {
            Place::Object { key, .. } => key,
            _ => "",
        }
    }

    /// What faults and the log call this kind of request. Several names may fit.
    pub(super) fn sub_resources(&self) -> Vec<&'static str> {
        let mut names = Vec::new();
        for name in ["uploads", "uploadId", "partNumber", "delete"] {
            if self.has(name) {
                names.push(name);
            }
        }
        if self.headers.contains_key("x-cos-copy-source") {
            names.push("copy");
        }
        match self.place {
            Place::Oms { .. } => names.push("oms"),
            Place::Control(_) => names.push("control"),
            Place::Service => names.push("service"),
            Place::Bucket(_) if names.is_empty() && self.method == Method::GET => names.push("list"),
            Place::Bucket(_) if names.is_empty() => names.push("bucket"),
            Place::Object { .. } if names.is_empty() => names.push("object"),
            Place::Bucket(_) | Place::Object { .. } => {}
        }
        names
    }
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// Lower-case, without the port.
fn host_name(host: &str) -> String {
    let name = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => address,
        None => host.split_once(':').map_or(host, |(name, _)| name),
    };
    name.trim_end_matches('.').to_ascii_lowercase()
}

/// An address or `localhost`: no bucket in it, so the path names the bucket.
fn is_bare(name: &str) -> bool {
    name.is_empty() || name == "localhost" || name.parse::<IpAddr>().is_ok()
}

/// The emulator's own paths. No bucket name can begin them (`shelf::is_bucket_name`).
fn own_place(rest: &str) -> Option<Place> {
    if let Some(what) = rest.strip_prefix("_emulator/") {
        return Some(Place::Control(what.to_owned()));
    }
    let mut steps = rest.split('/');
    let (version, project, collection) = (steps.next()?, steps.next()?, steps.next()?);
    let (task, events, end) = (steps.next()?, steps.next()?, steps.next());
    let ours = version == "v2" && collection == "sync-tasks" && events == "events" && end.is_none();
    (ours && !project.is_empty() && !task.is_empty())
        .then(|| Place::Oms { project: project.to_owned(), task: task.to_owned() })
}

fn object_place(bucket: String, key: String) -> Place {
    match (bucket.is_empty(), key.is_empty()) {
        (true, _) => Place::Service,
        (false, true) => Place::Bucket(bucket),
        (false, false) => Place::Object { bucket, key },
    }
}

fn text(bytes: Vec<u8>) -> Result<String, Refusal> {
    String::from_utf8(bytes).map_err(|_| Refusal::new(400, "InvalidURI", "the path is not UTF-8"))
}

/// Clients write a space as `+` or `%20`; both occur (PROTOCOL 1).
fn parse_query(raw: &str) -> Result<Vec<(String, String)>, Refusal> {
    let decode =
        |part: &str| decode_form(part).ok_or_else(|| Refusal::new(400, "InvalidURI", "the query cannot be decoded"));
    let mut query = Vec::new();
    for pair in raw.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        query.push((decode(name)?, decode(value)?));
    }
    Ok(query)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(method: &str, target: &str, host: &str) -> Call {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, host.parse().unwrap());
        Call::parse(method.parse().unwrap(), &target.parse().unwrap(), headers).unwrap()
    }

    fn object(bucket: &str, key: &str) -> Place {
        Place::Object { bucket: bucket.to_owned(), key: key.to_owned() }
    }

    #[test]
    fn buckets_come_from_the_host_or_the_path() {
        let host = "b-1.cos.ap-guangzhou.myqcloud.com:9000";
        assert_eq!(call("GET", "/a/b%2Fc+d", host).place, object("b-1", "a/b/c+d"));
        assert_eq!(call("GET", "/", host).place, Place::Bucket("b-1".to_owned()));
        assert_eq!(call("GET", "/b-1/a/b", "127.0.0.1:9000").place, object("b-1", "a/b"));
        assert_eq!(call("GET", "/b-1/a/b", "[::1]:9000").place, object("b-1", "a/b"));
        assert_eq!(call("GET", "/b-1/a/b", "LOCALHOST").place, object("b-1", "a/b"));
        assert_eq!(call("GET", "/b-1/", "127.0.0.1").place, Place::Bucket("b-1".to_owned()));
        assert_eq!(call("GET", "/b-1?uploads", "127.0.0.1").place, Place::Bucket("b-1".to_owned()));
        assert_eq!(call("GET", "/", "127.0.0.1").place, Place::Service);
        assert_eq!(call("GET", "/", "service.cos.myqcloud.com").place, Place::Service);
        let absolute = call("GET", "http://b-2.cos.local.test/k", "proxy:1");
        assert_eq!(absolute.place, object("b-2", "k"));
    }

    #[test]
    fn awkward_keys_mean_what_they_say() {
        let host = "b-1.cos.x.myqcloud.com";
        assert_eq!(call("GET", "//k", host).place, object("b-1", "/k"));
        assert_eq!(call("GET", "/a/../b/.%2Fc", host).place, object("b-1", "a/../b/./c"));
        assert_eq!(call("GET", "/b-1//k", "127.0.0.1").place, object("b-1", "/k"));
        assert_eq!(call("GET", "/%E4%B8%AD%25", host).place, object("b-1", "\u{4e2d}%"));
        let headers = HeaderMap::new();
        let refused = Call::parse(Method::GET, &"/b-1/%ff".parse().unwrap(), headers).unwrap_err();
        assert_eq!(refused.code, "InvalidURI");
    }

    #[test]
    fn own_paths_are_reached_without_a_bucket_only() {
        let events = "/v2/p/sync-tasks/t/events";
        let oms = Place::Oms { project: "p".to_owned(), task: "t".to_owned() };
        assert_eq!(call("POST", events, "127.0.0.1:1").place, oms);
        assert_eq!(call("PUT", events, "b-1.cos.x.y").place, object("b-1", &events[1..]));
        assert_eq!(call("GET", "/_emulator/oms", "localhost").place, Place::Control("oms".to_owned()));
        assert_eq!(call("GET", "/_emulator/oms", "b-1.x").place, object("b-1", "_emulator/oms"));
        assert_eq!(
            call("POST", "/v2/p/sync-tasks/t/events/", "127.0.0.1").place,
            object("v2", "p/sync-tasks/t/events/")
        );
    }

    #[test]
    fn queries_decode_plus_and_percent() {
        let call = call("GET", "/?prefix=a+b%20c%2B&uploads&x=1=2", "b-1.x");
        assert_eq!(call.param("prefix"), Some("a b c+"));
        assert_eq!(call.param("uploads"), Some(""));
        assert_eq!(call.param("x"), Some("1=2"));
        assert_eq!(call.sub_resources(), ["uploads"]);
    }

    #[test]
    fn path_addressing_may_be_signed_both_ways() {
        assert_eq!(call("GET", "/b-1/k%20", "127.0.0.1").signed_paths, [b"/b-1/k ".to_vec(), b"/k ".to_vec()]);
        assert_eq!(call("GET", "/k", "b-1.x").signed_paths, [b"/k".to_vec()]);
    }
}
