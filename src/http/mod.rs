//! HTTP/1.1 as the clients of stores and of OMS need it.
//!
//! Promises that what a caller wrote is what goes over the wire, that every call ends, and that a
//! failure says whether the server can have seen the request. It signs nothing, repeats nothing,
//! follows no redirect and knows no provider.
//!
//! # Invariants
//! 1. A request target is sent verbatim: no dot segment, `//` or escape in it is normalised, since
//!    it is signed and names an object.
//! 2. An https request is never sent without TLS, and a certificate that does not verify is an
//!    error; there is no switch to turn this off.
//! 3. No proxy is used.
//! 4. A request that makes no progress for its `timeout` fails; [`Error::sent`] is false only if
//!    certainly no byte of it was written.
//! 5. A response body that ends early is an error, never a short success.

mod body;
mod client;
mod date;
mod endpoint;
mod error;
mod percent;

pub use body::Body;
pub use client::{Client, Options, Request, Response};
pub use date::{format_date, parse_date, parse_iso8601};
pub use endpoint::{Endpoint, EndpointError, Scheme};
pub use error::{Error, Kind};
pub use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
pub use hyper::{Method, StatusCode};
pub use percent::{decode, decode_form, encode, encode_path};
