//! `hyperfleet-proxy`, the data plane's process.

use std::process::ExitCode;

use hyperfleet_proxy::cli::{self, Asked};
use hyperfleet_proxy::{log, server};

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
                log::line(&failure);
                ExitCode::from(failure.exit_code())
            }
        },
        Err(why) => {
            log::line(why);
            ExitCode::from(2)
        }
    }
}
