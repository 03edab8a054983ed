//! A new process in the place of one that runs: nothing is lost, whatever dies and when.

use std::io::Read;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use hyperfleet_wire::control::FromProxy;

use crate::support::control_plane::{web, ControlPlane};
use crate::support::{field, figure, get, Peer, Proxy, Server, PATIENCE};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const STREAM: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";

/// A data plane with routes, whose control plane has gone.
fn running(server: &Server) -> Proxy {
    let proxy = Proxy::controlled(&[]);
    let mut plane = ControlPlane::new(&proxy);
    plane.snapshot(1, vec![web("running", Some(server.address), true)]);
    proxy
}

/// A request on a new connection is answered by the machine.
#[track_caller]
fn expect_served(server: &Server, proxy: &Proxy) {
    let mut client = proxy.connect();
    client.send("GET /proxy/web/80/ HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    let mut upstream = server.accept();
    upstream.head();
    upstream.send(OK);
    assert_eq!(client.response().1, "ok");
}

/// A client in the middle of a response, and the machine's end.
fn in_the_middle(server: &Server, proxy: &Proxy) -> (Peer, Peer) {
    let mut client = proxy.connect();
    client.send(get("/proxy/web/80/"));
    let mut upstream = server.accept();
    upstream.head();
    upstream.send(STREAM);
    upstream.send("1\r\na\r\n");
    client.head();
    client.expect("1\r\na\r\n");
    (client, upstream)
}

/// Answers every request on a port of its own, until the test's process ends.
fn answering() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut peer = Peer::new(stream.unwrap());
            std::thread::spawn(move || {
                while peer.try_head().is_some() {
                    if peer.try_send(OK).is_none() {
                        return;
                    }
                }
            });
        }
    });
    address
}

/// One client: requests until it is over, on one connection as long as that is kept, or each on
/// a new one. Any answer but the machine's is a failure.
fn load(address: SocketAddr, keep: bool, answered: &AtomicU64, over: &AtomicBool) {
    let request = if keep {
        get("/proxy/web/80/")
    } else {
        "GET /proxy/web/80/ HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n".to_owned()
    };
    while !over.load(SeqCst) {
        let mut peer = Peer::new(TcpStream::connect(address).unwrap());
        loop {
            peer.send(&request);
            let (head, body) = peer.response();
            assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
            assert_eq!(body, "ok");
            answered.fetch_add(1, SeqCst);
            if field(&head, "Connection") == Some("close") || over.load(SeqCst) {
                break;
            }
        }
    }
}

#[test]
fn twenty_in_a_row_under_load_lose_nothing() {
    const TIMES: usize = 20;
    const BETWEEN: u64 = 100;
    let slow = Server::new();
    let first = Proxy::controlled(&[]);
    let mut plane = ControlPlane::new(&first);
    let mut machine = web("running", Some(answering()), true);
    let mut other = machine.ports[0].clone();
    other.port = 81;
    other.upstream = Some(slow.address.to_string());
    machine.ports.push(other);
    plane.snapshot(1, vec![machine]);
    drop(plane);
    // A response that lasts as long as all of it.
    let mut long = first.connect();
    long.send(get("/proxy/web/81/"));
    let mut long_up = slow.accept();
    long_up.head();
    long_up.send(STREAM);
    long.head();

    let (answered, over) = (AtomicU64::new(0), AtomicBool::new(false));
    let address = first.address;
    let began = Instant::now();
    let mut processes = vec![first];
    std::thread::scope(|scope| {
        let ends = Over(&over);
        for client in 0..8 {
            let (answered, over) = (&answered, &over);
            scope.spawn(move || load(address, client % 2 == 0, answered, over));
        }
        for number in 0..TIMES {
            let next = processes.last().unwrap().successor(&[]);
            assert_eq!(next.address, address);
            processes.push(next);
            let chunk = format!("2\r\n{number:02}\r\n");
            long_up.send(&chunk);
            long.expect(&chunk);
            // Some requests of each process.
            let wanted = answered.load(SeqCst) + BETWEEN;
            while answered.load(SeqCst) < wanted {
                assert!(began.elapsed() < 4 * PATIENCE, "no answers come any more");
                std::thread::yield_now();
            }
        }
        drop(ends);
    });
    long_up.send("0\r\n\r\n");
    long.expect("0\r\n\r\n");
    drop((long, long_up));
    // The first had the long response, and the others lead to it: all but the last end with it.
    for process in &mut processes[..TIMES] {
        assert_eq!(process.wait().code(), Some(0));
    }
    figure(
        "take-overs in a row",
        format_args!("{TIMES}, of {} requests none failed", answered.load(SeqCst)),
    );
}

/// Ends the load, also when the test fails.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

#[test]
fn the_next_serves_at_once_and_everybody_is_sent_to_it() {
    let server = Server::new();
    let mut old = running(&server);
    let (mut client, mut upstream) = in_the_middle(&server, &old);
    let mut kept = old.connect();
    kept.send(get("/proxy/nobody/80/"));
    kept.response();
    let mut socket = old.connect();
    socket.send(
        "GET /proxy/web/80/ HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\n\
         Upgrade: websocket\r\n\r\n",
    );
    let mut socket_up = server.accept();
    socket_up.head();
    socket_up.send(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
    );
    socket.head();

    let new = old.successor(&[]);
    assert!(old.complaint().contains("taken over"));
    // No control plane has told it anything.
    expect_served(&server, &new);
    socket.expect([0x88, 2, 0x03, 0xe9]);
    socket.expect_end();
    // It keeps its time, and is sent away with its next answer.
    assert!(!kept.comes(Duration::from_millis(1500)));
    kept.send(get("/proxy/nobody/80/"));
    assert_eq!(field(&kept.response().0, "Connection"), Some("close"));
    kept.expect_end();
    // The control plane finds the new one where the old one was.
    let mut plane = ControlPlane::new(&new);
    plane.snapshot(2, vec![web("running", Some(server.address), true)]);
    assert_eq!(plane.counters().connections, 0);
    upstream.send("0\r\n\r\n");
    client.expect("0\r\n\r\n");
    // It was promised to be kept before anybody knew: that holds for one request more.
    client.send(get("/proxy/nobody/80/"));
    assert_eq!(field(&client.response().0, "Connection"), Some("close"));
    client.expect_end();
    assert_eq!(old.wait().code(), Some(0));
}

