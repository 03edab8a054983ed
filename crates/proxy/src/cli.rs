//! The command line: one table of options makes `--help`, the parser and `hello.arguments`.

use std::ffi::OsString;
use std::fmt::Display;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use crate::limits::Limits;
use crate::settings::{Settings, SiteTexts, Source, Times};

/// What the arguments ask for.
#[derive(Debug)]
pub enum Asked {
    Run(Box<Settings>),
    /// Print this to stdout and be done.
    Print(String),
}

struct Opt {
    name: &'static str,
    value: &'static str,
    help: &'static str,
    get: fn(&Settings) -> String,
    set: fn(&mut Settings, &str) -> Result<(), String>,
}

macro_rules! number {
    ($name:literal, $value:literal, $help:literal, $($field:ident).+) => {
        Opt {
            name: $name,
            value: $value,
            help: $help,
            get: |s| s.$($field).+.to_string(),
            set: |s, text| parse(text).map(|number| s.$($field).+ = number),
        }
    };
}

macro_rules! switch {
    ($name:literal, $help:literal, $field:ident) => {
        number!($name, "true|false", $help, $field)
    };
}

macro_rules! text {
    ($name:literal, $value:literal, $help:literal, $($field:ident).+) => {
        Opt {
            name: $name,
            value: $value,
            help: $help,
            get: |s| s.$($field).+.clone(),
            set: |s, text| {
                s.$($field).+ = text.to_owned();
                Ok(())
            },
        }
    };
}

macro_rules! millis {
    ($name:literal, $help:literal, $field:ident) => {
        Opt {
            name: $name,
            value: "MS",
            help: $help,
            get: |s| s.times.$field.as_millis().to_string(),
            set: |s, text| duration(text).map(|limit| s.times.$field = limit),
        }
    };
}

