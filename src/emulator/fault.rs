//! Faults to inject: which requests meet them, and what happens then. Pure but for the counters.

use std::sync::Mutex;
use std::sync::MutexGuard;

use serde::Deserialize;
use serde::Serialize;

/// Which requests meet a fault; what is `None` fits all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Match {
    /// `GET`, `PUT`...
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// The whole bucket name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bucket: Option<String>,
    /// A pattern for the whole key: `*` is any run of characters (slashes too), `?` any one. For
    /// OMS, one of the announced keys must fit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// One of [`RequestRecord::sub_resource`](super::RequestRecord::sub_resource).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sub_resource: Option<String>,
}

/// A half of the exchange.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// What the client sends.
    Request,
    /// What the emulator sends.
    #[default]
    Response,
}

/// What happens to a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "ActionJson", into = "ActionJson")]
pub enum Action {
    /// Refused, with this status and provider code; not applied. For `DELETE`, also of single keys of a
    /// delete of many. JSON
    /// `{"status": 503, "code": "SlowDown", "retry_after": 1}`.
    Status {
        /// HTTP status.
        status: u16,
        /// Code in the body.
        code: String,
        /// Header Retry-After, seconds.
        retry_after: Option<u64>,
    },
    /// The connection is cut after so many bytes of the body (fewer if they were still on their
    /// way). A request cut is not applied; a response cut is. JSON
    /// `{"cut_after": 1000, "side": "request"}`; the side is `response` unless given.
    Cut {
        /// Bytes of the body.
        after: u64,
        /// Whose body.
        side: Side,
    },
    /// One byte of the body is changed: of a request before it is summed and stored, of a response
    /// on its way out. JSON `{"corrupt": "request"}`.
    Corrupt(Side),
    /// Every CRC-64 told in headers is wrong. JSON `{"wrong_crc": true}`.
    WrongCrc,
    /// Copies and Complete: 200 with an error of this code as body; not applied. JSON
    /// `{"error_in_200": "InternalError"}`.
    ErrorIn200(String),
    /// Applied, then the connection is cut without an answer. JSON `{"apply_then_cut": true}`.
    ApplyThenCut,
    /// So many milliseconds pass first; for Complete they pass after the headers of the 200, with
    /// white space dripping. JSON `{"delay_ms": 500}`.
    Delay(u64),
}

#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct ActionJson {
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cut_after: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    side: Option<Side>,
    #[serde(skip_serializing_if = "Option::is_none")]
    corrupt: Option<Side>,
    #[serde(skip_serializing_if = "Option::is_none")]
    wrong_crc: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error_in_200: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    apply_then_cut: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    delay_ms: Option<u64>,
}

impl TryFrom<ActionJson> for Action {
    type Error = &'static str;

    fn try_from(json: ActionJson) -> Result<Action, &'static str> {
        if json.status.is_none() && (json.code.is_some() || json.retry_after.is_some()) {
            return Err("code and retry_after belong to status");
        }
        if json.cut_after.is_none() && json.side.is_some() {
            return Err("side belongs to cut_after");
        }
        if json.status.is_some_and(|status| !(200..600).contains(&status)) {
            return Err("status is from 200 to 599");
        }
        let side = json.side.unwrap_or_default();
        let code = json.code.unwrap_or_else(|| "InternalError".to_owned());
        let retry_after = json.retry_after;
        let named = [
            json.status.map(|status| Action::Status { status, code, retry_after }),
            json.cut_after.map(|after| Action::Cut { after, side }),
            json.corrupt.map(Action::Corrupt),
            json.wrong_crc.filter(|on| *on).map(|_| Action::WrongCrc),
            json.error_in_200.map(Action::ErrorIn200),
            json.apply_then_cut.filter(|on| *on).map(|_| Action::ApplyThenCut),
            json.delay_ms.map(Action::Delay),
        ];
        let mut named = named.into_iter().flatten();
        match (named.next(), named.next()) {
            (Some(action), None) => Ok(action),
            _ => Err("an action is exactly one of status, cut_after, corrupt, wrong_crc, error_in_200, \
                      apply_then_cut, delay_ms"),
        }
    }
}

