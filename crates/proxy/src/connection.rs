//! The life of one client connection: turn after turn, until one side has enough.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::Poll;

use crate::answer::{Answer, Shape};
use crate::client::Client;
use crate::clients::Room;
use crate::exchange::{self, End, Next};
use crate::http::Asked;
use crate::intake::{respond, Intake, Turn, RETRY_AFTER};
use crate::runtime::Stream;
use crate::tunnel;
use crate::worker::Worker;

/// Serves a client to its end. What only some connections are in, and none for ever, is on the heap
/// while it lasts: one that waits for its next request holds nothing of an exchange, and a tunnel
/// nothing of the request that it was. Without `room` it is only told so.
pub async fn serve(worker: &Rc<Worker>, stream: Stream, address: SocketAddr, room: Room) {
    let waker = poll_fn(|cx| Poll::Ready(cx.waker().clone())).await;
    let mut client = Client::new(worker.clone(), stream, address, waker);
    let retry_after = RETRY_AFTER;
    let refused = match room {
        Room::Free => None,
        Room::ProxyFull | Room::None(_) => Some(Answer::ProxyFull { retry_after }),
        Room::AddressFull => Some(Answer::AddressFull { retry_after }),
    };
    if let Some(answer) = refused {
        poll_fn(|cx| {
            respond(&mut client, cx, answer, &Asked::NOTHING, Shape::Json, true);
            Poll::Ready(())
        })
        .await;
        return Box::pin(client.linger()).await;
    }
    let body_limit = worker.settings.times.body;
    let mut intake = Intake::default();
    loop {
        intake.begin(&client);
        let turn = poll_fn(|cx| intake.poll(&mut client, cx)).await;
        match turn {
            Turn::Gone => return,
            Turn::NoTable => {
                intake.no_table = !Box::pin(worker.has_table()).await;
                continue;
            }
            Turn::Answered { keep, mut unread } => {
                let kept =
                    keep && client.flush(body_limit).await && client.read_away(&mut unread).await;
                if !kept {
                    return Box::pin(client.linger()).await;
                }
            }
            Turn::Forward(request) => {
                let end = match Box::pin(exchange::run(&mut client, request)).await {
                    Next::End(end) => end,
                    Next::Tunnel(granted) => Box::pin(tunnel::run(&mut client, granted)).await,
                };
                match end {
                    End::Keep => {}
                    // What was sent ahead is never read: closing at once would reset the answer
                    // away.
                    End::Close if client.is_quiet().await => return,
                    End::Close | End::Linger => return Box::pin(client.linger()).await,
                    End::Break => return,
                    End::Reset => return client.reset(),
                }
            }
        }
        intake.again = true;
    }
}
