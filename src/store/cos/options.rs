//! Settings of a COS client, and where they lead its requests.

use std::time::Duration;

use crate::http::{self, Endpoint, encode_path};
use crate::store::RetryOptions;
use crate::store::credentials::CredentialsSource;

/// Where the bucket's name stands in a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Addressing {
    /// In the host: `<bucket>.<endpoint>`. The only one that COS itself serves.
    #[default]
    Virtual,
    /// In the path: `<endpoint>/<bucket>/<key>`, for emulators. The path is signed as it is sent.
    Path,
}

/// Settings of a COS client.
#[derive(Clone, Debug)]
pub struct CosOptions {
    /// Bucket with its appid: `examplebucket-1250000000`.
    pub bucket: String,
    /// Region: `ap-guangzhou`.
    pub region: String,
    /// `http(s)://host[:port]`; `None` for `https://cos.<region>.myqcloud.com`. With virtual
    /// addressing the bucket is put before the host, unless the host begins with it or is an IP
    /// address: that is connected to, and the Host header names the bucket's own host.
    pub endpoint: Option<String>,
    /// Where the bucket's name stands.
    pub addressing: Addressing,
    /// Who signs: `Credentials::new(..).into()`.
    pub credentials: CredentialsSource,
    /// Bounds of the repeats within one call.
    pub retry: RetryOptions,
    /// Longest wait for a connection.
    pub connect_timeout: Duration,
    /// Longest time without progress of a request.
    pub request_timeout: Duration,
    /// The same for Complete and copies, which COS works on before it answers (PROTOCOL section 4;
    /// its SDK waits 1200 s).
    pub slow_timeout: Duration,
}

impl CosOptions {
    /// The usual settings for a bucket.
    pub fn new(bucket: &str, region: &str, credentials: CredentialsSource) -> Self {
        CosOptions {
            bucket: bucket.to_owned(),
            region: region.to_owned(),
            endpoint: None,
            addressing: Addressing::Virtual,
            credentials,
            retry: RetryOptions::default(),
            connect_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(60),
            slow_timeout: Duration::from_secs(600),
        }
    }
}

/// Where the requests for a bucket go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Scheme, and authority to connect to.
    pub(super) server: Endpoint,
    /// Host header.
    pub(super) host: String,
    /// The host as it is signed: without the port, as the vendor's SDK signs it.
    pub(super) signed_host: String,
    /// What the path begins with: `/`, or `/bucket/`.
    path: String,
    /// What a copy source begins with: the bucket's own host and `/`.
    copy_host: String,
}

impl Place {
    /// Works it out of the settings.
    ///
    /// # Errors
    /// Which setting is wrong, and how to write it.
    pub(super) fn of(options: &CosOptions) -> Result<Place, String> {
        let bucket = &options.bucket;
        let label = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        let appid = bucket.rsplit_once('-').map_or("", |(_, appid)| appid);
        if !bucket.bytes().all(label) || bucket.starts_with('-') || bucket.len() > 63 {
            return Err(format!("`{bucket}` is no bucket name: lower-case letters, digits and `-` only"));
        }
        if appid.is_empty() || !appid.bytes().all(|b| b.is_ascii_digit()) {
            return Err(format!("the bucket name `{bucket}` does not end in its appid, as examplebucket-1250000000"));
        }
        if options.region.is_empty() || !options.region.bytes().all(label) {
            return Err(format!("`{}` is no region: write one as ap-guangzhou", options.region));
        }
        let own_host = format!("{bucket}.cos.{}.myqcloud.com", options.region);
        let default = format!("https://cos.{}.myqcloud.com", options.region);
        let text = options.endpoint.as_deref().unwrap_or(&default);
        let endpoint: Endpoint = text.parse().map_err(|error: http::EndpointError| format!("the endpoint {error}"))?;
        let mut server = endpoint.clone();
        let (host, path) = match options.addressing {
            Addressing::Path => (endpoint.authority.clone(), format!("/{bucket}/")),
            Addressing::Virtual if is_address(&endpoint) => (own_host.clone(), "/".to_owned()),
            Addressing::Virtual => {
                if !endpoint.authority.starts_with(&format!("{bucket}.")) {
                    server.authority = format!("{bucket}.{}", endpoint.authority);
                }
                (server.authority.clone(), "/".to_owned())
            }
        };
        let signed_host = Endpoint { scheme: server.scheme, authority: host.clone() }.host().to_owned();
        Ok(Place { server, host, signed_host, path, copy_host: format!("{own_host}/") })
    }

