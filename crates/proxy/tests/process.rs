//! The process: its arguments, signals and end.

mod support;

use support::{field, get, machine, routes, run, Proxy, Server, ID};

#[test]
fn bad_arguments_are_one_line_and_exit_2() {
    for (arguments, word) in [
        (vec![], "--listen"),
        (vec!["--listen", "here"], "ADDR:PORT"),
        (vec!["--listen", "127.0.0.1:0", "--nonsense"], "--nonsense"),
        (
            vec!["--listen", "127.0.0.1:0", "--workers", "0"],
            "--workers",
        ),
        (vec!["--listen", "127.0.0.1:0", "--prefix", "no"], "prefix"),
        (
            vec!["--listen", "127.0.0.1:0", "--trusted", "1.2.3.4/99"],
            "1.2.3.4/99",
        ),
        (
            vec!["--listen", "127.0.0.1:0", "--head-timeout-ms", "0"],
            "--head-timeout-ms",
        ),
        (
            vec!["--listen", "127.0.0.1:0", "--routes", "/nowhere.json"],
            "/nowhere.json",
        ),
        (
            vec!["--listen", "127.0.0.1:0", "--routes", "a", "--control", "b"],
            "--control",
        ),
    ] {
        let (code, stdout, stderr) = run(&arguments);
        assert_eq!(code, Some(2), "{arguments:?}: {stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
        assert!(stderr.contains(word), "{stderr}");
        assert_eq!(stdout, "");
    }
    let (code, stdout, _) = run(&["--version"]);
    assert_eq!(
        (code, stdout.starts_with("hyperfleet-proxy ")),
        (Some(0), true)
    );
    let (code, stdout, _) = run(&["--help"]);
    assert_eq!(
        (code, stdout.contains("--tunnel-timeout-ms MS")),
        (Some(0), true)
    );
}

#[test]
fn a_port_that_is_taken_is_one_line_and_exit_2() {
    let server = Server::new();
    let proxy = Proxy::alone(&[], &[]);
    // Taken by another program, and by another proxy, which would share it.
    for taken in [server.address, proxy.address] {
        let (code, _, stderr) = run(&["--listen", &taken.to_string()]);
        assert_eq!(code, Some(2), "{stderr}");
        assert!(stderr.contains(&taken.to_string()), "{stderr}");
    }
}

#[test]
fn a_bad_routes_file_keeps_the_old_routes() {
    let server = Server::new();
    let proxy = Proxy::alone(&[(80, server.address)], &[]);
    std::fs::write(proxy.routes_file(), "{").unwrap();
    proxy.signal(libc::SIGHUP);
    assert!(proxy.complaint().contains("the routes stay as they were"));
    let mut client = proxy.connect();
    client.send(get("/proxy/web/80/"));
    let mut upstream = server.accept();
    upstream.head();
    upstream.send("HTTP/1.1 204 No Content\r\n\r\n");
    client.head();
    let machines = [machine(ID, "other", "running", 1, &[(80, server.address)])];
    std::fs::write(proxy.routes_file(), routes(&machines)).unwrap();
    proxy.signal(libc::SIGHUP);
    assert!(proxy.complaint().contains("read again"));
    // The worker is told before the line is written, and reads it before the next request.
    let answer = proxy.once(&get("/proxy/web/80/"));
    assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
}

#[test]
fn too_many_clients_are_told_so() {
    let proxy = Proxy::alone(&[], &["--max-connections", "1"]);
    let mut first = proxy.connect();
    first.send(get("/proxy/nobody/80/"));
    first.response();
    let mut second = proxy.connect();
    let (head, _) = second.response();
    assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
    assert_eq!(field(&head, "Retry-After"), Some("1"));
    second.expect_end();
}
