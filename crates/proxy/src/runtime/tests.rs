//! Tasks, wakes, deadlines and sockets, with real ones of the system.

use std::cell::Cell;
use std::future::{pending, poll_fn, Future};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::rc::Rc;
use std::task::{ready, Poll, Waker};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot, Notify};

use super::*;

const SOON: Duration = Duration::from_millis(20);

/// Long enough for a machine that is busy with other things.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs `test`, in which no task may panic.
fn run<T>(test: impl Future<Output = T>) -> T {
    let over = block_on(|| panic!("a task panicked"), timeout(PATIENCE, test));
    over.unwrap().expect("it ends")
}

/// A connection's two ends; the far one blocks.
async fn pair() -> (Stream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let near = Stream::connect(listener.local_addr().unwrap());
    (near.await.unwrap(), listener.accept().unwrap().0)
}

async fn read(stream: &Stream, size: usize) -> io::Result<Vec<u8>> {
    let mut buffer = vec![0; size];
    let count = poll_fn(|cx| stream.poll_read(cx, &mut buffer)).await?;
    buffer.truncate(count);
    Ok(buffer)
}

#[test]
fn wakes_of_other_threads_are_never_lost() {
    run(async {
        let (sender, mut receiver) = mpsc::unbounded_channel();
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let sender = sender.clone();
                std::thread::spawn(move || (0..5000).for_each(|n| sender.send(n).unwrap()))
            })
            .collect();
        drop(sender);
        let (told, count) = oneshot::channel();
        spawn(async move {
            let mut count = 0;
            while receiver.recv().await.is_some() {
                count += 1;
            }
            told.send(count).unwrap();
        });
        assert_eq!(count.await.unwrap(), 20_000);
        threads
            .into_iter()
            .for_each(|thread| thread.join().unwrap());
    });
}

#[test]
fn another_thread_wakes_a_runtime_that_waits_for_nothing_else() {
    for _ in 0..100 {
        let (sender, receiver) = oneshot::channel();
        let thread = std::thread::spawn(move || sender.send(7));
        assert_eq!(run(receiver), Ok(7));
        thread.join().unwrap().unwrap();
    }
}

#[test]
fn a_panic_ends_its_task_only_and_is_told() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("at the task's end");
        }
    }
    let panics = Cell::new(0);
    let other = block_on(|| panics.set(panics.get() + 1), async {
        let (told, other) = oneshot::channel();
        spawn(async { panic!("in the task") });
        spawn(async {
            let _bomb = Bomb;
            yield_now().await;
        });
        spawn(async {
            yield_now().await;
            yield_now().await;
            told.send("lives").unwrap();
        });
        other.await
    });
    assert_eq!(other.unwrap(), Ok("lives"));
    assert_eq!(panics.get(), 2);
}

#[test]
fn what_is_left_is_dropped_at_the_end_and_old_wakers_wake_nobody() {
    struct Noted(Rc<Cell<u32>>);
    impl Drop for Noted {
        fn drop(&mut self) {
            self.0.set(self.0.get() + 1);
        }
    }
    let dropped = Rc::new(Cell::new(0));
    let noted = [Noted(dropped.clone()), Noted(dropped.clone())];
    let waker: Waker = run(async {
        for noted in noted {
            spawn(async move {
                let _noted = noted;
                pending::<()>().await;
            });
        }
        yield_now().await;
        poll_fn(|cx| Poll::Ready(cx.waker().clone())).await
    });
    assert_eq!(dropped.get(), 2);
    waker.wake_by_ref();
    let thread = std::thread::spawn(move || waker.wake());
    thread.join().unwrap();
    run(yield_now());
}

#[test]
fn a_task_that_always_has_work_leaves_the_others_their_turn() {
    run(async {
        let (near, mut far) = pair().await;
        let over = Rc::new(Cell::new(false));
        let seen = over.clone();
        spawn(async move {
            while !seen.get() {
                yield_now().await;
            }
        });
        // It wakes itself at once, which is no reason not to ask the system.
        let seen = over.clone();
        spawn(poll_fn(move |cx| {
            cx.waker().wake_by_ref();
            if seen.get() {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        }));
        let thread = std::thread::spawn(move || {
            far.write_all(b"!").unwrap();
            far
        });
        assert_eq!(read(&near, 9).await.unwrap(), b"!");
        sleep(SOON).await;
        over.set(true);
        thread.join().unwrap();
    });
}

#[test]
fn deadlines_are_in_order_and_never_early() {
    // No other deadline is there than its own.
    let over = block_on(|| (), async {
        let began = Instant::now();
        let (first, second) = (Notify::new(), Cell::new(false));
        let order = async {
            sleep(SOON * 2).await;
            assert!(second.replace(true));
            first.notify_one();
        };
        let other = async {
            sleep(SOON).await;
            assert!(!second.replace(true));
            first.notified().await;
        };
        tokio::join!(order, other);
        assert!(began.elapsed() >= SOON * 2);
        assert_eq!(timeout(SOON, pending::<()>()).await, None);
        assert_eq!(timeout(Duration::MAX / 4, async { 7 }).await, Some(7));
        // One that was given up wakes nobody, and is not waited for.
        let given_up = Instant::now();
        timeout(SOON, sleep(Duration::from_secs(3600))).await;
        assert!(executor::with_timers(|timers| timers.next().is_none()));
        assert!(given_up.elapsed() >= SOON);
    });
    over.unwrap();
}

#[test]
fn a_connection_that_is_refused_says_so() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let refused = run(Stream::connect(address)).err().unwrap();
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
}

