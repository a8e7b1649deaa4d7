use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;

use super::*;

/// Answers from fields.
#[derive(Default)]
struct Scripted {
    asked: Mutex<Vec<String>>,
    busy: bool,
}

impl Scripted {
    fn note(&self, what: String) {
        self.asked.lock().unwrap().push(what);
    }
}

impl Actions for Scripted {
    fn status(&self) -> BoxFuture<'_, Status> {
        let mapping = MappingStatus { path: "/".into(), url: "cos://a-1/\"x\"/".into(), ..Default::default() };
        async { Status { pid: 7, uploads_files: 3, mappings: vec![mapping], ..Default::default() } }.boxed()
    }

    fn pending(&self, path: Option<String>) -> BoxFuture<'_, std::result::Result<Pending, ActionError>> {
        self.note(format!("pending {path:?}"));
        async move {
            match path.as_deref() {
                Some("/absent") => Err(ActionError::NotFound("no /absent".into())),
                _ => Ok(Pending { records: 1, ..Default::default() }),
            }
        }
        .boxed()
    }

    fn umount(&self, timeout: Duration) -> BoxFuture<'_, std::result::Result<Pending, ActionError>> {
        self.note(format!("umount {timeout:?}"));
        let result = if self.busy { Err(ActionError::Busy("in use".into())) } else { Ok(Pending::default()) };
        async { result }.boxed()
    }

    fn outbox_list(&self, limit: usize) -> BoxFuture<'_, std::result::Result<Vec<OutboxEntry>, ActionError>> {
        self.note(format!("list {limit}"));
        async { Ok(vec![OutboxEntry { key: "k".into(), state: OutboxState::Failed, ..Default::default() }]) }.boxed()
    }

    fn held(&self) -> BoxFuture<'_, std::result::Result<Vec<HeldEntry>, ActionError>> {
        async { Ok(vec![HeldEntry { id: 7, generation: 3, path: "/h".into(), ..Default::default() }]) }.boxed()
    }

    fn settle_held(
        &self,
        id: u64,
        generation: u64,
        accept: bool,
    ) -> BoxFuture<'_, std::result::Result<(), ActionError>> {
        self.note(format!("settle {id} {generation} {accept}"));
        async move { if accept { Ok(()) } else { Err(ActionError::Busy("mapped".into())) } }.boxed()
    }

    fn odd_keys(&self) -> BoxFuture<'_, OddKeyList> {
        async { OddKeyList { objects: 3, count: 1, ..Default::default() } }.boxed()
    }

    fn refresh(&self, path: Option<String>) -> BoxFuture<'_, std::result::Result<u64, ActionError>> {
        self.note(format!("refresh {path:?}"));
        async { Ok(3) }.boxed()
    }

    fn cache_prune(&self) -> BoxFuture<'_, std::result::Result<CachePruned, ActionError>> {
        async { Ok(CachePruned { files: 2, bytes: 5 }) }.boxed()
    }

    fn cache_verify(&self) -> BoxFuture<'_, std::result::Result<CacheVerified, ActionError>> {
        let rotten = vec![RottenFile { path: "/a".into(), dropped: true }];
        async { Ok(CacheVerified { files: 2, rotten, ..Default::default() }) }.boxed()
    }

    fn outbox_reconcile(
        &self,
        path: Option<String>,
    ) -> BoxFuture<'_, std::result::Result<OutboxReconciled, ActionError>> {
        self.note(format!("reconcile {path:?}"));
        async { Ok(OutboxReconciled { objects: 9, owed: 2, pending: 1 }) }.boxed()
    }

    fn outbox_retry(&self) -> BoxFuture<'_, std::result::Result<u64, ActionError>> {
        async { Err(ActionError::Failed("disk".into())) }.boxed()
    }
}

struct Served {
    client: Client,
    actions: Arc<Scripted>,
    end: tokio::sync::oneshot::Sender<()>,
    task: tokio::task::JoinHandle<std::io::Result<()>>,
    socket: PathBuf,
}

fn serve(dir: &Path, actions: Scripted) -> Served {
    let server = Server::bind(dir).unwrap();
    let socket = server.path().to_owned();
    let client = Client::new(Address { pid: 1, socket: socket.clone(), mount: PathBuf::from("/mnt/demo") });
    let actions = Arc::new(actions);
    let (end, ended) = tokio::sync::oneshot::channel();
    let task = tokio::spawn(server.serve(actions.clone(), ended.map(|_| ())));
    Served { client, actions, end, task, socket }
}

async fn ask<T: Send + 'static>(client: &Client, question: impl FnOnce(Client) -> T + Send + 'static) -> T {
    let client = client.clone();
    tokio::task::spawn_blocking(move || question(client)).await.unwrap()
}