impl From<Action> for ActionJson {
    fn from(action: Action) -> ActionJson {
        let mut json = ActionJson::default();
        match action {
            Action::Status { status, code, retry_after } => {
                json.status = Some(status);
                json.code = Some(code);
                json.retry_after = retry_after;
            }
            Action::Cut { after, side } => {
                json.cut_after = Some(after);
                json.side = Some(side);
            }
            Action::Corrupt(side) => json.corrupt = Some(side),
            Action::WrongCrc => json.wrong_crc = Some(true),
            Action::ErrorIn200(code) => json.error_in_200 = Some(code),
            Action::ApplyThenCut => json.apply_then_cut = Some(true),
            Action::Delay(ms) => json.delay_ms = Some(ms),
        }
        json
    }
}

fn one() -> u32 {
    1
}

/// A fault.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// Which requests.
    #[serde(rename = "match", default)]
    pub matching: Match,
    /// What happens to them.
    pub action: Action,
    /// So many of them, then never again.
    #[serde(default = "one")]
    pub count: u32,
    /// So many that match pass unharmed first.
    #[serde(default)]
    pub skip: u32,
    /// With `Status`, `ErrorIn200` and `ApplyThenCut`: the request is received, answered (or cut)
    /// at once, and applied so many milliseconds later all the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub apply_after_ms: Option<u64>,
}

impl Fault {
    /// That happens once to the requests that match.
    pub fn new(matching: Match, action: Action) -> Fault {
        Fault { matching, action, count: 1, skip: 0, apply_after_ms: None }
    }
}

/// What a fault is matched against.
pub(super) struct Subject<'a> {
    pub(super) method: &'a str,
    pub(super) bucket: &'a str,
    pub(super) keys: &'a [String],
    pub(super) sub_resources: &'a [&'static str],
}

/// The faults still to come, in the order they were added.
#[derive(Debug, Default)]
pub(super) struct Faults {
    waiting: Mutex<Vec<Fault>>,
}

impl Faults {
    fn lock(&self) -> MutexGuard<'_, Vec<Fault>> {
        self.waiting.lock().expect("invariant: nothing panics while it holds this lock")
    }

    pub(super) fn add(&self, fault: Fault) {
        self.lock().push(fault);
    }

    pub(super) fn clear(&self) {
        self.lock().clear();
    }

    pub(super) fn list(&self) -> Vec<Fault> {
        self.lock().clone()
    }

    /// The first fault that this request meets; uses it up by one.
    pub(super) fn take(&self, subject: &Subject<'_>) -> Option<Fault> {
        self.take_of(subject, |_| true)
    }

    /// With which code one key of a delete of many is refused: by a fault for DELETE with a status.
    pub(super) fn refusal(&self, bucket: &str, key: &str) -> Option<String> {
        let keys = [key.to_owned()];
        let subject = Subject { method: "DELETE", bucket, keys: &keys, sub_resources: &["object"] };
        let refuses = |fault: &Fault| fault.matching.method.is_some() && matches!(fault.action, Action::Status { .. });
        match self.take_of(&subject, refuses)?.action {
            Action::Status { code, .. } => Some(code),
            _ => None,
        }
    }

    fn take_of(&self, subject: &Subject<'_>, counts: impl Fn(&Fault) -> bool) -> Option<Fault> {
        let mut waiting = self.lock();
        let mut met = None;
        let meets = |fault: &&mut Fault| fault.count > 0 && fits(&fault.matching, subject) && counts(fault);
        for fault in waiting.iter_mut().filter(meets) {
            if fault.skip > 0 {
                fault.skip -= 1;
                continue;
            }
            fault.count -= 1;
            met = Some(fault.clone());
            break;
        }
        waiting.retain(|fault| fault.count > 0);
        met
    }
}

fn fits(matching: &Match, subject: &Subject<'_>) -> bool {
    matching.method.as_ref().is_none_or(|method| method.eq_ignore_ascii_case(subject.method))
        && matching.bucket.as_ref().is_none_or(|bucket| bucket == subject.bucket)
        && matching.sub_resource.as_ref().is_none_or(|name| subject.sub_resources.contains(&name.as_str()))
        && matching.key.as_ref().is_none_or(|glob| subject.keys.iter().any(|key| glob_fits(glob, key)))
}