#[test]
fn a_stop_reaches_what_older_processes_serve_still() {
    let server = Server::new();
    let mut oldest = running(&server);
    let (mut first, _first_up) = in_the_middle(&server, &oldest);
    let mut kept = oldest.connect();
    kept.send(get("/proxy/nobody/80/"));
    kept.response();
    let mut older = oldest.successor(&[]);
    let (mut second, _second_up) = in_the_middle(&server, &older);
    let new = older.successor(&[]);
    let mut plane = ControlPlane::new(&new);
    plane.snapshot(7, vec![web("running", Some(server.address), true)]);
    assert!(!first.comes(Duration::from_millis(100)));
    plane.change(8, vec![web("stopped", None, false)], &[]);
    assert_eq!(plane.hear(), FromProxy::Applied { number: 8 });
    // Whoever asks now is told so, by whichever process.
    kept.send(get("/proxy/web/80/"));
    assert!(kept.response().0.starts_with("HTTP/1.1 503 "));
    for client in [&mut first, &mut second] {
        assert_eq!(client.rest(), "");
    }
    for process in [&mut oldest, &mut older] {
        assert_eq!(process.wait().code(), Some(0));
    }
    // And their end holds nothing up.
    plane.change(9, vec![web("running", Some(server.address), true)], &[]);
    assert_eq!(plane.hear(), FromProxy::Applied { number: 9 });
}

#[test]
fn a_drain_of_the_new_one_drains_the_old_ones() {
    let server = Server::new();
    let mut old = running(&server);
    let (mut client, _upstream) = in_the_middle(&server, &old);
    let mut new = old.successor(&["--drain-timeout-ms", "100"]);
    new.signal(libc::SIGTERM);
    assert_eq!(new.wait().code(), Some(0));
    assert_eq!(old.wait().code(), Some(0));
    assert_eq!(client.rest(), "");
}

#[test]
fn a_new_one_that_dies_before_it_serves_changes_nothing() {
    let server = Server::new();
    let old = running(&server);
    let door = old.folder.path("control.take-over");
    for read in [0, 1, 4, 60] {
        let mut stream = UnixStream::connect(&door).unwrap();
        stream.read_exact(&mut vec![0; read]).unwrap();
        drop(stream);
        expect_served(&server, &old);
    }
    let new = old.successor(&[]);
    expect_served(&server, &new);
}

#[test]
fn a_new_one_that_dies_later_is_followed_by_another() {
    let server = Server::new();
    let mut old = running(&server);
    let (mut client, mut upstream) = in_the_middle(&server, &old);
    let mut new = old.successor(&[]);
    new.signal(libc::SIGKILL);
    new.wait();
    // What the old one has it finishes; its port is free.
    let third = new.successor(&[]);
    let mut plane = ControlPlane::new(&third);
    plane.snapshot(1, vec![web("running", Some(server.address), true)]);
    expect_served(&server, &third);
    upstream.send("0\r\n\r\n");
    client.expect("0\r\n\r\n");
    drop(client);
    assert_eq!(old.wait().code(), Some(0));
}

#[test]
fn an_old_one_that_dies_while_it_hands_over_leaves_a_new_one() {
    let server = Server::new();
    let old = running(&server);
    // It is spoken to, and does not answer.
    old.signal(libc::SIGSTOP);
    let new = std::thread::scope(|scope| {
        let new = scope.spawn(|| old.successor(&[]));
        let waits = |line: &str| line.contains("control.take-over");
        let began = Instant::now();
        // The new one's end, and the old one's, which nobody has accepted.
        while std::fs::read_to_string("/proc/net/unix")
            .unwrap()
            .lines()
            .filter(|line| waits(line) && line.contains(old.folder.path("").to_str().unwrap()))
            .count()
            < 2
        {
            assert!(began.elapsed() < PATIENCE);
            std::thread::yield_now();
        }
        old.signal(libc::SIGKILL);
        new.join().unwrap()
    });
    let mut plane = ControlPlane::new(&new);
    plane.snapshot(1, vec![web("running", Some(server.address), true)]);
    expect_served(&server, &new);
}

#[test]
fn the_next_may_have_other_workers_and_another_port() {
    let server = Server::new();
    let mut old = running(&server);
    for workers in ["4", "1"] {
        let mut new = old.successor(&["--workers", workers]);
        assert_eq!(new.address, old.address);
        for _ in 0..20 {
            expect_served(&server, &new);
        }
        assert_eq!(old.wait().code(), Some(0));
        std::mem::swap(&mut old, &mut new);
    }
    let moved = old.successor(&["--listen", "127.0.0.2:0"]);
    assert_ne!(moved.address.ip(), old.address.ip());
    expect_served(&server, &moved);
    assert_eq!(old.wait().code(), Some(0));
    assert!(TcpStream::connect(old.address).is_err());
}