    /// The path of a key (or, for an empty one, of the bucket), decoded: the form that is signed.
    pub(super) fn path(&self, key: &str) -> String {
        format!("{}{key}", self.path)
    }

    /// The value of `x-cos-copy-source` for a key of this bucket.
    pub(super) fn copy_source(&self, key: &str, version_id: Option<&str>) -> String {
        let version = version_id.map(|id| format!("?versionId={}", http::encode(id))).unwrap_or_default();
        format!("{}{}{version}", self.copy_host, encode_path(key))
    }
}

fn is_address(endpoint: &Endpoint) -> bool {
    let host = endpoint.host().trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok()
}

/// A path as it goes into the request line. The slash of `./` is escaped, so that nothing between
/// here and the store takes dots for directories (what the vendor's SDK does).
pub(super) fn encode_object_path(path: &str) -> String {
    encode_path(path).replace("./", ".%2F")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::credentials::Credentials;

    fn options() -> CosOptions {
        let credentials = Credentials::new("id", "key", None);
        CosOptions::new("examplebucket-1250000000", "ap-guangzhou", credentials.into())
    }

    #[test]
    fn the_default_is_the_regions_own_host_over_https() {
        let place = Place::of(&options()).unwrap();
        assert_eq!(place.server.to_string(), "https://examplebucket-1250000000.cos.ap-guangzhou.myqcloud.com");
        assert_eq!(place.host, "examplebucket-1250000000.cos.ap-guangzhou.myqcloud.com");
        assert_eq!(place.path("a b"), "/a b");
        let source = place.copy_source("src key/\u{4e2d}.bin", Some("v/1"));
        assert_eq!(
            source,
            "examplebucket-1250000000.cos.ap-guangzhou.myqcloud.com/src%20key/%E4%B8%AD.bin?versionId=v%2F1"
        );
    }

    #[test]
    fn endpoints_of_ones_own() {
        let place = |endpoint: &str, addressing| {
            Place::of(&CosOptions { endpoint: Some(endpoint.to_owned()), addressing, ..options() }).unwrap()
        };
        let path = place("http://127.0.0.1:9000", Addressing::Path);
        assert_eq!((path.host.as_str(), path.signed_host.as_str()), ("127.0.0.1:9000", "127.0.0.1"));
        assert_eq!(path.path("k"), "/examplebucket-1250000000/k");
        let address = place("http://127.0.0.1:9000", Addressing::Virtual);
        assert_eq!(address.server.to_string(), "http://127.0.0.1:9000");
        assert_eq!(address.host, "examplebucket-1250000000.cos.ap-guangzhou.myqcloud.com");
        let named = place("http://cos.local.test:9000", Addressing::Virtual);
        assert_eq!(named.server.to_string(), "http://examplebucket-1250000000.cos.local.test:9000");
        assert_eq!(named.signed_host, "examplebucket-1250000000.cos.local.test");
        let whole = "https://examplebucket-1250000000.cos-internal.ap-guangzhou.tencentcos.cn";
        assert_eq!(place(whole, Addressing::Virtual).server.to_string(), whole);
    }

    #[test]
    fn wrong_settings_are_named() {
        let with = |change: fn(&mut CosOptions)| {
            let mut options = options();
            change(&mut options);
            Place::of(&options).unwrap_err()
        };
        assert!(with(|o| o.bucket = "Bad_Bucket-1".to_owned()).contains("Bad_Bucket-1"));
        assert!(with(|o| o.bucket = "noappid".to_owned()).contains("appid"));
        assert!(with(|o| o.region = String::new()).contains("region"));
        assert!(with(|o| o.endpoint = Some("cos.example.com".to_owned())).contains("https://"));
    }

    #[test]
    fn dots_are_guarded_in_request_lines() {
        assert_eq!(encode_object_path("/a/./b/../c.txt"), "/a/.%2Fb/..%2Fc.txt");
        assert_eq!(encode_object_path("/./x"), "/.%2Fx");
    }
}
