//! The life of one client connection: turn after turn, until one side has enough.

use std::future::poll_fn;
use std::task::Poll;

use crate::account::Account;
use crate::answer::{Answer, Shape};
use crate::body::Body;
use crate::client::Client;
use crate::clients::Room;
use crate::exchange::{self, End, Next};
use crate::http::Asked;
use crate::intake::{respond, Intake, Turn, RETRY_AFTER};
use crate::tunnel;

/// Serves a client to its end. What only some connections are in, and none for ever, is on the heap
/// while it lasts: one that waits for its next request holds nothing of an exchange, and a tunnel
/// nothing of the request that it was. Without `room` it is only told so.
pub async fn serve(client: &mut Client, room: Room) {
    let retry_after = RETRY_AFTER;
    let refused = match room {
        Room::Free => None,
        Room::ProxyFull | Room::None(_) => Some(Answer::ProxyFull { retry_after }),
        Room::AddressFull => Some(Answer::AddressFull { retry_after }),
    };
    if let Some(answer) = refused {
        return Box::pin(refuse(client, answer)).await;
    }
    let mut intake = Intake::default();
    loop {
        intake.begin(client);
        let turn = poll_fn(|cx| intake.poll(client, cx)).await;
        match turn {
            Turn::Gone => return,
            Turn::NoTable => {
                intake.no_table = !Box::pin(client.worker.has_table()).await;
                continue;
            }
            Turn::Answered { keep, unread } => {
                if !keep || !Box::pin(settle(client, unread)).await {
                    return Box::pin(client.linger()).await;
                }
            }
            Turn::Forward(request) => {
                let end = match Box::pin(exchange::run(client, request)).await {
                    Next::End(end) => end,
                    Next::Tunnel(granted) => Box::pin(tunnel::run(client, granted)).await,
                };
                match end {
                    End::Keep => {}
                    // What was sent ahead is never read: closing at once would reset the answer
                    // away.
                    End::Close if client.is_quiet().await => return,
                    End::Close | End::Linger => return Box::pin(client.linger()).await,
                    End::Done | End::Break => return,
                    End::Reset => return client.reset(),
                }
            }
        }
        intake.again = true;
    }
}

/// After an answer of the proxy's own: whether the client took it, and what it was still sending.
async fn settle(client: &mut Client, mut unread: Body) -> bool {
    let limit = client.worker.settings.times.body;
    client.flush(limit).await && client.read_away(&mut unread).await
}

/// Tells a client that there is no room for it.
async fn refuse(client: &mut Client, answer: Answer) {
    poll_fn(|cx| {
        let account = Account::begin(client, None);
        respond(
            client,
            cx,
            answer,
            &Asked::NOTHING,
            Shape::Json,
            true,
            account,
        );
        Poll::Ready(())
    })
    .await;
    client.linger().await;
}
