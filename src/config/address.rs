//! Bucket URLs, taken apart strictly, and what is refused in endpoints and sync URLs.

use super::Provider;
use crate::http::Endpoint;
use crate::oms::SyncUrl;

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

/// Checks `http(s)://host[:port]`.
pub(super) fn parse_endpoint(text: &str) -> Result<Endpoint, Refusal> {
    let usage = "write it as https://host or http://host:port, without bucket and path";
    if text.contains('@') {
        return Err(refusal("credentials in an endpoint are refused", usage));
    }
    text.parse().map_err(|error| refusal(format!("the endpoint {error}"), usage))
}

/// Takes a sync URL apart (PROTOCOL section 11, SYNC_URL).
pub(super) fn parse_sync_url(text: &str) -> Result<SyncUrl, Refusal> {
    let usage = "write it as https://oms.<region>.myhuaweicloud.com/v2/<project>/sync-tasks/<task>/events";
    text.parse().map_err(|error: crate::oms::Error| refusal(error.to_string(), usage))
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
        assert_eq!(parse_endpoint("http://127.0.0.1:9000/").ok().unwrap().to_string(), "http://127.0.0.1:9000");
        for wrong in ["127.0.0.1:9000", "http://", "http://h/p", "http://h:x", "http://h h"] {
            assert!(parse_endpoint(wrong).is_err(), "{wrong}");
        }
        assert!(!parse_endpoint("http://id:hush@h").err().unwrap().message.contains("hush"));
    }
}