#[tokio::test]
async fn questions_reach_the_daemon_and_answers_come_back() {
    let dir = tempfile::tempdir().unwrap();
    // Longer than a socket address can be.
    let deep = dir.path().join("d".repeat(120));
    std::fs::create_dir(&deep).unwrap();
    let served = serve(&deep, Scripted::default());

    let status = ask(&served.client, |client| client.status()).await.unwrap();
    assert_eq!((status.pid, status.uploads_files), (7, 3));

    let pending = ask(&served.client, |client| client.pending(Some("/a b/\u{4e2d}&=%+"))).await.unwrap();
    assert!(!pending.is_settled() && !pending.is_stuck());
    let refused = ask(&served.client, |client| client.pending(Some("/absent"))).await.unwrap_err();
    assert!(matches!(refused, Error::Refused(ActionError::NotFound(message)) if message == "no /absent"));

    ask(&served.client, |client| client.umount(Duration::from_millis(1500))).await.unwrap();
    let listed = ask(&served.client, |client| client.refresh(Some("/a b"))).await.unwrap();
    assert_eq!(listed, 3);
    let pruned = ask(&served.client, |client| client.cache_prune()).await.unwrap();
    assert_eq!((pruned.files, pruned.bytes), (2, 5));
    let verified = ask(&served.client, |client| client.cache_verify()).await.unwrap();
    assert!(verified.files == 2 && verified.rotten[0].dropped && verified.rotten[0].path == "/a");
    let compared = ask(&served.client, |client| client.outbox_reconcile(Some("/d"))).await.unwrap();
    assert_eq!((compared.objects, compared.owed, compared.pending), (9, 2, 1));
    let list = ask(&served.client, |client| client.outbox_list(5)).await.unwrap();
    assert_eq!(list.first().map(|entry| entry.state), Some(OutboxState::Failed));
    let failed = ask(&served.client, |client| client.outbox_retry()).await.unwrap_err();
    assert!(matches!(failed, Error::Refused(ActionError::Failed(message)) if message == "disk"));

    let asked = served.actions.asked.lock().unwrap().clone();
    assert_eq!(
        asked,
        [
            "pending Some(\"/a b/\u{4e2d}&=%+\")",
            "pending Some(\"/absent\")",
            "umount 1.5s",
            "refresh Some(\"/a b\")",
            "reconcile Some(\"/d\")",
            "list 5"
        ]
    );

    served.end.send(()).unwrap();
    served.task.await.unwrap().unwrap();
    assert!(!served.socket.exists());
    let dead = ask(&served.client, |client| client.status()).await.unwrap_err();
    assert!(matches!(dead, Error::Dead { pid: 1, .. }), "{dead:?}");
    assert!(dead.to_string().contains("ferryfs umount /mnt/demo"), "{dead}");
}

#[tokio::test]
async fn a_busy_mount_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let served = serve(dir.path(), Scripted { busy: true, ..Default::default() });
    let busy = ask(&served.client, |client| client.umount(Duration::ZERO)).await.unwrap_err();
    assert!(matches!(busy, Error::Refused(ActionError::Busy(message)) if message == "in use"));
}

#[tokio::test]
async fn the_socket_is_its_owners_alone_and_replaces_a_dead_one() {
    let dir = tempfile::tempdir().unwrap();
    let first = Server::bind(dir.path()).unwrap();
    let mode = std::fs::metadata(first.path()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    // Dropped without serving, as by SIGKILL: the file stays and nobody answers.
    let client = Client::new(Address { pid: 9, socket: first.path().to_owned(), mount: "/m".into() });
    drop(first);
    assert!(matches!(client.status(), Err(Error::Dead { pid: 9, .. })));
    let served = serve(dir.path(), Scripted::default());
    assert_eq!(ask(&served.client, |client| client.status()).await.unwrap().pid, 7);
}

#[tokio::test]
async fn metrics_are_prometheus_text() {
    let mut status = Scripted::default().status().await;
    status.requests = [("getattr".to_owned(), 5), ("lookup".to_owned(), 6)].into();
    let text = metrics::render(&status);
    let requests = "# TYPE ferryfs_requests_total counter\nferryfs_requests_total{operation=\"getattr\"} 5\n\
                    ferryfs_requests_total{operation=\"lookup\"} 6\n";
    assert!(text.contains(requests), "{text}");
    assert!(text.contains("# TYPE ferryfs_uploads_files gauge\nferryfs_uploads_files 3\n"), "{text}");
    assert!(text.contains("# TYPE ferryfs_puts_total counter\nferryfs_puts_total 0\n"), "{text}");
    assert!(text.contains("ferryfs_mapping_online{path=\"/\",url=\"cos://a-1/\\\"x\\\"/\"} 0\n"), "{text}");
}

#[test]
fn pending_tells_waiting_from_stuck() {
    assert!(Pending::default().is_settled());
    let stuck = Pending { stuck_count: 1, ..Default::default() };
    assert!(stuck.is_stuck() && !stuck.is_settled());
    let both = Pending { stuck_count: 1, announcements: 1, ..Default::default() };
    assert!(!both.is_stuck() && !both.is_settled());
}