/// In the order of `--help` and of `hello.arguments`.
const OPTIONS: &[Opt] = &[
    Opt {
        name: "listen",
        value: "ADDR:PORT",
        help: "where clients connect; port 0 takes a free one",
        get: |s| s.listen.to_string(),
        set: |s, text| {
            s.listen = text.parse().map_err(|_| "ADDR:PORT is wanted".to_owned())?;
            Ok(())
        },
    },
    text!("prefix", "PATH", "of path routes", texts.prefix),
    text!(
        "host-suffix",
        "SUFFIX",
        "of host routes, {machine}-{port}SUFFIX; empty: none",
        texts.host_suffix
    ),
    text!(
        "trusted",
        "CIDR,...",
        "whose X-Forwarded-* are believed",
        texts.trusted
    ),
    number!("workers", "N", "threads; default: the usable CPUs", workers),
    Opt {
        name: "routes",
        value: "FILE",
        help: "machines as JSON, read again on SIGHUP",
        get: |s| match &s.source {
            Some(Source::File(path)) => path.display().to_string(),
            _ => String::new(),
        },
        set: |s, text| source(s, Source::File(PathBuf::from(text))),
    },
    Opt {
        name: "control",
        value: "SOCKET",
        help: "Unix socket that the control plane connects to",
        get: |s| match &s.source {
            Some(Source::Control(path)) => path.display().to_string(),
            _ => String::new(),
        },
        set: |s, text| source(s, Source::Control(PathBuf::from(text))),
    },
    switch!(
        "take-over",
        "of the process behind the control socket: its port, its routes",
        take_over
    ),
    text!(
        "user",
        "NAME|UID",
        "whom root becomes once its sockets are open",
        user
    ),
    switch!(
        "seccomp",
        "forbid system calls that serving does not need",
        seccomp
    ),
    Opt {
        name: "access-log",
        value: "FILE|-",
        help: "a line of JSON for each request, opened again on SIGHUP; -: stderr",
        get: |s| {
            let path = s.access_log.as_ref();
            path.map_or_else(String::new, |path| path.display().to_string())
        },
        set: |s, text| {
            s.access_log = (!text.is_empty()).then(|| PathBuf::from(text));
            Ok(())
        },
    },
    number!(
        "access-log-sample",
        "N",
        "of so many lines one is written, but each of our own errors",
        access_log_sample
    ),
    switch!(
        "server-timing",
        "tell clients how long an answer took, and the machine's part",
        server_timing
    ),
    number!("max-head-bytes", "N", "of a request's head", limits.head),
    number!("max-head-fields", "N", "in a request's head", limits.fields),
    number!(
        "max-target-bytes",
        "N",
        "of a request's target",
        limits.target
    ),
    Opt {
        name: "max-body-bytes",
        value: "N",
        help: "of a request's body; 0: no limit",
        get: |s| s.limits.body.unwrap_or(0).to_string(),
        set: |s, text| {
            let most = parse(text)?;
            s.limits.body = (most > 0).then_some(most);
            Ok(())
        },
    },
    number!(
        "max-connections",
        "N",
        "of clients, in all",
        max_connections
    ),
    number!(
        "max-address-connections",
        "N",
        "of clients of one address; 0: no limit",
        max_address_connections
    ),
    number!(
        "max-held-bytes",
        "N",
        "for peers that do not read, before reads are small",
        max_held_bytes
    ),
    number!(
        "max-machine-connections",
        "N",
        "to one machine",
        max_machine_connections
    ),
    number!(
        "max-machine-requests",
        "N",
        "in flight to one machine",
        max_machine_requests
    ),
    number!("pool", "N", "idle connections to machines, a worker", pool),
    number!("pool-per-port", "N", "of these, to one port", pool_per_port),
    millis!("head-timeout-ms", "for a request's head", head),
    millis!("idle-timeout-ms", "of an idle connection", idle),
    millis!("connect-timeout-ms", "for connecting to a machine", connect),
    millis!("response-timeout-ms", "for a response's head", response),
    millis!("body-timeout-ms", "without a byte of a body", body),
    millis!("tunnel-timeout-ms", "without a byte of a WebSocket", tunnel),
    millis!(
        "drain-timeout-ms",
        "for requests in flight at SIGTERM",
        drain
    ),
    millis!(
        "retire-timeout-ms",
        "for those in flight when another process took over",
        retire
    ),
    millis!("snapshot-timeout-ms", "for the first snapshot", snapshot),
];

/// Reads the arguments, the program's name left out.
///
/// # Errors
/// One line that names the argument and what is wrong with it.
pub fn parse_arguments(arguments: impl IntoIterator<Item = OsString>) -> Result<Asked, String> {
    let mut settings = defaults();
    let mut listen = false;
    let mut parser = lexopt::Parser::from_args(arguments);
    while let Some(argument) = parser.next().map_err(|error| error.to_string())? {
        let name = match argument {
            lexopt::Arg::Long("help") | lexopt::Arg::Short('h') => return Ok(Asked::Print(help())),
            lexopt::Arg::Long("version") | lexopt::Arg::Short('V') => {
                let version = env!("CARGO_PKG_VERSION");
                return Ok(Asked::Print(format!("hyperfleet-proxy {version}\n")));
            }
            lexopt::Arg::Long(name) => name.to_owned(),
            other => return Err(other.unexpected().to_string()),
        };
        let Some(option) = OPTIONS.iter().find(|option| option.name == name) else {
            return Err(format!("--{name} is not known; see --help"));
        };
        let value = parser
            .value()
            .map_err(|_| format!("--{name} wants a value, {}", option.value))?;
        let Some(text) = value.to_str() else {
            return Err(format!("--{name} {value:?}: not UTF-8"));
        };
        (option.set)(&mut settings, text).map_err(|why| format!("--{name} {text}: {why}"))?;
        listen |= name == "listen";
    }
    if !listen {
        return Err("--listen ADDR:PORT is missing; see --help".to_owned());
    }
    if settings.workers == 0 {
        return Err("--workers 0: at least one is wanted".to_owned());
    }
    if settings.access_log_sample == 0 {
        return Err("--access-log-sample 0: one of at least 1 is wanted".to_owned());
    }
    settings.site = settings.texts.site().map_err(|why| format!("--{why}"))?;
    Ok(Asked::Run(Box::new(settings)))
}

