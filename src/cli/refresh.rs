//! `ferryfs refresh`

use super::Failure;
use super::args::RefreshArgs;
use super::output::{count, print};
use super::wait::within;
use crate::control::Client;

pub(super) fn run(args: &RefreshArgs) -> Result<(), Failure> {
    let client = Client::find(&args.dir)?;
    let path = args.path.as_deref().map(|path| within(&client.address().mount, &args.dir, path)).transpose()?;
    let listed = client.refresh(path.as_deref())?;
    print(&format!("{} listed anew\n", count(listed, "directory", "directories")))
}
