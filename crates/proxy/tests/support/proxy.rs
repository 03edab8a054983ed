//! The real binary as a process of its own.

use std::io::{self, BufRead, BufReader};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{channel, Receiver};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use super::{machine, routes, Peer, ID, PATIENCE};

/// A running `hyperfleet-proxy`; killed with the test.
pub struct Proxy {
    child: Child,
    pub address: SocketAddr,
    pub folder: Arc<Folder>,
    stderr: Mutex<Receiver<String>>,
}

impl Proxy {
    /// One worker, machine [`ID`] named `web`, running, with these ports.
    pub fn alone(ports: &[(u16, SocketAddr)], arguments: &[&str]) -> Proxy {
        Proxy::with_routes(
            &routes(&[machine(ID, "web", "running", 1, ports)]),
            arguments,
        )
    }

    pub fn with_routes(routes: &str, arguments: &[&str]) -> Proxy {
        let folder = Folder::new();
        let file = folder.path("routes.json");
        std::fs::write(&file, routes).unwrap();
        let mut all = vec!["--workers", "1", "--routes", file.to_str().unwrap()];
        all.extend(arguments);
        Proxy::start(&all, folder)
    }

    /// The next process in this one's place: it has taken over when this returns.
    pub fn successor(&self, arguments: &[&str]) -> Proxy {
        let mut all = vec!["--take-over", "true"];
        if !arguments.contains(&"--workers") {
            all.extend(["--workers", "2"]);
        }
        let socket = self.control_socket();
        all.extend(["--control", socket.to_str().unwrap()]);
        all.extend(arguments);
        Proxy::start(&all, self.folder.clone())
    }

    /// Fed over the control socket `control` in its folder.
    pub fn controlled(arguments: &[&str]) -> Proxy {
        let folder = Folder::new();
        let socket = folder.path("control");
        let mut all = vec!["--workers", "2", "--control", socket.to_str().unwrap()];
        all.extend(arguments);
        Proxy::start(&all, folder)
    }

    /// The same, and it panics when it is about to send a request to `port`.
    pub fn controlled_and_faulty(port: u16) -> Proxy {
        Proxy::controlled_and_prepared(|command| {
            command.env("HYPERFLEET_PROXY_PANIC_AT", port.to_string());
        })
    }

    /// The same, and it may have so many descriptors.
    pub fn controlled_with_descriptors(count: u64) -> Proxy {
        let limit = libc::rlimit {
            rlim_cur: count,
            rlim_max: count,
        };
        Proxy::controlled_and_prepared(move |command| {
            // SAFETY: between fork and exec it makes one system call, on memory of its own.
            unsafe {
                command.pre_exec(move || match libc::setrlimit(libc::RLIMIT_NOFILE, &limit) {
                    0 => Ok(()),
                    _ => Err(io::Error::last_os_error()),
                });
            }
        })
    }

    fn controlled_and_prepared(prepare: impl FnOnce(&mut Command)) -> Proxy {
        let folder = Folder::new();
        let socket = folder.path("control");
        let arguments = ["--workers", "2", "--control", socket.to_str().unwrap()];
        Proxy::start_prepared(&arguments, folder, prepare)
    }

    /// The same where a data plane has died and left its socket's file.
    pub fn controlled_over_a_dead_socket() -> Proxy {
        let folder = Folder::new();
        let socket = folder.path("control");
        drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
        let arguments = ["--workers", "2", "--control", socket.to_str().unwrap()];
        Proxy::start(&arguments, folder)
    }

    fn start(arguments: &[&str], folder: impl Into<Arc<Folder>>) -> Proxy {
        Proxy::start_prepared(arguments, folder, |_| ())
    }