#[test]
fn the_end_that_comes_with_the_last_bytes_is_seen() {
    run(async {
        for registered in [false, true] {
            let (near, mut far) = pair().await;
            if registered {
                assert_eq!(timeout(SOON, read(&near, 1)).await.map(drop), None);
            }
            far.write_all(b"last").unwrap();
            drop(far);
            sleep(SOON).await;
            assert_eq!(read(&near, 100).await.unwrap(), b"last");
            assert_eq!(read(&near, 100).await.unwrap(), b"");
            assert_eq!(read(&near, 100).await.unwrap(), b"");
        }
    });
}

#[test]
fn a_reset_is_an_error_for_who_reads() {
    run(async {
        let (near, far) = pair().await;
        socket2::SockRef::from(&far)
            .set_linger(Some(Duration::ZERO))
            .unwrap();
        let thread = std::thread::spawn(move || drop(far));
        let error = read(&near, 1).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        thread.join().unwrap();
    });
}

#[test]
fn who_writes_waits_for_a_slow_reader_and_all_arrives() {
    run(async {
        let (near, mut far) = pair().await;
        let bytes: Vec<u8> = (0..16u32 << 20).map(|at| (at >> 7) as u8).collect();
        let mut sent = 0;
        let full = poll_fn(|cx| {
            while let Poll::Ready(count) = near.poll_write(cx, &bytes[sent..]) {
                sent += count.unwrap();
            }
            Poll::Ready(sent)
        });
        assert!(full.await < bytes.len());
        let thread = std::thread::spawn(move || {
            let mut got = Vec::new();
            far.read_to_end(&mut got).unwrap();
            got
        });
        poll_fn(|cx| {
            while sent < bytes.len() {
                sent += ready!(near.poll_write(cx, &bytes[sent..])).unwrap();
            }
            Poll::Ready(())
        })
        .await;
        near.shut();
        assert_eq!(read(&near, 1).await.unwrap(), b"");
        assert!(thread.join().unwrap() == bytes);
    });
}

#[test]
fn a_socket_in_a_closed_ones_place_hears_nothing_of_it() {
    run(async {
        for _ in 0..50 {
            let (old, mut old_far) = pair().await;
            let (new, mut new_far) = pair().await;
            let waiting = timeout(Duration::from_millis(1), read(&old, 1));
            assert!(waiting.await.is_none());
            // News of it is on its way when it is closed.
            old_far.write_all(b"old").unwrap();
            drop(old);
            assert!(timeout(Duration::from_millis(1), read(&new, 9))
                .await
                .is_none());
            new_far.write_all(b"new").unwrap();
            assert_eq!(read(&new, 9).await.unwrap(), b"new");
        }
    });
}

#[test]
fn many_that_connect_at_once_are_all_accepted_with_their_addresses() {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let mut clients: Vec<SocketAddr> = Vec::new();
        let kept: Vec<TcpStream> = (0..100)
            .map(|_| TcpStream::connect(address).unwrap())
            .inspect(|client| clients.push(client.local_addr().unwrap()))
            .collect();
        let listener = Listener::new(listener).unwrap();
        let mut accepted = Vec::new();
        for _ in 0..100 {
            let (_, peer) = listener.accept().await.unwrap();
            accepted.push(peer);
        }
        assert_eq!(accepted, clients);
        assert!(timeout(SOON, listener.accept()).await.is_none());
        drop(kept);
        let late = std::thread::spawn(move || TcpStream::connect(address).unwrap());
        listener.accept().await.unwrap();
        late.join().unwrap();
    });
}

#[test]
fn what_is_only_worth_a_read_is_told_from_what_has_come() {
    run(async {
        let (near, mut far) = pair().await;
        far.write_all(b"12345").unwrap();
        // Just what was wanted: there may be more.
        assert_eq!(read(&near, 5).await.unwrap(), b"12345");
        poll_fn(|cx| {
            assert!(near.poll_read_ready(cx).is_ready());
            assert!(near.poll_arrived(cx).is_pending());
            Poll::Ready(())
        })
        .await;
        far.write_all(b"6").unwrap();
        poll_fn(|cx| near.poll_arrived(cx)).await.unwrap();
        // It was looked at, and not taken.
        assert_eq!(read(&near, 9).await.unwrap(), b"6");
        drop(far);
        poll_fn(|cx| near.poll_arrived(cx)).await.unwrap();
        assert_eq!(read(&near, 9).await.unwrap(), b"");
    });
}
