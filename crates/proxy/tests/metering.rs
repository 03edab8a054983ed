//! What is measured for each machine and port, as the control plane is told it.

mod support;

use std::net::SocketAddr;
use std::time::Instant;

use hyperfleet_wire::control::{FromProxy, Histogram, Machine, MachineMeters, Port, ToProxy};
use support::control_plane::{web, ControlPlane};
use support::{get, Proxy, Server, ID, PATIENCE};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

type Cursor = Option<(String, u16)>;

fn part(
    plane: &mut ControlPlane,
    only: Option<&str>,
    after: Cursor,
) -> (Vec<MachineMeters>, Cursor) {
    let machine = only.map(str::to_owned);
    plane.say(&ToProxy::MetersRequest { machine, after });
    match plane.hear() {
        FromProxy::Meters { machines, next } => (machines, next),
        other => panic!("meters, not {other:?}"),
    }
}

/// The meters of [`ID`] when they are as wanted: a worker counts after its client has the answer.
#[track_caller]
fn until(plane: &mut ControlPlane, wanted: impl Fn(&MachineMeters) -> bool) -> MachineMeters {
    let began = Instant::now();
    loop {
        let (machines, _) = part(plane, Some(ID), None);
        match machines.into_iter().next() {
            Some(meters) if wanted(&meters) => return meters,
            meters => assert!(began.elapsed() < PATIENCE, "{meters:?}"),
        }
        std::thread::yield_now();
    }
}

fn count(histogram: &Histogram) -> u64 {
    histogram.counts.iter().sum()
}

/// Begins with machine [`ID`], which runs, and its server.
fn begin() -> (Proxy, ControlPlane, Server) {
    let proxy = Proxy::controlled(&[]);
    let server = Server::new();
    let mut plane = ControlPlane::new(&proxy);
    plane.snapshot(1, vec![web("running", Some(server.address), true)]);
    (proxy, plane, server)
}

fn change(plane: &mut ControlPlane, number: u64, upsert: Vec<Machine>, remove: &[&str]) {
    plane.change(number, upsert, remove);
    assert_eq!(plane.hear(), FromProxy::Applied { number });
}

#[test]
fn a_request_is_counted_with_its_bytes_and_its_times() {
    let (proxy, mut plane, server) = begin();
    assert_eq!(part(&mut plane, None, None), (vec![], None), "nobody asked");
    let head = "POST /proxy/web/80/ HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n";
    let mut client = proxy.connect();
    // The first bytes of the next one are not this one's.
    client.send(format!("{head}helloGET"));
    let mut guest = server.accept();
    guest.head();
    let meters = until(&mut plane, |meters| meters.ports[0].bytes_in > 0);
    assert_eq!((meters.in_flight, meters.connections), (1, 1));
    assert_eq!(meters.ports[0].in_flight, 1);
    assert_eq!(count(&meters.ports[0].first_byte), 0);
    guest.send(OK);
    let (answer, _) = client.response();
    let meters = until(&mut plane, |meters| meters.ports[0].in_flight == 0);
    let port = &meters.ports[0];
    assert_eq!((port.port, port.requests), (80, 1));
    assert_eq!(port.responses, [0, 1, 0, 0, 0]);
    assert_eq!(port.bytes_in, head.len() as u64 + 5);
    assert_eq!(port.bytes_out, answer.len() as u64 + 2);
    assert_eq!((count(&port.first_byte), count(&port.duration)), (1, 1));
    assert!(port.first_byte.sum_us <= port.duration.sum_us);
    assert_eq!((meters.in_flight, meters.connections), (0, 1), "it is kept");
    let whole = plane.counters();
    assert_eq!((count(&whole.first_byte), count(&whole.duration)), (1, 1));
    assert_eq!(whole.duration, port.duration);
    assert_eq!(whole.bounds_us.len() + 1, port.duration.counts.len());
}

#[test]
fn a_time_falls_into_its_bucket() {
    let (proxy, mut plane, server) = begin();
    let mut client = proxy.connect();
    let began = Instant::now();
    client.send(get("/proxy/web/80/"));
    let mut guest = server.accept();
    guest.head();
    // A time that passes is what is measured: at least this much of it.
    let least = std::time::Duration::from_millis(30);
    std::thread::sleep(least);
    guest.send(OK);
    client.response();
    let most = began.elapsed();
    let meters = until(&mut plane, |meters| meters.ports[0].in_flight == 0);
    let sum = meters.ports[0].duration.sum_us;
    assert!((least.as_micros() as u64..=most.as_micros() as u64).contains(&sum));
    let bounds = plane.counters().bounds_us;
    let bucket = meters.ports[0].duration.counts.iter().position(|&n| n == 1);
    let bucket = bucket.unwrap();
    assert!(bucket == bounds.len() || sum <= bounds[bucket]);
    assert!(sum > bounds[bucket - 1]);
}

#[test]
fn answers_of_the_proxys_own_are_counted_by_code() {
    let (proxy, mut plane, server) = begin();
    let mut client = proxy.connect();
    client.send(get("/proxy/web/80/"));
    let mut guest = server.accept();
    guest.head();
    guest.send("nonsense\r\n\r\n");
    assert!(client.response().0.starts_with("HTTP/1.1 502"));
    client.send(get("/proxy/web/81/"));
    assert!(client.response().0.starts_with("HTTP/1.1 403"));
    change(&mut plane, 2, vec![web("stopped", None, false)], &[]);
    client.send(get("/proxy/web/80/"));
    assert!(client.response().0.starts_with("HTTP/1.1 503"));
    let meters = until(&mut plane, |meters| meters.ports[0].requests == 2);
    assert_eq!(meters.ports.len(), 1, "81 is not exposed: {meters:?}");
    let port = &meters.ports[0];
    assert_eq!(port.responses, [0, 0, 0, 0, 2]);
    let errors = ["machine_not_running", "upstream_invalid_response"];
    assert_eq!(port.errors, errors.map(|code| (code.to_owned(), 1)));
    assert_eq!(count(&port.duration), 0, "nothing was passed on whole");
}

