//! Runs the futures of requests: once at the dispatch thread, then as tasks.

use std::any::Any;
use std::collections::BTreeMap;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll, Waker};

use futures::FutureExt;
use tokio::runtime::Handle;

use crate::fuse::callers::{Callers, Entered};
use crate::task::Interrupt;

/// A request that no thread waits for, or that is not to end sooner because one is killed.
pub(super) const NOBODY: u32 = 0;

/// Runs requests and knows how many are under way; cheap to clone.
#[derive(Clone)]
pub(super) struct Requests {
    runtime: Handle,
    state: Arc<State>,
}

struct State {
    /// Requests that have no reply yet. Taken for an increment; no other lock is taken under it.
    running: Mutex<usize>,
    /// Requests so far, by operation. As `running`.
    served: Mutex<BTreeMap<&'static str, u64>>,
    /// Told when `running` falls to 0.
    idle: Condvar,
    /// Who waits for an answer.
    callers: Callers,
    /// What the first panic said.
    failure: OnceLock<String>,
    /// Ends the mount after a panic.
    stop: Box<dyn Fn() + Send + Sync>,
}

/// One request under way.
struct Running(Arc<State>);

impl Drop for Running {
    fn drop(&mut self) {
        let mut running = self.0.running.lock().unwrap_or_else(PoisonError::into_inner);
        *running = running.saturating_sub(1);
        if *running == 0 {
            self.0.idle.notify_all();
        }
    }
}

impl Requests {
    /// Tasks go to `runtime`; `stop` is called once, at the first panic, and must not wait.
    pub(super) fn new(runtime: Handle, stop: Box<dyn Fn() + Send + Sync>) -> Self {
        let state = State {
            running: Mutex::new(0),
            served: Mutex::default(),
            idle: Condvar::new(),
            callers: Callers::default(),
            failure: OnceLock::new(),
            stop,
        };
        Requests { runtime, state: Arc::new(state) }
    }

    /// Runs a request of the thread `tid` to its end. Returns after one poll: what is pending then has not
    /// yet taken a waker that anybody heeds, so it goes on as a task, whose first poll brings the real one.
    /// If the thread is killed meanwhile, the request learns it (`task::interruptible`).
    pub(super) fn serve(&self, operation: &'static str, tid: u32, request: impl Future<Output = ()> + Send + 'static) {
        self.count(operation);
        *self.state.running.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        let running = Running(self.state.clone());
        let interrupt = Interrupt::new();
        let request = interrupt.clone().scope(request);
        let mut request = Box::pin(
            AssertUnwindSafe(async move {
                let _running = running;
                request.await;
            })
            .catch_unwind(),
        );
        let _runtime = self.runtime.enter();
        match request.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(panic)) => self.panicked(operation, panic.as_ref()),
            Poll::Pending => {
                let requests = self.clone();
                let entered = (tid != NOBODY).then(|| self.watched(tid, interrupt));
                // Nobody needs the task's handle: `running` counts it until it ends, and a panic is
                // caught inside.
                self.runtime.spawn(async move {
                    if let Err(panic) = request.await {
                        requests.panicked(operation, panic.as_ref());
                    }
                    drop(entered);
                });
            }
        }
    }

    fn watched(&self, tid: u32, interrupt: Interrupt) -> Entered {
        let (entered, first) = self.state.callers.enter(tid, interrupt);
        if first {
            let requests = self.clone();
            // It ends by itself when nobody waits any more.
            self.runtime.spawn(async move {
                let watching = requests.state.callers.clone().watch();
                if let Err(panic) = AssertUnwindSafe(watching).catch_unwind().await {
                    requests.panicked("watch of callers", panic.as_ref());
                }
            });
        }
        entered
    }

    /// Makes a call that has no reply and does not wait, within the runtime.
    pub(super) fn call(&self, operation: &'static str, request: impl FnOnce()) {
        self.count(operation);
        let _runtime = self.runtime.enter();
        if let Err(panic) = catch_unwind(AssertUnwindSafe(request)) {
            self.panicked(operation, panic.as_ref());
        }
    }

    fn count(&self, operation: &'static str) {
        *self.state.served.lock().unwrap_or_else(PoisonError::into_inner).entry(operation).or_default() += 1;
    }

    /// Requests since the mount, by operation.
    pub(super) fn served(&self) -> BTreeMap<&'static str, u64> {
        self.state.served.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What the first panic said, if there was one.
    pub(super) fn failure(&self) -> Option<&str> {
        self.state.failure.get().map(String::as_str)
    }

    /// Blocks until every request that was begun has ended.
    pub(super) fn wait_idle(&self) {
        let running = self.state.running.lock().unwrap_or_else(PoisonError::into_inner);
        let idle = self.state.idle.wait_while(running, |running| *running > 0);
        drop(idle.unwrap_or_else(PoisonError::into_inner));
    }

    fn panicked(&self, operation: &'static str, panic: &(dyn Any + Send)) {
        let text = panic_text(panic);
        tracing::error!(operation, text, "a request panicked; the mount is stopped");
        if self.state.failure.set(format!("a {operation} request panicked: {text}")).is_ok() {
            (self.state.stop)();
        }
    }
}

