//! The daemon's side of the socket.

use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};

use super::error::ActionError;
use super::status::{Refreshed, Retried, Settled, Unmounted};
use super::{Actions, metrics, socket};

/// The socket's name in the state directory.
const SOCKET_NAME: &str = "control.sock";

/// Entries that one outbox listing holds unless asked otherwise.
const DEFAULT_OUTBOX_LIMIT: usize = 1000;

/// A bound socket. Clients can connect at once; they are answered from [`Server::serve`] on.
#[derive(Debug)]
pub struct Server {
    listener: std::os::unix::net::UnixListener,
    path: PathBuf,
}

/// What a refusal carries.
#[derive(Serialize, Deserialize)]
pub(super) struct Refusal {
    pub(super) error: String,
}

#[derive(Deserialize)]
struct PathQuery {
    path: Option<String>,
}

#[derive(Deserialize)]
struct UmountQuery {
    timeout_ms: u64,
}

#[derive(Deserialize)]
struct OutboxQuery {
    limit: Option<usize>,
}

#[derive(Deserialize)]
struct HeldQuery {
    id: u64,
    generation: u64,
}

type Shared = State<Arc<dyn Actions>>;

impl Server {
    /// Binds `control.sock` in the state directory, whose lock the caller holds.
    ///
    /// # Errors
    /// As bind(2).
    pub fn bind(state_dir: &Path) -> io::Result<Server> {
        let path = state_dir.join(SOCKET_NAME);
        Ok(Server { listener: socket::listen(&path)?, path })
    }

    /// Where it listens: what [`super::register`] must tell.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Answers until `end`, then finishes the answers under way and removes the socket.
    ///
    /// # Errors
    /// As accept(2).
    pub async fn serve(
        self,
        actions: Arc<dyn Actions>,
        end: impl Future<Output = ()> + Send + 'static,
    ) -> io::Result<()> {
        let listener = tokio::net::UnixListener::from_std(self.listener)?;
        let served = axum::serve(listener, router(actions)).with_graceful_shutdown(end).await;
        match std::fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => served.and(Err(error)),
            _ => served,
        }
    }
}

fn router(actions: Arc<dyn Actions>) -> Router {
    Router::new()
        .route("/status", get(|State(actions): Shared| async move { Json(actions.status().await) }))
        .route("/metrics", get(metrics_text))
        .route("/pending", get(pending))
        .route("/refresh", post(refresh))
        .route("/cache/prune", post(|State(actions): Shared| async move { answer(actions.cache_prune().await) }))
        .route("/cache/verify", post(|State(actions): Shared| async move { answer(actions.cache_verify().await) }))
        .route("/umount", post(umount))
        .route("/outbox", get(outbox))
        .route("/outbox/retry", post(retry))
        .route("/outbox/reconcile", post(reconcile))
        .route("/held", get(|State(actions): Shared| async move { answer(actions.held().await) }))
        .route("/odd-keys", get(|State(actions): Shared| async move { Json(actions.odd_keys().await) }))
        .route("/held/accept", post(accept))
        .route("/held/discard", post(discard))
        .with_state(actions)
}

async fn metrics_text(State(actions): Shared) -> impl IntoResponse {
    // The version is part of the text format's content type.
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], metrics::render(&actions.status().await))
}

async fn pending(State(actions): Shared, Query(query): Query<PathQuery>) -> Response {
    answer(actions.pending(query.path).await)
}

async fn refresh(State(actions): Shared, Query(query): Query<PathQuery>) -> Response {
    answer(actions.refresh(query.path).await.map(|directories| Refreshed { directories }))
}

async fn umount(State(actions): Shared, Query(query): Query<UmountQuery>) -> Response {
    answer(actions.umount(Duration::from_millis(query.timeout_ms)).await.map(|left| Unmounted { left }))
}

async fn outbox(State(actions): Shared, Query(query): Query<OutboxQuery>) -> Response {
    answer(actions.outbox_list(query.limit.unwrap_or(DEFAULT_OUTBOX_LIMIT)).await)
}

async fn retry(State(actions): Shared) -> Response {
    answer(actions.outbox_retry().await.map(|count| Retried { count }))
}

async fn reconcile(State(actions): Shared, Query(query): Query<PathQuery>) -> Response {
    answer(actions.outbox_reconcile(query.path).await)
}

async fn accept(State(actions): Shared, Query(query): Query<HeldQuery>) -> Response {
    answer(actions.settle_held(query.id, query.generation, true).await.map(|()| Settled {}))
}

async fn discard(State(actions): Shared, Query(query): Query<HeldQuery>) -> Response {
    answer(actions.settle_held(query.id, query.generation, false).await.map(|()| Settled {}))
}

fn answer<T: Serialize>(result: Result<T, ActionError>) -> Response {
    match result {
        Ok(value) => Json(value).into_response(),
        Err(error) => (status_of(&error), Json(Refusal { error: error.message().to_owned() })).into_response(),
    }
}

fn status_of(error: &ActionError) -> StatusCode {
    match error {
        ActionError::NotFound(_) => StatusCode::NOT_FOUND,
        ActionError::Busy(_) => StatusCode::CONFLICT,
        ActionError::Failed(_) => StatusCode::INTERNAL_SERVER_ERROR,
    }
}
