//! The answers of the proxy's own, as bytes.

use hyperfleet_proxy::answer::{self, Answer, Shape};
use hyperfleet_proxy::http::request::{self, RequestHead};
use hyperfleet_proxy::http::{Asked, Part, Progress, Reject, Version};
use hyperfleet_proxy::limits::Limits;
use hyperfleet_proxy::route::{Destination, Resolved, Site};

const KEPT: Asked = Asked {
    version: Version::Http11,
    head: false,
    keep_alive: true,
    upgrade: false,
};

/// The whole answer, and whether the connection is kept.
fn write(answer: Answer, shape: Shape<'_>, asked: &Asked, close: bool) -> (String, bool) {
    let mut out = Vec::new();
    let keep = answer::write(answer, shape, asked, close, None, &mut out);
    (String::from_utf8(out).unwrap(), keep)
}

/// A parsed request head.
fn parse(bytes: &[u8]) -> RequestHead {
    let mut head = RequestHead::new();
    let parsed = request::parse(bytes, &Limits::default(), &mut head);
    assert_eq!(parsed, Ok(Progress::Whole(bytes.len())));
    head
}

#[test]
fn the_documented_errors_are_exact_and_keep_the_connection() {
    let whole = |status: &str, length: usize, code: &str, body: &str| {
        format!(
            "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\
             Cache-Control: no-store\r\nX-Hyperfleet-Error: {code}\r\n\r\n{body}"
        )
    };
    for (answer, expected) in [
        (
            Answer::MachineNotFound,
            whole(
                "404 Not Found",
                29,
                "machine_not_found",
                r#"{"error":"Machine not found"}"#,
            ),
        ),
        (
            Answer::MachineNotRunning,
            whole(
                "503 Service Unavailable",
                34,
                "machine_not_running",
                r#"{"error":"Machine is not running"}"#,
            ),
        ),
        (
            Answer::PortNotExposed(3000),
            whole(
                "403 Forbidden",
                52,
                "port_not_exposed",
                r#"{"error":"Port 3000 is not exposed on this machine"}"#,
            ),
        ),
        (
            Answer::ConnectFailed,
            whole(
                "502 Bad Gateway",
                41,
                "upstream_connect_failed",
                r#"{"error":"Failed to connect to upstream"}"#,
            ),
        ),
    ] {
        assert_eq!(write(answer, Shape::Json, &KEPT, false), (expected, true));
    }
}

#[test]
fn every_answer_has_its_status_code_and_text() {
    for (answer, status, code, text, keep) in [
        (
            Answer::InvalidResponse,
            "502 Bad Gateway",
            "upstream_invalid_response",
            "Upstream sent an invalid response",
            true,
        ),
        (
            Answer::UpstreamTimeout,
            "504 Gateway Timeout",
            "upstream_timeout",
            "Upstream did not answer in time",
            true,
        ),
        (
            Answer::OverCapacity { retry_after: 2 },
            "503 Service Unavailable",
            "over_capacity",
            "Too many requests to this machine",
            true,
        ),
        (
            Answer::NotFound,
            "404 Not Found",
            "not_found",
            "Not found",
            true,
        ),
        (
            Answer::RequestTimeout,
            "408 Request Timeout",
            "request_timeout",
            "Request timed out",
            false,
        ),
        (
            Reject::Bad("Host is missing").into(),
            "400 Bad Request",
            "bad_request",
            "Bad request: Host is missing",
            false,
        ),
        (
            Reject::Connect.into(),
            "405 Method Not Allowed",
            "bad_request",
            "Bad request: CONNECT is not supported",
            false,
        ),
        (
            Reject::Coding.into(),
            "501 Not Implemented",
            "bad_request",
            "Bad request: the transfer coding is not supported",
            false,
        ),
        (
            Reject::Version.into(),
            "505 HTTP Version Not Supported",
            "bad_request",
            "Bad request: the HTTP version is not supported",
            false,
        ),
        (
            Reject::TooLarge(Part::Body).into(),
            "413 Content Too Large",
            "too_large",
            "Request is too large: body",
            false,
        ),
        (
            Reject::TooLarge(Part::Target).into(),
            "414 URI Too Long",
            "too_large",
            "Request is too large: target",
            false,
        ),
        (
            Reject::TooLarge(Part::Head).into(),
            "431 Request Header Fields Too Large",
            "too_large",
            "Request is too large: head",
            false,
        ),
    ] {
        let (bytes, kept) = write(answer, Shape::Json, &KEPT, false);
        assert_eq!(kept, keep, "{answer:?}");
        assert!(
            bytes.starts_with(&format!("HTTP/1.1 {status}\r\n")),
            "{bytes}"
        );
        assert!(
            bytes.contains(&format!("\r\nX-Hyperfleet-Error: {code}\r\n")),
            "{bytes}"
        );
        assert_eq!(
            bytes.contains("\r\nConnection: close\r\n"),
            !keep,
            "{bytes}"
        );
        let (head, body) = bytes.split_once("\r\n\r\n").unwrap();
        assert_eq!(body, format!("{{\"error\":\"{text}\"}}"));
        assert!(head.contains(&format!("\r\nContent-Length: {}\r\n", body.len())));
    }
}

