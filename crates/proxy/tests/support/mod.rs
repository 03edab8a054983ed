//! The real binary, and both ends of its sockets in the test's own hands: nothing is scripted in
//! another thread, so a test reads in the order in which things happen.

#![allow(dead_code)] // Each test file uses a part.

pub mod control_plane;

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{channel, Receiver};
use std::time::{Duration, Instant};

/// Long enough for a machine that is busy with other things.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub const ID: &str = "abc123def456";

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

/// A running `hyperfleet-proxy`; killed with the test.
pub struct Proxy {
    child: Child,
    pub address: SocketAddr,
    pub folder: Folder,
    stderr: Receiver<String>,
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

    fn start(arguments: &[&str], folder: Folder) -> Proxy {
        Proxy::start_prepared(arguments, folder, |_| ())
    }

    fn start_prepared(
        arguments: &[&str],
        folder: Folder,
        prepare: impl FnOnce(&mut Command),
    ) -> Proxy {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hyperfleet-proxy"));
        prepare(&mut command);
        let mut child = command
            .args(["--listen", "127.0.0.1:0"])
            .args(arguments)
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
            folder,
            stderr,
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
            .recv_timeout(PATIENCE)
            .expect("a line on stderr")
    }

    /// What it has said on stderr since.
    pub fn further_complaints(&self) -> Vec<String> {
        self.stderr.try_iter().collect()
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

/// This process' own limit of descriptors.
pub fn descriptor_limit() -> libc::rlimit {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the struct lives on this stack.
    let got = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) };
    assert_eq!(got, 0);
    limit
}

