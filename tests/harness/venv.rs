//! The vendors' clients, in an environment that `scripts/venv.sh` makes.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// The repository.
pub fn source_dir() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The environment's interpreter; the environment is made at the first call.
pub fn vendor_python() -> &'static Path {
    static PYTHON: OnceLock<PathBuf> = OnceLock::new();
    PYTHON.get_or_init(|| {
        let output = Command::new(source_dir().join("scripts/venv.sh"))
            .stderr(Stdio::inherit())
            .output()
            .expect("run scripts/venv.sh");
        assert!(output.status.success(), "scripts/venv.sh failed");
        PathBuf::from(String::from_utf8(output.stdout).expect("UTF-8").trim()).join("bin/python")
    })
}
