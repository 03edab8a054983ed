//! Where the streams of a process lead: to the call that started it, or into what is kept of it.

use std::rc::Rc;

use hyperfleet_wire::guest::{FromGuest, MAX_CHUNK};
use serde_bytes::ByteBuf;

use crate::answers::Answers;
use crate::credit::Credit;
use crate::kept::Kept;
use crate::output::Kind;

/// One process's.
pub enum Way {
    /// To call `id`; `credit`: how much may be told now, if that is counted.
    Call {
        id: u32,
        credit: Option<Rc<Credit>>,
        answers: Answers,
    },
    /// To whoever is attached.
    Kept(Rc<Kept>),
}

impl Way {
    /// How many bytes of output may be read now; waits while it may be none.
    pub async fn most(&self) -> usize {
        match self {
            Self::Call { credit: None, .. } => MAX_CHUNK,
            Self::Call {
                credit: Some(credit),
                ..
            } => credit.some().await.min(MAX_CHUNK),
            Self::Kept(kept) => kept.room().await.min(MAX_CHUNK),
        }
    }

    /// Takes output, not more than `most` said.
    pub async fn tell(&self, kind: Kind, data: Vec<u8>) {
        match self {
            Self::Call {
                id,
                credit,
                answers,
            } => {
                if let Some(credit) = credit {
                    credit.spend(data.len());
                }
                answers.send(output(*id, kind, data)).await;
            }
            Self::Kept(kept) => kept.add(kind, &data),
        }
    }

    /// The process has taken so many bytes of its input, or never will.
    pub async fn input_taken(&self, bytes: u32) {
        match self {
            Self::Call { id, answers, .. } => {
                answers.send(FromGuest::StdinTaken { id: *id, bytes }).await;
            }
            Self::Kept(kept) => kept.input_taken(bytes).await,
        }
    }
}

/// A piece of output as the host is told it.
pub fn output(id: u32, kind: Kind, data: Vec<u8>) -> FromGuest {
    let data = ByteBuf::from(data);
    match kind {
        Kind::Stdout => FromGuest::Stdout { id, data },
        Kind::Stderr => FromGuest::Stderr { id, data },
    }
}
