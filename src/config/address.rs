//! Bucket URLs, endpoints and sync URLs, taken apart strictly.

use std::fmt;
use std::net::IpAddr;

use super::Provider;

/// What is wrong with an address, and what to do.
pub(super) struct Refusal {
    pub(super) message: String,
    pub(super) remedy: String,
}

fn refusal(message: impl Into<String>, remedy: impl Into<String>) -> Refusal {
    Refusal { message: message.into(), remedy: remedy.into() }
}

/// A bucket URL.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct BucketUrl {
    pub(super) provider: Provider,
    pub(super) bucket: String,
    pub(super) prefix: String,
}

/// How a bucket URL is written.
const BUCKET_USAGE: &str =
    "write it as cos://<bucket>-<appid>/<prefix>/, for example cos://examplebucket-1250000000/data/";

/// Longest prefix in bytes of UTF-8: COS keys end at 850 (PROTOCOL section 5), and a prefix that left
/// no room for a name would make every create fail.
const MAX_PREFIX_BYTES: usize = 512;

/// Takes `provider://bucket/prefix` apart. The prefix is taken literally (no percent-decoding) and
/// gets its closing `/`.
pub(super) fn parse_bucket_url(text: &str) -> Result<BucketUrl, Refusal> {
    let Some((scheme, rest)) = text.split_once("://") else {
        return Err(refusal(format!("`{text}` is not a bucket URL"), BUCKET_USAGE));
    };
    let provider = match scheme {
        "cos" => Provider::Cos,
        "oss" => Provider::Oss,
        "s3" => Provider::S3,
        _ => return Err(refusal(format!("`{scheme}` is no provider"), BUCKET_USAGE)),
    };
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    if bucket.contains('@') {
        // Not shown: what stands before the @ may be a secret.
        return Err(refusal("credentials in a URL are refused", "put them into the file or a credentials_file"));
    }
    if provider != Provider::Cos {
        return Err(refusal(
            format!("provider `{provider}` is not built yet"),
            "use a cos:// bucket; oss:// and s3:// come with a later version",
        ));
    }
    check_cos_bucket(bucket)?;
    let mut prefix = prefix.to_owned();
    if !prefix.is_empty() && !prefix.ends_with('/') {
        prefix.push('/');
    }
    check_prefix(&prefix)?;
    Ok(BucketUrl { provider, bucket: bucket.to_owned(), prefix })
}

/// PROTOCOL section 1: `<name>-<appid>`, lower-case letters, digits, `-`.
fn check_cos_bucket(bucket: &str) -> Result<(), Refusal> {
    let plain = bucket.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    let parts = bucket.rsplit_once('-').filter(|(name, appid)| {
        !name.is_empty() && !name.starts_with('-') && !appid.is_empty() && appid.bytes().all(|b| b.is_ascii_digit())
    });
    if plain && parts.is_some() {
        return Ok(());
    }
    Err(refusal(
        format!("`{bucket}` is not the full name of a COS bucket"),
        "write name and appid, lower case, as examplebucket-1250000000",
    ))
}

fn check_prefix(prefix: &str) -> Result<(), Refusal> {
    let body = prefix.strip_suffix('/').unwrap_or(prefix);
    if prefix == "/" || (!body.is_empty() && body.split('/').any(|part| matches!(part, "" | "." | ".."))) {
        return Err(refusal(
            format!("prefix `{prefix}` holds `//`, `.` or `..`, which no path can name"),
            "write a prefix of plain directory names, as data/ or a/b/",
        ));
    }
    if prefix.chars().any(char::is_control) {
        return Err(refusal("the prefix holds a control character", "write a prefix of printable characters"));
    }
    if prefix.len() > MAX_PREFIX_BYTES {
        return Err(refusal(
            format!("the prefix is {} bytes long", prefix.len()),
            format!("use one of at most {MAX_PREFIX_BYTES} bytes"),
        ));
    }
    Ok(())
}

/// `scheme://host[:port]`, the rest of a URL after it.
struct Authority<'a> {
    secure: bool,
    authority: &'a str,
    loopback: bool,
    rest: &'a str,
}

fn parse_http(text: &str) -> Option<Authority<'_>> {
    let (scheme, rest) = text.split_once("://")?;
    let secure = match scheme {
        "https" => true,
        "http" => false,
        _ => return None,
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, rest) = rest.split_at_checked(end)?;
    let (host, port) = match authority.strip_prefix('[') {
        Some(v6) => {
            let (host, after) = v6.split_once(']')?;
            host.parse::<std::net::Ipv6Addr>().ok()?;
            (host, if after.is_empty() { None } else { Some(after.strip_prefix(':')?) })
        }
        None => match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        },
    };
    if let Some(port) = port {
        port.parse::<u16>().ok().filter(|port| *port != 0)?;
    }
    let named = host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b':'));
    if host.is_empty() || !named {
        return None;
    }
    let loopback =
        host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    Some(Authority { secure, authority, loopback, rest })
}

