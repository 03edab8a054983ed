//! `hyperfleet-proxy`, the data plane's process.

use std::process::ExitCode;

use hyperfleet_proxy::cli::{self, Asked};
use hyperfleet_proxy::server;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match cli::parse_arguments(std::env::args_os().skip(1)) {
        Ok(Asked::Print(text)) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Ok(Asked::Run(settings)) => match server::run(*settings) {
            Ok(()) => ExitCode::SUCCESS,
            Err(failure) => {
                eprintln!("hyperfleet-proxy: {failure}");
                ExitCode::from(failure.exit_code())
            }
        },
        Err(why) => {
            eprintln!("hyperfleet-proxy: {why}");
            ExitCode::from(2)
        }
    }
}