/// `*` any run, `?` any one character.
fn glob_fits(glob: &str, text: &str) -> bool {
    let glob: Vec<char> = glob.chars().collect();
    let text: Vec<char> = text.chars().collect();
    let (mut at_glob, mut at_text) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while let Some(letter) = text.get(at_text) {
        match glob.get(at_glob) {
            Some('*') => {
                star = Some((at_glob, at_text));
                at_glob += 1;
            }
            Some(wanted) if *wanted == '?' || wanted == letter => {
                at_glob += 1;
                at_text += 1;
            }
            _ => {
                // The last star takes one character more.
                let Some((star_glob, star_text)) = star else { return false };
                star = Some((star_glob, star_text + 1));
                at_glob = star_glob + 1;
                at_text = star_text + 1;
            }
        }
    }
    glob.iter().skip(at_glob).all(|letter| *letter == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject<'a>(method: &'a str, keys: &'a [String], names: &'a [&'static str]) -> Subject<'a> {
        Subject { method, bucket: "b-1", keys, sub_resources: names }
    }

    #[test]
    fn globs() {
        for (glob, text, fit) in [
            ("*", "", true),
            ("data/*", "data/a/b", true),
            ("data/*", "date/a", false),
            ("*.tmp", "a.tmp.tmp", true),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("a*b*c", "axxbyyc", true),
            ("a*b*c", "axxcyyb", false),
            ("", "a", false),
        ] {
            assert_eq!(glob_fits(glob, text), fit, "{glob} {text}");
        }
    }

    #[test]
    fn faults_count_down_in_order() {
        let faults = Faults::default();
        let json =
            r#"{"match":{"method":"put","key":"data/*"},"action":{"status":503,"code":"SlowDown"},"count":2,"skip":1}"#;
        faults.add(serde_json::from_str(json).unwrap());
        let keys = ["data/x".to_owned()];
        assert!(faults.take(&subject("GET", &keys, &[])).is_none());
        let put = subject("PUT", &keys, &["object"]);
        assert!(faults.take(&put).is_none(), "the first is let through");
        for _ in 0..2 {
            let status = Action::Status { status: 503, code: "SlowDown".to_owned(), retry_after: None };
            assert_eq!(faults.take(&put).unwrap().action, status);
        }
        assert!(faults.take(&put).is_none());
        assert!(faults.list().is_empty());
    }

    #[test]
    fn single_keys_of_a_delete_of_many_are_refused_by_faults_for_delete_alone() {
        let faults = Faults::default();
        for (method, action) in [("DELETE", r#"{"delay_ms":9}"#), ("DELETE", r#"{"status":403,"code":"Denied"}"#)] {
            let json = format!(r#"{{"match":{{"method":"{method}","key":"d/*"}},"action":{action}}}"#);
            faults.add(serde_json::from_str(&json).unwrap());
        }
        faults.add(serde_json::from_str(r#"{"action":{"status":500}}"#).unwrap());
        assert_eq!(faults.refusal("b-1", "e/x"), None);
        assert_eq!(faults.refusal("b-1", "d/x").as_deref(), Some("Denied"));
        assert_eq!(faults.refusal("b-1", "d/x"), None);
        assert_eq!(faults.list().len(), 2);
    }

    #[test]
    fn actions_read_from_json() {
        let read = |json: &str| serde_json::from_str::<Action>(json);
        assert_eq!(read(r#"{"cut_after":7}"#).unwrap(), Action::Cut { after: 7, side: Side::Response });
        assert_eq!(read(r#"{"cut_after":7,"side":"request"}"#).unwrap(), Action::Cut { after: 7, side: Side::Request });
        assert_eq!(read(r#"{"corrupt":"request"}"#).unwrap(), Action::Corrupt(Side::Request));
        assert_eq!(read(r#"{"wrong_crc":true}"#).unwrap(), Action::WrongCrc);
        assert_eq!(read(r#"{"error_in_200":"X"}"#).unwrap(), Action::ErrorIn200("X".to_owned()));
        assert_eq!(read(r#"{"apply_then_cut":true}"#).unwrap(), Action::ApplyThenCut);
        assert_eq!(read(r#"{"delay_ms":3}"#).unwrap(), Action::Delay(3));
        for bad in [
            "{}",
            r#"{"wrong_crc":false}"#,
            r#"{"delay_ms":3,"wrong_crc":true}"#,
            r#"{"delay_ms":3,"side":"request"}"#,
            r#"{"explode":1}"#,
            r#"{"status":99}"#,
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
        let there = serde_json::to_string(&Action::Delay(3)).unwrap();
        assert_eq!(there, r#"{"delay_ms":3}"#);
    }
}