/// Checks `http(s)://host[:port]` and drops a closing `/`.
pub(super) fn parse_endpoint(text: &str) -> Result<String, Refusal> {
    let usage = "write it as https://host or http://host:port, without bucket and path";
    if text.contains('@') {
        return Err(refusal("credentials in an endpoint are refused", usage));
    }
    let Some(url) = parse_http(text).filter(|url| matches!(url.rest, "" | "/")) else {
        return Err(refusal(format!("`{text}` is not an endpoint"), usage));
    };
    let scheme = if url.secure { "https" } else { "http" };
    Ok(format!("{scheme}://{}", url.authority))
}

/// The events URL of an OMS sync task.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SyncUrl {
    /// Whole, as requests use it: no closing slash, no query.
    pub url: String,
    /// Host, with a port if one is written.
    pub host: String,
    /// Project id.
    pub project: String,
    /// Sync task id.
    pub task: String,
}

impl fmt::Display for SyncUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.url)
    }
}

impl SyncUrl {
    /// Host, project and task: the target's identity in the journal (J4).
    pub fn identity(&self) -> String {
        format!("oms://{}/{}/{}", self.host, self.project, self.task)
    }
}

/// Takes a sync URL apart (PROTOCOL section 11, SYNC_URL): one closing `/` and a query are dropped; https
/// but for loopback.
pub(super) fn parse_sync_url(text: &str) -> Result<SyncUrl, Refusal> {
    let usage = "write it as https://oms.<region>.myhuaweicloud.com/v2/<project>/sync-tasks/<task>/events";
    if text.contains('@') {
        return Err(refusal("credentials in a sync URL are refused", usage));
    }
    let Some(url) = parse_http(text) else {
        return Err(refusal(format!("`{text}` is not the events URL of a sync task"), usage));
    };
    if !url.secure && !url.loopback {
        return Err(refusal("the sync URL is not https: the keys of your objects would travel in the clear", usage));
    }
    let path = url.rest.split(['?', '#']).next().unwrap_or_default();
    let path = path.strip_suffix('/').unwrap_or(path);
    let parts: Vec<&str> = path.split('/').collect();
    let id = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    match parts.as_slice() {
        ["", "v2", project, "sync-tasks", task, "events"] if id(project) && id(task) => {
            let scheme = if url.secure { "https" } else { "http" };
            Ok(SyncUrl {
                url: format!("{scheme}://{}{path}", url.authority),
                host: url.authority.to_owned(),
                project: (*project).to_owned(),
                task: (*task).to_owned(),
            })
        }
        _ => Err(refusal(format!("`{text}` is not the events URL of a sync task"), usage)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bucket_urls_come_apart() {
        let url = parse_bucket_url("cos://examplebucket-1250000000/data/x").ok().unwrap();
        assert_eq!((url.bucket.as_str(), url.prefix.as_str()), ("examplebucket-1250000000", "data/x/"));
        assert_eq!(parse_bucket_url("cos://a-1").ok().unwrap().prefix, "");
        assert_eq!(parse_bucket_url("cos://a-1/").ok().unwrap().prefix, "");
        for wrong in [
            "a-1/x",
            "ftp://a-1/",
            "cos://bucket/",
            "cos://-1/",
            "cos://A-1/",
            "cos://a-1//",
            "cos://a-1/x/../y",
            "cos://a-1/x//",
        ] {
            assert!(parse_bucket_url(wrong).is_err(), "{wrong}");
        }
        let told = parse_bucket_url("cos://id:hush@a-1/").err().unwrap();
        assert!(!told.message.contains("hush"));
    }

    #[test]
    fn endpoints_are_scheme_and_authority() {
        assert_eq!(parse_endpoint("http://127.0.0.1:9000/").ok().unwrap(), "http://127.0.0.1:9000");
        assert_eq!(parse_endpoint("https://[::1]:9").ok().unwrap(), "https://[::1]:9");
        for wrong in
            ["127.0.0.1:9000", "http://", "http://h/p", "http://h:x", "http://h:0", "http://h h", "http://[::1"]
        {
            assert!(parse_endpoint(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn sync_urls_come_apart() {
        let url =
            parse_sync_url("https://oms.cn-north-4.myhuaweicloud.com/v2/p1/sync-tasks/t-2/events/?x=1").ok().unwrap();
        assert_eq!(url.url, "https://oms.cn-north-4.myhuaweicloud.com/v2/p1/sync-tasks/t-2/events");
        assert_eq!(url.identity(), "oms://oms.cn-north-4.myhuaweicloud.com/p1/t-2");
        assert!(parse_sync_url("http://127.0.0.1:9/v2/p/sync-tasks/t/events").is_ok());
        for wrong in [
            "http://oms.example.com/v2/p/sync-tasks/t/events",
            "https://h/v2/p/sync-tasks//events",
            "https://h/v2/p/sync-tasks/t",
            "https://h/v2/p/sync-tasks/t/events//",
            "oms.example.com/v2/p/sync-tasks/t/events",
        ] {
            assert!(parse_sync_url(wrong).is_err(), "{wrong}");
        }
    }
}
