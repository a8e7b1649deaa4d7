//! The address of a sync task: `https://host/v2/<project>/sync-tasks/<task>/events`.

use std::fmt;
use std::str::FromStr;

use crate::http::{Endpoint, Scheme};

use super::error::Error;

/// What every address must look like.
const SHAPE: &str = "it must be https://<host>/v2/<project>/sync-tasks/<task>/events";

/// A parsed address. Its text form has no trailing slash and no query: it names the target in the
/// journal, so two spellings of one task are one target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyncUrl {
    endpoint: Endpoint,
    project: String,
    task: String,
}

impl SyncUrl {
    /// The server.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// The project's id.
    pub fn project(&self) -> &str {
        &self.project
    }

    /// The sync task's id: log records carry it.
    pub fn task(&self) -> &str {
        &self.task
    }

    /// The path to post to.
    pub fn path(&self) -> String {
        format!("/v2/{}/sync-tasks/{}/events", self.project, self.task)
    }
}

impl fmt::Display for SyncUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.endpoint, self.path())
    }
}

impl FromStr for SyncUrl {
    type Err = Error;

    /// One trailing `/` and a query are dropped.
    ///
    /// # Errors
    /// [`Error::Url`], with what is wanted instead.
    fn from_str(text: &str) -> Result<Self, Error> {
        let bare = text.trim().split(['?', '#']).next().unwrap_or_default();
        if bare.contains('@') {
            // What stands before the `@` may be a password: it is not repeated.
            let url = bare.rsplit('@').next().unwrap_or_default().to_owned();
            let reason = "credentials do not belong into it: use access_key and secret_key".to_owned();
            return Err(Error::Url { url, reason });
        }
        let refuse = |reason: &str| Error::Url { url: bare.to_owned(), reason: reason.to_owned() };
        let (scheme, rest) = bare.split_once("://").ok_or_else(|| refuse("write it with its scheme, https://"))?;
        let (authority, path) = rest.split_once('/').ok_or_else(|| refuse(SHAPE))?;
        let endpoint: Endpoint =
            format!("{scheme}://{authority}").parse().map_err(|error| refuse(&format!("its server {error}")))?;
        if endpoint.scheme == Scheme::Http && !endpoint.is_loopback() {
            return Err(refuse("plain http is for loopback only: use https"));
        }
        let path = path.strip_suffix('/').unwrap_or(path);
        let segments: Vec<&str> = path.split('/').collect();
        let ["v2", project, "sync-tasks", task, "events"] = segments.as_slice() else {
            return Err(refuse(SHAPE));
        };
        if !is_id(project) || !is_id(task) {
            return Err(refuse("project and task are ids of letters, digits, `-`, `_` and `.`"));
        }
        Ok(SyncUrl { endpoint, project: (*project).to_owned(), task: (*task).to_owned() })
    }
}

/// Ids become parts of object keys: nothing that would need encoding, nor a dot segment.
fn is_id(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
        && !text.bytes().all(|byte| byte == b'.')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<SyncUrl, Error> {
        text.parse()
    }

    #[test]
    fn takes_the_documented_address() {
        let url = parse("https://OMS.cn-north-4.myhuaweicloud.com/v2/0123abcd/sync-tasks/31e9-77/events").unwrap();
        assert_eq!(url.project(), "0123abcd");
        assert_eq!(url.task(), "31e9-77");
        assert_eq!(url.endpoint().authority, "oms.cn-north-4.myhuaweicloud.com");
        assert_eq!(url.path(), "/v2/0123abcd/sync-tasks/31e9-77/events");
        assert_eq!(url.to_string(), "https://oms.cn-north-4.myhuaweicloud.com/v2/0123abcd/sync-tasks/31e9-77/events");
    }

    #[test]
    fn one_trailing_slash_and_a_query_do_not_change_the_task() {
        let plain = parse("https://h/v2/p/sync-tasks/t/events").unwrap();
        assert_eq!(parse("https://h/v2/p/sync-tasks/t/events/").unwrap(), plain);
        assert_eq!(parse(" https://h/v2/p/sync-tasks/t/events?x=/y/ ").unwrap(), plain);
        assert!(parse("https://h/v2/p/sync-tasks/t/events//").is_err());
    }

    #[test]
    fn plain_http_is_for_loopback_only() {
        for host in ["127.0.0.1:8081", "localhost:1", "[::1]:8080", "127.9.9.9"] {
            let url = parse(&format!("http://{host}/v2/p/sync-tasks/t/events")).unwrap();
            assert_eq!(url.endpoint().authority, host);
        }
        for host in ["oms.example.com", "10.0.0.1", "127.0.0.1.example.com", "localhost.example.com"] {
            assert!(parse(&format!("http://{host}/v2/p/sync-tasks/t/events")).is_err(), "{host}");
        }
    }

    #[test]
    fn refuses_what_is_not_a_sync_task() {
        for text in [
            "",
            "oms.example.com/v2/p/sync-tasks/t/events",
            "ftp://h/v2/p/sync-tasks/t/events",
            "https://h",
            "https://h/v2/p/sync-tasks/t",
            "https://h/v2/p/sync-tasks//events",
            "https://h/v2//sync-tasks/t/events",
            "https://h/p/sync-tasks/t/events",
            "https://h/v2/p/tasks/t/events",
            "https://h/x/v2/p/sync-tasks/t/events",
            "https://h/v2/p/sync-tasks/../events",
            "https://h/v2/p/sync-tasks/a%2Fb/events",
            "https:///v2/p/sync-tasks/t/events",
            "https://h:0/v2/p/sync-tasks/t/events",
            "https://h x/v2/p/sync-tasks/t/events",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_password_in_the_address_is_refused_and_not_repeated() {
        let error = parse("https://me:geheim@h/v2/p/sync-tasks/t/events").unwrap_err().to_string();
        assert!(!error.contains("geheim"), "{error}");
    }
}
