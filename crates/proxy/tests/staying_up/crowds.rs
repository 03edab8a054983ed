//! Many at once: clients that drip, clients that idle.

use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use std::time::{Duration, Instant};

use crate::support::{descriptor_limit, figure, get, Peer, Proxy, Server, PATIENCE};

/// How long ordinary requests take: half of them no longer than `p50`, 99 of a hundred than `p99`.
#[derive(Debug, Clone, Copy)]
struct Times {
    p50: Duration,
    p99: Duration,
}

/// A client of a machine's server; both are in the test's own hands.
struct Ordinary {
    client: Peer,
    server: Server,
    upstream: Option<Peer>,
}

impl Ordinary {
    fn new(arguments: &[&str]) -> (Proxy, Ordinary) {
        let server = Server::new();
        let proxy = Proxy::alone(&[(80, server.address)], arguments);
        let client = proxy.connect();
        let ordinary = Ordinary {
            client,
            server,
            upstream: None,
        };
        (proxy, ordinary)
    }

    /// `count` requests, one after the other, each to the server and back.
    fn ask(&mut self, count: usize) -> Times {
        let mut times: Vec<_> = (0..count)
            .map(|_| {
                let began = Instant::now();
                self.client.send(get("/proxy/web/80/"));
                let upstream = self.upstream.get_or_insert_with(|| self.server.accept());
                upstream.head();
                upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
                assert_eq!(self.client.response().1, "ok");
                began.elapsed()
            })
            .collect();
        times.sort_unstable();
        Times {
            p50: times[count / 2],
            p99: times[count * 99 / 100],
        }
    }
}

fn tell(name: &str, alone: Times, beside: Times) {
    for (percentile, alone, beside) in [
        ("p50", alone.p50, beside.p50),
        ("p99", alone.p99, beside.p99),
    ] {
        let micros = |time: Duration| time.as_micros();
        let ratio = beside.as_secs_f64() / alone.as_secs_f64();
        figure(
            &format!("{percentile} of requests beside {name}"),
            format_args!(
                "{} us, alone {} us, ratio {ratio:.2}",
                micros(beside),
                micros(alone)
            ),
        );
    }
}

#[test]
fn a_thousand_clients_that_drip_hold_nobody_up() {
    const CLIENTS: usize = 1000;
    const REQUESTS: usize = 2000;
    raise_descriptor_limit();
    let (proxy, mut ordinary) = Ordinary::new(&["--head-timeout-ms", "3600000"]);
    let alone = ordinary.ask(REQUESTS);
    let mut slow: Vec<_> = (0..CLIENTS).map(|_| proxy.connect()).collect();
    for client in &mut slow {
        client.send("GET / HTTP/1.1\r\nHost: h\r\nX: ");
    }
    let over = AtomicBool::new(false);
    let rounds = AtomicU32::new(0);
    let beside = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(SeqCst) {
                let began = Instant::now();
                for client in &mut slow {
                    client.send("x");
                }
                rounds.fetch_add(1, SeqCst);
                // One byte a second is what is tested.
                std::thread::sleep(Duration::from_secs(1).saturating_sub(began.elapsed()));
            }
        });
        let mut worst = ordinary.ask(REQUESTS);
        while rounds.load(SeqCst) < 3 {
            let times = ordinary.ask(REQUESTS);
            worst.p50 = worst.p50.max(times.p50);
            worst.p99 = worst.p99.max(times.p99);
        }
        over.store(true, SeqCst);
        worst
    });
    assert!(beside.p99 < Duration::from_secs(5), "{beside:?}");
    tell("1,000 clients that drip", alone, beside);
    for client in &mut slow {
        client.send("\r\n\r\n");
        assert!(client.head().starts_with("HTTP/1.1 404 "));
    }
}

#[test]
fn ten_thousand_idle_connections_cost_little() {
    const WANTED: usize = 10_000;
    let most = raise_descriptor_limit();
    let count = WANTED.min(most.saturating_sub(500) as usize);
    assert!(
        count == WANTED || std::env::var_os("CI").is_none(),
        "only {most} descriptors are allowed: raise the hard limit (ulimit -Hn)"
    );
    let (proxy, mut ordinary) = Ordinary::new(&["--idle-timeout-ms", "3600000"]);
    let alone = ordinary.ask(1000);
    let before = proxy.memory();
    let mut idle: Vec<TcpStream> = Vec::with_capacity(count);
    let mut peers = Vec::new();
    for _ in 0..count {
        let mut peer = proxy.connect();
        peer.send(get("/proxy/nobody/80/"));
        peers.push(peer);
        if peers.len() == 100 {
            peers.iter_mut().for_each(|peer| drop(peer.response()));
            idle.extend(peers.drain(..).map(|peer| peer.stream));
        }
    }
    peers.iter_mut().for_each(|peer| drop(peer.response()));
    idle.extend(peers.drain(..).map(|peer| peer.stream));
    let grown = proxy.memory().saturating_sub(before) * 1024 / count as u64;
    figure(
        &format!("idle connection, {count} of them"),
        format_args!("{grown} bytes"),
    );
    assert!(grown < 16 * 1024, "{grown} bytes each");
    let beside = ordinary.ask(1000);
    assert!(beside.p99 < PATIENCE);
    tell(&format!("{count} idle connections"), alone, beside);
    // Each is served again.
    for stream in idle.drain(..).step_by(97) {
        let mut peer = Peer::new(stream);
        peer.send(get("/proxy/nobody/80/"));
        assert!(peer.head().starts_with("HTTP/1.1 404 "));
    }
}

/// Raises this process' soft limit to the hard one, and says what that is.
pub fn raise_descriptor_limit() -> u64 {
    let mut limit = descriptor_limit();
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: the struct lives on this stack and is only read.
    let set = unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) };
    assert_eq!(set, 0);
    limit.rlim_cur
}