#[test]
fn some_answers_say_more() {
    let busy = Answer::OverCapacity { retry_after: 7 };
    let (bytes, _) = write(busy, Shape::Json, &KEPT, false);
    assert!(bytes.contains("\r\nRetry-After: 7\r\n"), "{bytes}");
    let (bytes, _) = write(Reject::Connect.into(), Shape::Json, &KEPT, false);
    assert!(bytes.contains("\r\nAllow: GET, HEAD, "), "{bytes}");
}

#[test]
fn head_gets_the_head_only() {
    let asked = Asked { head: true, ..KEPT };
    let (bytes, keep) = write(Answer::NotFound, Shape::Json, &asked, false);
    assert!(keep);
    assert!(bytes.contains("\r\nContent-Length: 21\r\n"), "{bytes}");
    assert!(bytes.ends_with("\r\n\r\n"), "{bytes}");
}

#[test]
fn the_connection_follows_the_client_and_the_caller() {
    let old = Asked {
        version: Version::Http10,
        ..KEPT
    };
    let leaving = Asked {
        keep_alive: false,
        ..KEPT
    };
    for (asked, close, line, keep) in [
        (KEPT, false, None, true),
        (KEPT, true, Some("Connection: close"), false),
        (leaving, false, Some("Connection: close"), false),
        (Asked::NOTHING, false, Some("Connection: close"), false),
        (old, false, Some("Connection: keep-alive"), true),
        (old, true, Some("Connection: close"), false),
    ] {
        let (bytes, kept) = write(Answer::NotFound, Shape::Json, &asked, close);
        let found = bytes.lines().find(|line| line.starts_with("Connection:"));
        assert_eq!((found, kept), (line, keep), "{asked:?} {close}");
    }
}

#[test]
fn a_redirect_is_exact() {
    let bytes = b"GET /proxy/web/80?a=b HTTP/1.1\r\nHost: h\r\n\r\n";
    let head = parse(bytes);
    let site = Site::new("/proxy", None, Vec::new()).unwrap();
    let Resolved::Redirect { rest } = site.resolve(&head, bytes) else {
        panic!("it is redirected");
    };
    let mut out = Vec::new();
    assert!(answer::write_redirect(
        &head, bytes, rest, false, None, &mut out
    ));
    assert_eq!(
        String::from_utf8(out).unwrap(),
        "HTTP/1.1 308 Permanent Redirect\r\nLocation: /proxy/web/80/?a=b\r\nContent-Length: 0\r\n\r\n"
    );
    let mut out = Vec::new();
    assert!(!answer::write_redirect(
        &head, bytes, rest, true, None, &mut out
    ));
    assert!(String::from_utf8(out)
        .unwrap()
        .ends_with("\r\nConnection: close\r\n\r\n"));
}