/// What a panic said.
pub(super) fn panic_text(panic: &(dyn Any + Send)) -> &str {
    if let Some(text) = panic.downcast_ref::<&str>() {
        text
    } else if let Some(text) = panic.downcast_ref::<String>() {
        text
    } else {
        "no message"
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;

    use tokio::sync::oneshot;

    use super::*;

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
    }

    #[test]
    fn what_is_ready_runs_on_the_dispatch_thread() {
        let runtime = runtime();
        let requests = Requests::new(runtime.handle().clone(), Box::new(|| {}));
        let (tell, told) = std::sync::mpsc::channel();
        requests.serve("test", NOBODY, async move { tell.send(thread::current().id()).unwrap() });
        assert_eq!(told.try_recv().unwrap(), thread::current().id());
        requests.wait_idle();
        assert_eq!(requests.served(), BTreeMap::from([("test", 1)]));
    }

    #[test]
    fn what_is_pending_goes_on_as_a_task() {
        let runtime = runtime();
        let requests = Requests::new(runtime.handle().clone(), Box::new(|| {}));
        let (go, wait) = oneshot::channel();
        let (tell, told) = std::sync::mpsc::channel();
        requests.serve("test", NOBODY, async move {
            wait.await.unwrap();
            tell.send(thread::current().id()).unwrap();
        });
        assert!(told.try_recv().is_err());
        go.send(()).unwrap();
        assert_ne!(told.recv().unwrap(), thread::current().id());
        requests.wait_idle();
    }

    #[test]
    fn a_call_may_spawn_and_its_panic_does_not_reach_the_dispatch_thread() {
        let runtime = runtime();
        let requests = Requests::new(runtime.handle().clone(), Box::new(|| {}));
        let (tell, told) = std::sync::mpsc::channel();
        requests.call("forget", || {
            tokio::spawn(async move { tell.send(()).unwrap() });
        });
        told.recv().unwrap();
        requests.call("forget", || panic!("of a call"));
        assert_eq!(requests.failure(), Some("a forget request panicked: of a call"));
    }

    #[test]
    fn a_panic_stops_the_mount_once_and_is_remembered() {
        let runtime = runtime();
        let stops = Arc::new(AtomicUsize::new(0));
        let counted = stops.clone();
        let stop = move || {
            counted.fetch_add(1, Ordering::SeqCst);
        };
        let requests = Requests::new(runtime.handle().clone(), Box::new(stop));
        requests.serve("first", NOBODY, async { panic!("of {}", "one") });
        requests.serve("second", NOBODY, async {
            tokio::task::yield_now().await;
            panic!("of another");
        });
        requests.wait_idle();
        // The second's count falls before its panic is handled, so wait for its task by the runtime.
        drop(runtime);
        assert_eq!(requests.failure(), Some("a first request panicked: of one"));
        assert_eq!(stops.load(Ordering::SeqCst), 1);
    }
}
