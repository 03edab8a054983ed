//! The page that a browser's navigation gets in place of a JSON error.

use crate::answer::Answer;
use crate::http::{Part, Reject};
use crate::route::Destination;

pub(crate) const MEDIA_TYPE: &str = "text/html; charset=utf-8";

/// Further fields of a page: it loads nothing, runs nothing, and depends on what was asked for.
pub(crate) const FIELDS: &[u8] =
    b"Content-Security-Policy: default-src 'none'; style-src 'unsafe-inline'\r\n\
      X-Content-Type-Options: nosniff\r\nVary: Accept, Sec-Fetch-Mode\r\n";

const STYLE: &str = "body{font:1.1rem/1.5 system-ui,sans-serif;max-width:38rem;margin:15vh auto;\
    padding:0 1.5rem;color:#1c2430;background:#fff}h1{font-size:1.6rem;margin:0 0 1rem}\
    code{font-family:ui-monospace,monospace;background:#eef1f5;padding:.1em .3em;border-radius:.2em}\
    .code{color:#5b6675;font-size:.9rem}\
    @media(prefers-color-scheme:dark){body{color:#e6eaf0;background:#14181f}\
    code{background:#232a35}.code{color:#98a3b3}}";

/// The whole page: what happened (`text`, as the JSON says it), to what, and what to do next.
pub(crate) fn render(answer: Answer, text: &str, destination: Option<&Destination>) -> Vec<u8> {
    let status = answer.status();
    let mut page = String::with_capacity(2048);
    page.push_str("<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n");
    page.push_str("<meta name=\"viewport\" content=\"width=device-width\">\n<title>");
    escape(text, &mut page);
    page.push_str("</title>\n<style>");
    page.push_str(STYLE);
    page.push_str("</style>\n</head>\n<body>\n<h1>");
    escape(text, &mut page);
    page.push_str("</h1>\n");
    if let Some(destination) = destination.filter(|to| !to.machine.is_empty()) {
        page.push_str("<p>This address is for port <code>");
        escape(&destination.port.to_string(), &mut page);
        page.push_str("</code> of machine <code>");
        escape(destination.machine.as_str(), &mut page);
        page.push_str("</code>.</p>\n");
    }
    page.push_str("<p>");
    page.push_str(advice(answer));
    page.push_str("</p>\n<p class=\"code\">");
    escape(&format!("{status} {}", answer.code()), &mut page);
    page.push_str("</p>\n</body>\n</html>\n");
    page.into_bytes()
}

/// What to do next; HTML.
fn advice(answer: Answer) -> &'static str {
    match answer {
        Answer::MachineNotFound => {
            "No machine has this id or name. Check the address; the machine may have been deleted."
        }
        Answer::MachineNotRunning => "Start the machine, then reload this page.",
        Answer::PortNotExposed(_) => {
            "Add the port to the machine\u{2019}s <code>exposed_ports</code>, then reload this page."
        }
        Answer::ConnectFailed => {
            "Nothing answers on this port yet. Start the server in the machine, then reload this page."
        }
        Answer::InvalidResponse => {
            "The server in the machine sent something that is not a valid HTTP response. \
             Check that it speaks HTTP (not HTTPS) on this port, and its log."
        }
        Answer::UpstreamTimeout => {
            "The server in the machine took too long. Check that it is not overloaded or stuck, \
             then reload this page."
        }
        Answer::OverCapacity { .. }
        | Answer::ProxyFull { .. }
        | Answer::AddressFull { .. }
        | Answer::NoRoutes { .. } => "Wait a moment, then reload this page.",
        Answer::NotFound => {
            "The address names no machine and port. It should hold both: \
             <code>/{machine}/{port}/</code> after the proxy\u{2019}s prefix, or \
             <code>{machine}-{port}</code> before its host suffix."
        }
        Answer::RequestTimeout => "The request took too long to arrive. Reload this page.",
        Answer::Rejected(Reject::TooLarge(Part::Body)) => "Send less at once.",
        Answer::Rejected(Reject::TooLarge(_)) => {
            "Shorten the address, or delete this site\u{2019}s cookies, then try again."
        }
        Answer::Rejected(_) => "The request is not valid HTTP. Check the program that sent it.",
    }
}

/// Appends `text` with everything escaped that means something in HTML.
fn escape(text: &str, out: &mut String) {
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            other => out.push(other),
        }
    }
}