#[test]
fn a_navigation_wants_a_page_and_nothing_else_does() {
    for (fields, page) in [
        ("", false),
        ("Accept: */*\r\n", false),
        ("Accept: text/html\r\n", true),
        ("Accept: text/html\r\nSec-Fetch-Mode: navigate\r\n", true),
        ("Accept: text/html\r\nSec-Fetch-Mode: cors\r\n", false),
        (
            "Accept: application/json\r\nSec-Fetch-Mode: navigate\r\n",
            false,
        ),
        (
            "accept: application/xhtml+xml , TEXT/HTML;level=1;q=0.8, */*;q=0.1\r\n",
            true,
        ),
        ("Accept: application/json\r\nAccept: text/html\r\n", true),
        ("Accept: text/html;q=0\r\n", false),
        ("Accept: text/html; q=0.000, */*\r\n", false),
        ("Accept: text/html;q=0.001\r\n", true),
        ("Accept: text/htmlx\r\n", false),
        ("Accept: x/text/html\r\n", false),
    ] {
        let bytes = format!("GET / HTTP/1.1\r\nHost: h\r\n{fields}\r\n");
        let head = parse(bytes.as_bytes());
        assert_eq!(
            answer::wants_page(&head, bytes.as_bytes()),
            page,
            "{fields}"
        );
    }
}

/// Where the path of a GET leads.
fn destination(path: &str) -> Destination {
    let bytes = format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n");
    let site = Site::new("/proxy", None, Vec::new()).unwrap();
    match site.resolve(&parse(bytes.as_bytes()), bytes.as_bytes()) {
        Resolved::To(destination) => destination,
        other => panic!("{path} leads to {other:?}"),
    }
}

#[test]
fn a_page_says_what_happened_to_what_and_what_to_do() {
    let web = destination("/proxy/web/3000/");
    let (bytes, keep) = write(
        Answer::PortNotExposed(3000),
        Shape::Page(Some(&web)),
        &KEPT,
        false,
    );
    assert!(keep);
    let (head, page) = bytes.split_once("\r\n\r\n").unwrap();
    for line in [
        "HTTP/1.1 403 Forbidden",
        "Content-Type: text/html; charset=utf-8",
        &format!("Content-Length: {}", page.len()),
        "X-Hyperfleet-Error: port_not_exposed",
        "Content-Security-Policy: default-src 'none'; style-src 'unsafe-inline'",
        "Vary: Accept, Sec-Fetch-Mode",
    ] {
        assert!(head.lines().any(|found| found == line), "{line} in {head}");
    }
    for text in [
        "<h1>Port 3000 is not exposed on this machine</h1>",
        "port <code>3000</code> of machine <code>web</code>",
        "exposed_ports",
        "403 port_not_exposed",
    ] {
        assert!(page.contains(text), "{text} in {page}");
    }
}

#[test]
fn a_page_loads_nothing_and_shows_nothing_unescaped() {
    let evil = destination("/proxy/<script>alert(1)<%2Fscript>/80/");
    for shape in [Shape::Page(Some(&evil)), Shape::Page(None)] {
        for answer in [
            Answer::MachineNotFound,
            Answer::MachineNotRunning,
            Answer::ConnectFailed,
            Answer::InvalidResponse,
            Answer::UpstreamTimeout,
            Answer::RequestTimeout,
            Answer::OverCapacity { retry_after: 1 },
            Answer::NotFound,
            Reject::TooLarge(Part::Head).into(),
            Reject::Bad("<b>&\"'").into(),
        ] {
            let (bytes, _) = write(answer, shape, &KEPT, false);
            let (_, page) = bytes.split_once("\r\n\r\n").unwrap();
            for never in ["script", "<b>", "src=", "href=", "url("] {
                assert!(!page.contains(never), "{never} in {page}");
            }
            assert!(page.ends_with("</html>\n"));
        }
    }
}

#[test]
fn a_refused_request_closes_and_remembers_head() {
    let mut head = RequestHead::new();
    let bytes = b"HEAD / HTTP/1.1\r\nHost: a b\r\n\r\n";
    let reject = request::parse(bytes, &Limits::default(), &mut head).unwrap_err();
    assert!(head.asked().head && !head.asked().keep_alive);
    let (answer, keep) = write(reject.into(), Shape::Json, &head.asked(), false);
    assert!(!keep && answer.ends_with("\r\n\r\n"), "{answer}");
}
