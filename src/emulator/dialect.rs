//! Which store's protocol a request speaks; taken from the request itself.

use super::cos;
use super::exchange::Exchange;
use super::reply::Refusal;
use super::reply::Reply;
use super::reply::Stop;
use super::wire::Call;

/// A store's protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    /// Tencent COS.
    Cos,
    /// Alibaba OSS, recognised to be refused clearly.
    Oss,
    /// AWS SigV4, recognised to be refused clearly.
    S3,
}

impl Dialect {
    /// By the form of the signature; COS for what is unsigned.
    pub(super) fn of(call: &Call) -> Dialect {
        let authorization = call.header("authorization").unwrap_or_default();
        if authorization.starts_with("AWS4-") || call.has("X-Amz-Signature") {
            Dialect::S3
        } else if authorization.starts_with("OSS") || call.has("OSSAccessKeyId") || call.has("x-oss-signature") {
            Dialect::Oss
        } else {
            Dialect::Cos
        }
    }
}

/// Works on a request to a store.
pub(super) async fn answer(exchange: &mut Exchange) -> Result<Reply, Stop> {
    match Dialect::of(&exchange.call) {
        Dialect::Cos => cos::answer(exchange).await,
        Dialect::Oss | Dialect::S3 => {
            let message = "this emulator speaks the COS dialect only";
            Err(Refusal::new(501, "NotImplemented", message).into())
        }
    }
}
