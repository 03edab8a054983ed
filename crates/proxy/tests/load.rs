//! Many clients at once, cut off at random, while the machine starts anew again and again: every
//! answer is checked, none is another's or another life's, and nothing is left at the end.
//!
//! `HYPERFLEET_LOAD_SECONDS=60` makes it longer.

mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::mpsc::{channel, Sender};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use support::{field, get, machine, routes, Peer, Proxy, ID, PATIENCE};

const CLIENTS: u64 = 200;

/// xorshift64: the same cuts for the same seed.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// A life of the machine: its server, whose answers name it.
struct Life {
    address: SocketAddr,
    ended: Arc<AtomicBool>,
}

impl Life {
    fn begin(number: u64) -> Life {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let ended = Arc::new(AtomicBool::new(false));
        let over = ended.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if over.load(SeqCst) {
                    return;
                }
                let stream = stream.unwrap();
                let _ = std::thread::Builder::new()
                    .stack_size(128 << 10)
                    .spawn(move || serve(stream, number));
            }
        });
        Life { address, ended }
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        self.ended.store(true, SeqCst);
        let _ = TcpStream::connect(self.address);
    }
}

/// The body of request `key`: its length and bytes follow from the key.
fn body(key: u64) -> Vec<u8> {
    const LONGEST: usize = 70_000;
    static PATTERN: OnceLock<Vec<u8>> = OnceLock::new();
    let pattern = PATTERN.get_or_init(|| {
        (0..LONGEST + 1021)
            .map(|at| (at % 1021 * 7) as u8)
            .collect()
    });
    let length = (key as usize).wrapping_mul(7919) % LONGEST;
    pattern[key as usize % 1021..][..length].to_vec()
}

/// Answers requests, whose bodies are what their path asks for, in one of three framings.
fn serve(mut stream: TcpStream, life: u64) {
    let _ = stream.set_nodelay(true);
    let mut ahead = Vec::new();
    let mut buffer = vec![0; 16 << 10];
    loop {
        let end = loop {
            if let Some(end) = ahead.windows(4).position(|four| four == b"\r\n\r\n") {
                break end + 4;
            }
            match stream.read(&mut buffer) {
                Ok(count) if count > 0 => ahead.extend_from_slice(&buffer[..count]),
                _ => return,
            }
        };
        let head = String::from_utf8(ahead.drain(..end).collect()).unwrap();
        let length = field(&head, "Content-Length").map_or(0, |text| text.parse().unwrap());
        while ahead.len() < length {
            match stream.read(&mut buffer) {
                Ok(count) if count > 0 => ahead.extend_from_slice(&buffer[..count]),
                _ => return,
            }
        }
        let key: u64 = head.split(['/', ' ']).nth(2).unwrap().parse().unwrap();
        let sent: Vec<u8> = ahead.drain(..length).collect();
        assert!(
            length == 0 || sent == body(key),
            "a request's body is another's"
        );
        let body = body(key);
        let mut out = format!("HTTP/1.1 200 OK\r\nX-Key: {key}\r\nX-Life: {life}\r\n").into_bytes();
        match key % 4 {
            0 => {
                out.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
                for chunk in body.chunks(9000) {
                    write!(out, "{:x}\r\n", chunk.len()).unwrap();
                    out.extend_from_slice(chunk);
                    out.extend_from_slice(b"\r\n");
                }
                out.extend_from_slice(b"0\r\n\r\n");
            }
            1 => {
                out.extend_from_slice(b"Connection: close\r\n\r\n");
                out.extend_from_slice(&body);
            }
            _ => {
                write!(out, "Content-Length: {}\r\n\r\n", body.len()).unwrap();
                out.extend_from_slice(&body);
            }
        }
        // One in seventeen breaks off.
        let whole = key % 17 != 3;
        let most = if whole { out.len() } else { out.len() / 2 };
        if stream.write_all(&out[..most]).is_err() || !whole || key % 4 == 1 {
            return;
        }
    }
}

/// What all clients see, and what they saw.
struct Watched {
    address: SocketAddr,
    /// The newest life whose routes are in force.
    life: AtomicU64,
    over: AtomicBool,
    cut: AtomicU64,
}

