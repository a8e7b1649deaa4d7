//! `ferryfs emulator`

use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use super::Failure;
use super::args::EmulatorArgs;
use super::output::print;
use crate::emulator::{Emulator, Options};

pub(super) fn run(args: EmulatorArgs) -> Result<(), Failure> {
    let failed = |error: &dyn std::fmt::Display| Failure::failed(format!("the emulator cannot run: {error}"));
    let options = Options {
        listen: args.listen,
        root: args.root,
        buckets: args.bucket,
        credentials: args.credentials.into_iter().map(|pair| (pair.id, pair.key)).collect(),
        oms_credentials: args.oms_credentials.map(|pair| (pair.id, pair.key)),
        latency: args.latency,
        bandwidth: args.bandwidth.map(|size| size.0),
    };
    let runtime = tokio::runtime::Runtime::new().map_err(|error| failed(&error))?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).map_err(|error| failed(&error))?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| failed(&error))?;
        let emulator = Emulator::start(options).await.map_err(|error| failed(&error))?;
        print(&format!("{}\n", json!({ "store": emulator.store_url(), "oms": emulator.oms_url() })))?;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        emulator.shutdown().await;
        Ok(())
    })
}
