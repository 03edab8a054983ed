//! What has happened in the guest and is worth a look of the host's, counted; and how it stands with
//! the machine's command. A host that watches
//! is answered when the count is not the one it has seen; so it is told once for each question, and
//! of many things at once only that there were some.

use hyperfleet_wire::guest::{CommandState, FromGuest};
use tokio::sync::{oneshot, watch};

use crate::answers::Answers;

/// The count. It begins at 1, so that a host which has seen none is answered at once: what was
/// before it could hear of any may have escaped it. Clones share it.
#[derive(Clone)]
pub struct News {
    now: watch::Sender<Now>,
}

struct Now {
    number: u64,
    command: Option<CommandState>,
}

/// A `watch` that is not answered yet. Dropped, it is answered as things stand.
pub struct Watch {
    _given_up: oneshot::Sender<()>,
}

impl News {
    pub fn new() -> Self {
        Self {
            now: watch::Sender::new(Now {
                number: 1,
                command: None,
            }),
        }
    }

    /// Something has happened.
    pub fn add(&self) {
        self.now.send_modify(|now| now.number += 1);
    }

    /// The machine's command is so now.
    pub fn command(&self, state: CommandState) {
        self.now.send_modify(|now| {
            now.number += 1;
            now.command = Some(state);
        });
    }

    /// Answers call `id` of a host that has seen as many as `seen`, when there are others.
    pub fn watch(&self, id: u32, seen: u64, answers: Answers) -> Watch {
        let (giving_up, given_up) = oneshot::channel();
        let mut told = self.now.subscribe();
        tokio::task::spawn_local(async move {
            tokio::select! {
                _ = told.wait_for(|now| now.number != seen) => {}
                _ = given_up => {}
            }
            let news = {
                let now = told.borrow();
                FromGuest::News {
                    id,
                    number: now.number,
                    command: now.command,
                }
            };
            answers.send(news).await;
        });
        Watch {
            _given_up: giving_up,
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::task::LocalSet;

    use super::*;
    use crate::answers::Queue;

    fn told(id: u32, number: u64) -> FromGuest {
        FromGuest::News {
            id,
            number,
            command: None,
        }
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_host_is_told_once_for_each_question_and_when_there_is_something() {
        let work = async {
            let (news, mut queue) = (News::new(), Queue::new());
            let answers = queue.next_session();
            let _first = news.watch(1, 0, answers.clone());
            assert_eq!(queue.next().await, told(1, 1));
            let _second = news.watch(2, 1, answers.clone());
            news.add();
            news.add();
            assert_eq!(queue.next().await, told(2, 3));
            let _third = news.watch(3, 1, answers.clone());
            assert_eq!(queue.next().await, told(3, 3));
        };
        LocalSet::new().run_until(work).await;
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_watch_that_another_takes_the_place_of_is_answered_all_the_same() {
        let work = async {
            let (news, mut queue) = (News::new(), Queue::new());
            let answers = queue.next_session();
            let first = news.watch(1, 1, answers.clone());
            drop(first);
            assert_eq!(queue.next().await, told(1, 1));
        };
        LocalSet::new().run_until(work).await;
    }
}