#[test]
fn a_tunnel_counts_its_bytes_while_it_lasts() {
    let (proxy, mut plane, server) = begin();
    let mut client = proxy.connect();
    client.send(
        "GET /proxy/web/80/ HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
    );
    let mut guest = server.accept();
    guest.head();
    guest.send("HTTP/1.1 101 Yes\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n");
    client.head();
    let before = until(&mut plane, |meters| meters.ports[0].tunnels == 1);
    client.send([b'u'; 1000]);
    guest.bytes(1000);
    guest.send([b'd'; 3000]);
    client.bytes(3000);
    let wanted = before.ports[0].bytes_out.max(1) + 2000;
    let during = until(&mut plane, |meters| {
        meters.ports[0].bytes_in >= 1000 && meters.ports[0].bytes_out >= wanted
    });
    assert_eq!((during.in_flight, during.ports[0].in_flight), (1, 1));
    drop(client);
    guest.expect_end();
    drop(guest);
    let after = until(&mut plane, |meters| meters.in_flight == 0);
    assert_eq!((after.ports[0].tunnels, after.ports[0].in_flight), (0, 0));
    assert_eq!(after.ports[0].responses, [1, 0, 0, 0, 0]);
    assert_eq!(plane.counters().tunnels, 0);
}

#[test]
fn a_tunnels_bytes_are_activity_and_its_silence_is_none() {
    /// The proxy's clock stands still for so long (clock.rs).
    const TICK: u64 = 100;
    let (proxy, mut plane, server) = begin();
    let mut client = proxy.connect();
    client.send(
        "GET /proxy/web/80/ HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
    );
    let mut guest = server.accept();
    guest.head();
    guest.send("HTTP/1.1 101 Yes\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n");
    client.head();
    for upwards in [true, false] {
        // That it is open is no activity by itself.
        let silent = until(&mut plane, |meters| meters.idle_ms >= 6 * TICK);
        assert_eq!((silent.in_flight, silent.ports[0].tunnels), (1, 1));
        let began = Instant::now();
        let (from, to) = match upwards {
            true => (&mut client, &mut guest),
            false => (&mut guest, &mut client),
        };
        from.send("\u{1}\u{2}hi");
        to.expect("\u{1}\u{2}hi");
        // A worker counts what it has passed on when its peer has it already.
        let active = until(&mut plane, |meters| {
            meters.idle_ms <= began.elapsed().as_millis() as u64 + TICK
        });
        assert_eq!(active.ports[0].tunnels, 1);
    }
}

#[test]
fn meters_live_as_long_as_their_machine_and_port() {
    let (proxy, mut plane, server) = begin();
    let ask = |wanted: &str| {
        let mut client = proxy.connect();
        client.send(get("/proxy/web/80/"));
        let mut guest = server.accept();
        guest.head();
        guest.send(OK);
        assert_eq!(client.response().1, wanted);
    };
    ask("ok");
    let again = |lifecycle| Machine {
        lifecycle,
        ..web("running", Some(server.address), true)
    };
    change(&mut plane, 2, vec![again(2)], &[]);
    ask("ok");
    until(&mut plane, |meters| meters.ports[0].requests == 2);
    // Its port is hidden, then exposed anew: what is counted begins anew.
    let hidden = Machine {
        ports: vec![],
        ..again(2)
    };
    change(&mut plane, 3, vec![hidden], &[]);
    assert_eq!(part(&mut plane, None, None), (vec![], None));
    change(&mut plane, 4, vec![again(3)], &[]);
    ask("ok");
    until(&mut plane, |meters| meters.ports[0].requests == 1);
    change(&mut plane, 5, vec![], &[ID]);
    assert_eq!(part(&mut plane, None, None), (vec![], None));
    assert_eq!(plane.counters().requests, 3, "the whole's stay");
}

#[test]
fn many_are_told_in_parts() {
    let proxy = Proxy::controlled(&[]);
    let nobody: SocketAddr = ([127, 0, 0, 1], 9).into();
    let mut plane = ControlPlane::new(&proxy);
    let machine = |id: &str, ports: std::ops::Range<u16>| Machine {
        id: id.to_owned(),
        name: format!("name-{id}"),
        // They refuse, which is counted too, and needs no server.
        status: "stopped".to_owned(),
        ports: ports
            .map(|port| Port::new(port, Some(nobody.to_string()), true))
            .collect(),
        lifecycle: 0,
    };
    let machines = vec![
        machine("a", 1..401),
        machine("b", 1..401),
        machine("c", 1..2),
    ];
    plane.snapshot(1, machines);
    let mut client = proxy.connect();
    let mut wanted = Vec::new();
    for (id, last) in [("a", 400), ("b", 400)] {
        for port in 1..=last {
            client.send(get(&format!("/proxy/{id}/{port}/")));
            client.response();
            wanted.push((id.to_owned(), port));
        }
    }
    let (mut told, mut parts, mut after) = (Vec::new(), 0, None);
    loop {
        let (machines, next) = part(&mut plane, None, after);
        parts += 1;
        for machine in machines {
            told.extend(machine.ports.iter().map(|p| (machine.id.clone(), p.port)));
        }
        after = next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!((told, parts), (wanted, 2));
}