    fn start_prepared(
        arguments: &[&str],
        folder: impl Into<Arc<Folder>>,
        prepare: impl FnOnce(&mut Command),
    ) -> Proxy {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hyperfleet-proxy"));
        prepare(&mut command);
        let mut child = command
            .args(["--listen", "127.0.0.1:0"])
            .args(arguments)
            // What it uses is measured, not what the kernel rounds it up to: the allocator asks for
            // huge pages, and one of them more is 2 MiB, whatever was wanted.
            .env("MIMALLOC_ALLOW_THP", "0")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        stdout.read_line(&mut line).unwrap();
        let address = line.trim().rsplit(' ').next().unwrap_or_default().parse();
        let (send, stderr) = channel();
        let errors = BufReader::new(child.stderr.take().unwrap());
        std::thread::spawn(move || {
            for line in errors.lines().map_while(Result::ok) {
                let _ = send.send(line);
            }
        });
        Proxy {
            address: address.unwrap_or_else(|_| panic!("no address in {line:?}")),
            child,
            folder: folder.into(),
            stderr: Mutex::new(stderr),
        }
    }

    pub fn connect(&self) -> Peer {
        Peer::new(TcpStream::connect(self.address).unwrap())
    }

    /// One request on a connection of its own; everything that comes back.
    pub fn once(&self, request: &str) -> String {
        let mut client = self.connect();
        client.send(request);
        client.shut();
        client.rest()
    }

    pub fn routes_file(&self) -> PathBuf {
        self.folder.path("routes.json")
    }

    pub fn control_socket(&self) -> PathBuf {
        self.folder.path("control")
    }

    pub fn signal(&self, signal: i32) {
        // SAFETY: the child is ours and not yet waited for.
        let sent = unsafe { libc::kill(self.child.id() as i32, signal) };
        assert_eq!(sent, 0);
    }

    /// The next line on stderr.
    pub fn complaint(&self) -> String {
        self.stderr
            .lock()
            .unwrap()
            .recv_timeout(PATIENCE)
            .expect("a line on stderr")
    }

    /// What it has said on stderr since.
    pub fn further_complaints(&self) -> Vec<String> {
        self.stderr.lock().unwrap().try_iter().collect()
    }

    pub fn wait(&mut self) -> ExitStatus {
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(began.elapsed() < PATIENCE, "the process does not end");
            std::thread::yield_now();
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Open descriptors, but for the few pipes that each worker keeps for large bodies.
    pub fn descriptors(&self) -> usize {
        let (pipes, others) = self.count_descriptors();
        // Four spare pipes of two ends for each of at most two workers, and tokio's own.
        assert!(pipes <= 2 * 4 * 2 + 4, "{pipes} ends of pipes");
        others
    }

    fn count_descriptors(&self) -> (usize, usize) {
        let folder = std::fs::read_dir(format!("/proc/{}/fd", self.pid())).unwrap();
        let (pipes, others): (Vec<_>, Vec<_>) = folder
            // One may be closed meanwhile.
            .filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok())
            .partition(|target| target.to_string_lossy().starts_with("pipe:"));
        (pipes.len(), others.len())
    }

    /// Waits until it has no more than `count` descriptors.
    #[track_caller]
    pub fn expect_descriptors(&self, count: usize) {
        let began = Instant::now();
        loop {
            let (_, others) = self.count_descriptors();
            if others <= count {
                break;
            }
            assert!(
                began.elapsed() < PATIENCE,
                "{others} descriptors, not {count}"
            );
            std::thread::yield_now();
        }
        self.descriptors();
    }

    /// Peak resident memory, KiB (proc(5), VmHWM).
    pub fn peak_memory(&self) -> u64 {
        self.status("VmHWM").parse().unwrap()
    }

    /// Resident memory, KiB.
    pub fn memory(&self) -> u64 {
        self.status("VmRSS").parse().unwrap()
    }

    /// The first word of a line of /proc/PID/status.
    pub fn status(&self, name: &str) -> String {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let word = line.unwrap().split_whitespace().next();
        word.unwrap_or_default().to_owned()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs the binary to its end: exit code, stdout, stderr.
pub fn run(arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_hyperfleet-proxy"))
        .args(arguments)
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}

/// A folder of its own for a test, removed with it.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new() -> Folder {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("hf-proxy-{}-{count}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
