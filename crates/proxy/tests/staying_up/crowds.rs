//! Many at once: clients that drip, clients that idle.

use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use std::time::{Duration, Instant};

use crate::support::{descriptor_limit, figure, get, Peer, Proxy, PATIENCE};

/// How long each of `count` requests in turn takes, the 99th of a hundred.
fn p99(proxy: &Proxy, count: usize) -> Duration {
    let mut client = proxy.connect();
    let mut times: Vec<_> = (0..count)
        .map(|_| {
            let began = Instant::now();
            client.send(get("/proxy/nobody/80/"));
            client.response();
            began.elapsed()
        })
        .collect();
    times.sort_unstable();
    times[count * 99 / 100]
}

#[test]
fn a_thousand_clients_that_drip_hold_nobody_up() {
    const CLIENTS: usize = 1000;
    const REQUESTS: usize = 2000;
    raise_descriptor_limit();
    let proxy = Proxy::alone(&[], &["--head-timeout-ms", "3600000"]);
    let without = p99(&proxy, REQUESTS);
    let mut slow: Vec<_> = (0..CLIENTS).map(|_| proxy.connect()).collect();
    for client in &mut slow {
        client.send("GET / HTTP/1.1\r\nHost: h\r\nX: ");
    }
    let over = AtomicBool::new(false);
    let rounds = AtomicU32::new(0);
    let with = std::thread::scope(|scope| {
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
        let mut worst = Duration::ZERO;
        while rounds.load(SeqCst) < 3 {
            worst = worst.max(p99(&proxy, REQUESTS));
        }
        over.store(true, SeqCst);
        worst
    });
    assert!(with < Duration::from_secs(5), "{with:?}");
    figure(
        "p99 beside 1,000 clients that drip",
        format_args!(
            "{:.2} of the same alone",
            with.as_secs_f64() / without.as_secs_f64()
        ),
    );
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
    let proxy = Proxy::alone(&[], &["--idle-timeout-ms", "3600000"]);
    p99(&proxy, 100);
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
    assert!(p99(&proxy, 1000) < PATIENCE);
    // Each is served again.
    for stream in idle.drain(..).step_by(97) {
        let mut peer = Peer::new(stream);
        peer.send(get("/proxy/nobody/80/"));
        assert!(peer.head().starts_with("HTTP/1.1 404 "));
    }
}

/// Raises this process' soft limit to the hard one, and says what that is.
fn raise_descriptor_limit() -> u64 {
    let mut limit = descriptor_limit();
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: the struct lives on this stack and is only read.
    let set = unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) };
    assert_eq!(set, 0);
    limit.rlim_cur
}