/// One client: requests on kept connections, some cut off at a random byte.
fn client(watched: &Watched, whole: &Sender<()>, mut random: Random) {
    while !watched.over.load(SeqCst) {
        let mut peer = Peer::new(TcpStream::connect(watched.address).unwrap());
        for _ in 0..random.below(20) {
            let key = random.below(1 << 20);
            let sent = if random.below(3) == 0 {
                body(key)
            } else {
                vec![]
            };
            let method = if sent.is_empty() { "GET" } else { "POST" };
            let request = format!(
                "{method} /proxy/web/80/{key}/ HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n",
                sent.len()
            );
            let request = [request.as_bytes(), &sent].concat();
            let since = watched.life.load(SeqCst);
            if random.below(8) == 0 {
                // Vanishes: within the request, or within the answer.
                let length = random.below(request.len() as u64 + 1) as usize;
                let _ = peer.stream.write_all(&request[..length]);
                if random.below(2) == 0 {
                    peer.reset();
                }
                break;
            }
            // It may be refused, and the connection ended, before all was sent.
            if peer.stream.write_all(&request).is_err() {
                break;
            }
            match answer(&mut peer, key, since) {
                // Nobody listens once the time is over.
                Answer::Whole => drop(whole.send(())),
                Answer::Cut => {
                    watched.cut.fetch_add(1, SeqCst);
                    break;
                }
            }
        }
    }
}

enum Answer {
    Whole,
    /// Visibly not whole, or an error of the proxy's own.
    Cut,
}

fn answer(peer: &mut Peer, key: u64, since: u64) -> Answer {
    let Some(head) = peer.try_head() else {
        return Answer::Cut;
    };
    if let Some(code) = field(&head, "X-Hyperfleet-Error") {
        let known = [
            "upstream_invalid_response",
            "machine_not_running",
            "upstream_connect_failed",
        ];
        assert!(known.contains(&code), "{head}");
        return Answer::Cut;
    }
    assert_eq!(
        field(&head, "X-Key"),
        Some(key.to_string().as_str()),
        "{head}"
    );
    let life: u64 = field(&head, "X-Life").unwrap().parse().unwrap();
    assert!(
        life >= since,
        "life {life} answers what was asked in life {since}"
    );
    let got = match field(&head, "Content-Length") {
        Some(length) => peer.try_bytes(length.parse().unwrap()),
        None => peer.try_chunks(),
    };
    let Some(got) = got else {
        return Answer::Cut;
    };
    // A body that ends with its connection may be cut by its server in order: nobody can tell.
    let wanted = body(key);
    let broken_off = key % 17 == 3 && key % 4 == 1;
    assert!(
        got == wanted || (broken_off && wanted.starts_with(&got)),
        "{head}"
    );
    Answer::Whole
}

#[test]
fn two_hundred_clients_and_a_machine_that_starts_anew() {
    let seconds = std::env::var("HYPERFLEET_LOAD_SECONDS").ok();
    let seconds = seconds.map_or(3, |text| text.parse().unwrap());
    let mut life = Life::begin(1);
    let of = |life: &Life, number| {
        routes(&[machine(ID, "web", "running", number, &[(80, life.address)])])
    };
    let proxy = Proxy::with_routes(&of(&life, 1), &[]);
    proxy.once(&get("/proxy/nobody/80/"));
    let before = proxy.descriptors();
    let watched = Watched {
        address: proxy.address,
        life: AtomicU64::new(1),
        over: AtomicBool::new(false),
        cut: AtomicU64::new(0),
    };
    let (sender, answers) = channel();
    let mut whole = 0;
    std::thread::scope(|scope| {
        for seed in 1..=CLIENTS {
            let (watched, sender) = (&watched, sender.clone());
            std::thread::Builder::new()
                .stack_size(256 << 10)
                .spawn_scoped(scope, move || {
                    client(
                        watched,
                        &sender,
                        Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15)),
                    );
                })
                .unwrap();
        }
        let began = Instant::now();
        let mut number = 1;
        while began.elapsed() < Duration::from_secs(seconds) {
            number += 1;
            let next = Life::begin(number);
            std::fs::write(proxy.routes_file(), of(&next, number)).unwrap();
            proxy.signal(libc::SIGHUP);
            assert!(proxy.complaint().ends_with("read again"));
            // Any request that begins from here on is this life's.
            watched.life.store(number, SeqCst);
            life = next;
            // Some answers in each life.
            for _ in 0..200 {
                answers.recv_timeout(PATIENCE).expect("an answer");
                whole += 1;
            }
        }
        watched.over.store(true, SeqCst);
    });
    let cut = watched.cut.into_inner();
    println!("{whole} answers whole, {cut} cut");
    assert!(whole > cut);
    drop(life);
    // What is kept to the last life's server is all that may be left.
    let stopped = routes(&[machine(ID, "web", "stopped", 0, &[])]);
    std::fs::write(proxy.routes_file(), stopped).unwrap();
    proxy.signal(libc::SIGHUP);
    proxy.expect_descriptors(before);
}
