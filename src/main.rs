//! Parses the command line, runs it, and gives its exit code. Knows no key.

use std::process::ExitCode;

/// Private keys pass through buffers of libraries that do not wipe them, so freed memory is wiped
/// wherever it was used.
#[global_allocator]
static ALLOCATOR: zeroizing_alloc::ZeroAlloc<std::alloc::System> =
    zeroizing_alloc::ZeroAlloc(std::alloc::System);

fn main() -> ExitCode {
    jwksd::cli::run()
}