/// All settings as `name, value`, in the order of `--help`.
pub fn arguments(settings: &Settings) -> Vec<(String, String)> {
    OPTIONS
        .iter()
        .map(|option| (option.name.to_owned(), (option.get)(settings)))
        .collect()
}

fn defaults() -> Settings {
    let seconds = Duration::from_secs;
    let texts = SiteTexts {
        prefix: "/proxy".to_owned(),
        host_suffix: String::new(),
        trusted: "127.0.0.0/8,::1".to_owned(),
    };
    Settings {
        listen: ([127, 0, 0, 1], 4000).into(),
        site: texts.site().expect("the defaults are valid"),
        texts,
        source: None,
        // Counts the affinity mask and the cgroup's quota.
        workers: std::thread::available_parallelism().map_or(1, usize::from),
        limits: Limits::default(),
        take_over: false,
        user: "nobody".to_owned(),
        seccomp: true,
        access_log: None,
        access_log_sample: 1,
        server_timing: false,
        times: Times {
            head: seconds(10),
            idle: seconds(75),
            connect: seconds(5),
            response: seconds(300),
            body: seconds(300),
            tunnel: seconds(3600),
            drain: seconds(10),
            retire: seconds(3600),
            snapshot: seconds(5),
        },
        max_connections: 100_000,
        // A company behind one address has a few hundred; a tenth of all is nobody's by accident.
        max_address_connections: 10_000,
        max_held_bytes: 256 << 20,
        max_machine_connections: 4096,
        max_machine_requests: 4096,
        pool: 2048,
        pool_per_port: 256,
    }
}

fn help() -> String {
    let defaults = defaults();
    let mut text = String::from(
        "hyperfleet-proxy: gives the servers inside machines an address\n\n\
         Usage: hyperfleet-proxy --listen ADDR:PORT [--routes FILE | --control SOCKET] [OPTIONS]\n\n",
    );
    for option in OPTIONS {
        let left = format!("--{} {}", option.name, option.value);
        let default = match (option.get)(&defaults) {
            value if value.is_empty() || option.name == "listen" || option.name == "workers" => {
                String::new()
            }
            value => format!(" [{value}]"),
        };
        text.push_str(&format!("  {left:<30} {}{default}\n", option.help));
    }
    text.push_str(&format!(
        "  {:<30} {}\n",
        "--help, --version", "what they say"
    ));
    text
}

fn source(settings: &mut Settings, source: Source) -> Result<(), String> {
    if settings.source.is_some() {
        return Err("one of --routes and --control, once".to_owned());
    }
    settings.source = Some(source);
    Ok(())
}

fn parse<T: FromStr<Err: Display>>(text: &str) -> Result<T, String> {
    text.parse().map_err(|error: T::Err| error.to_string())
}

fn duration(text: &str) -> Result<Duration, String> {
    match parse(text)? {
        0 => Err("at least 1 ms is wanted".to_owned()),
        millis => Ok(Duration::from_millis(millis)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is promised where nobody sets anything (docs/reference/settings.md has the same).
    #[test]
    fn time_limits_are_those_that_are_promised() {
        let Ok(Asked::Run(settings)) =
            parse_arguments(["--listen", "127.0.0.1:0", "--control", "socket"].map(OsString::from))
        else {
            panic!("nothing else is needed");
        };
        let times = &settings.times;
        for (name, limit, promised) in [
            ("head", times.head, 10),
            ("idle", times.idle, 75),
            ("connect", times.connect, 5),
            ("response", times.response, 300),
            ("body", times.body, 300),
            ("tunnel", times.tunnel, 3600),
        ] {
            assert_eq!(limit, Duration::from_secs(promised), "{name}");
        }
    }
}