/// Says what a test measured, past the capture of its output.
pub fn figure(name: &str, value: impl std::fmt::Display) {
    let _ = writeln!(io::stderr(), "staying up: {name}: {value}");
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

pub fn machine(
    id: &str,
    name: &str,
    status: &str,
    lifecycle: u64,
    ports: &[(u16, SocketAddr)],
) -> String {
    let ports: Vec<String> = ports
        .iter()
        .map(|(port, upstream)| format!(r#"{{"port":{port},"upstream":"{upstream}"}}"#))
        .collect();
    format!(
        r#"{{"id":"{id}","name":"{name}","status":"{status}","lifecycle":{lifecycle},"ports":[{}]}}"#,
        ports.join(",")
    )
}

pub fn routes(machines: &[String]) -> String {
    format!(r#"{{"machines":[{}]}}"#, machines.join(","))
}

/// A server in a machine, accepted by hand.
pub struct Server {
    listener: TcpListener,
    pub address: SocketAddr,
}

impl Server {
    pub fn new() -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        Server { listener, address }
    }

    /// The next connection.
    pub fn accept(&self) -> Peer {
        let began = Instant::now();
        self.listener.set_nonblocking(true).unwrap();
        loop {
            match self.listener.accept() {
                Ok((stream, _)) => {
                    stream.set_nonblocking(false).unwrap();
                    return Peer::new(stream);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => panic!("{error}"),
            }
            assert!(began.elapsed() < PATIENCE, "no connection comes");
            std::thread::yield_now();
        }
    }

    pub fn has_no_connection(&self) -> bool {
        self.listener.set_nonblocking(true).unwrap();
        self.listener.accept().is_err()
    }
}

/// One end of a connection: a client's, or a server's.
pub struct Peer {
    pub stream: TcpStream,
    ahead: Vec<u8>,
}

impl Peer {
    pub fn new(stream: TcpStream) -> Peer {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Peer {
            stream,
            ahead: Vec::new(),
        }
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).unwrap();
    }

    /// Ends the sending side.
    pub fn shut(&self) {
        self.stream.shutdown(Shutdown::Write).unwrap();
    }

    /// Resets the connection.
    pub fn reset(self) {
        let socket = socket2::SockRef::from(&self.stream);
        socket.set_linger(Some(Duration::ZERO)).unwrap();
    }

    /// The next head, its empty line included.
    pub fn head(&mut self) -> String {
        loop {
            let end = self.ahead.windows(4).position(|four| four == b"\r\n\r\n");
            if let Some(end) = end {
                let head = self.ahead.drain(..end + 4).collect();
                return String::from_utf8(head).unwrap();
            }
            let more = self.more();
            assert!(more > 0, "it ended within a head: {:?}", text(&self.ahead));
        }
    }

    /// The next `count` bytes.
    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        while self.ahead.len() < count {
            let more = self.more();
            assert!(more > 0, "it ended after {:?}", text(&self.ahead));
        }
        self.ahead.drain(..count).collect()
    }

    #[track_caller]
    pub fn expect(&mut self, wanted: impl AsRef<[u8]>) {
        let wanted = wanted.as_ref();
        let got = self.bytes(wanted.len());
        assert_eq!(text(&got), text(wanted));
    }

    /// The head and body of a response with Content-Length.
    pub fn response(&mut self) -> (String, String) {
        let head = self.head();
        let length = field(&head, "Content-Length").map_or(0, |text| text.parse().unwrap());
        let body = self.bytes(length);
        (head, String::from_utf8(body).unwrap())
    }

    /// Whether something comes, or its end, within `limit`.
    pub fn comes(&self, limit: Duration) -> bool {
        self.stream.set_read_timeout(Some(limit)).unwrap();
        let came = self.stream.peek(&mut [0]).is_ok();
        self.stream.set_read_timeout(Some(PATIENCE)).unwrap();
        came
    }

    /// Everything up to the end, and whether that was a reset.
    pub fn rest_and_reset(&mut self) -> (String, bool) {
        let mut buffer = [0; 65536];
        let reset = loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => break false,
                Ok(count) => self.ahead.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => break true,
                Err(error) => panic!("{error}"),
            }
        };
        (text(&std::mem::take(&mut self.ahead)), reset)
    }

    /// Everything up to the end.
    pub fn rest(&mut self) -> String {
        while self.more() > 0 {}
        text(&std::mem::take(&mut self.ahead))
    }

    /// It ends here, in order and without another byte.
    #[track_caller]
    pub fn expect_end(&mut self) {
        assert_eq!(self.rest(), "");
    }

    /// It ends here with a reset.
    #[track_caller]
    pub fn expect_reset(&mut self) {
        let mut byte = [0];
        let error = self.stream.read(&mut byte).expect_err("a reset");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }

    /// The next head; `None` when it ends before, in whichever way.
    pub fn try_head(&mut self) -> Option<String> {
        self.try_until(b"\r\n\r\n").map(|head| text(&head))
    }

    /// The next `count` bytes; `None` when it ends before.
    pub fn try_bytes(&mut self, count: usize) -> Option<Vec<u8>> {
        while self.ahead.len() < count {
            self.try_more()?;
        }
        Some(self.ahead.drain(..count).collect())
    }

    /// The data of a chunked body without trailers; `None` when it ends before.
    pub fn try_chunks(&mut self) -> Option<Vec<u8>> {
        let mut data = Vec::new();
        loop {
            let line = text(&self.try_until(b"\r\n")?);
            let size = usize::from_str_radix(line.trim_end(), 16).unwrap();
            let chunk = self.try_bytes(size + 2)?;
            assert!(chunk.ends_with(b"\r\n"));
            if size == 0 {
                return Some(data);
            }
            data.extend_from_slice(&chunk[..size]);
        }
    }

    fn try_until(&mut self, end: &[u8]) -> Option<Vec<u8>> {
        loop {
            let found = self.ahead.windows(end.len()).position(|part| part == end);
            if let Some(at) = found {
                return Some(self.ahead.drain(..at + end.len()).collect());
            }
            self.try_more()?;
        }
    }

    fn try_more(&mut self) -> Option<()> {
        let mut buffer = [0; 65536];
        match self.stream.read(&mut buffer) {
            Ok(count) if count > 0 => self.ahead.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => panic!("nothing comes"),
            _ => return None,
        }
        Some(())
    }

    fn more(&mut self) -> usize {
        let mut buffer = [0; 65536];
        let count = self.stream.read(&mut buffer).unwrap();
        self.ahead.extend_from_slice(&buffer[..count]);
        count
    }
}

/// Sends until the other side has taken nothing for a while; how many bytes it took.
pub fn fill(peer: &Peer) -> usize {
    let block = vec![0; 1 << 20];
    let mut stream = &peer.stream;
    let limit = Some(Duration::from_millis(50));
    stream.set_write_timeout(limit).unwrap();
    let mut taken = 0;
    while let Ok(count) = stream.write(&block) {
        taken += count;
    }
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    taken
}

/// The value of a field, its name in any case.
pub fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| {
        let (found, value) = line.split_once(": ")?;
        found.eq_ignore_ascii_case(name).then_some(value)
    })
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

pub fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n")
}

pub fn exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}
