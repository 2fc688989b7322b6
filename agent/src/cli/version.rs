//! `sekisho version`

use super::{Console, Outcome, cannot_write};
use crate::chain::Complaint;

pub(super) fn run(console: &mut Console<'_>) -> Result<Outcome, Complaint> {
    let without = if crate::bpf::IS_BUILT { "" } else { " (built without eBPF)" };
    writeln!(console.out, "sekisho {}{without}", env!("CARGO_PKG_VERSION"))
        .map_err(|error| cannot_write(&error))?;
    Ok(Outcome::Fine)
}
