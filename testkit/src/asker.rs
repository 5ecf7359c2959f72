//! A client of a service that keeps what it has asked, and counts its requests.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use atomic_matrix::{Client, Pending, ResponseError};

use crate::letter::{payload, read};

/// Bits of a response's index that tell which of the client's requests it answers; those above tell whose.
const INDEX_BITS: u32 = 24;

type Asked<'c> = Vec<(u64, Pending<'c, [u8], [u8]>)>;

self_cell::self_cell!(
    /// A client, and its requests that are not answered.
    struct Desk {
        owner: Client<[u8], [u8]>,
        #[covariant]
        dependent: Asked,
    }
);

/// Who answered a request; `None` when somebody said that nobody will.
pub(crate) type Answer = Option<usize>;

/// A client, its requests numbered from 0, and their answers.
pub(crate) struct Asker {
    owner: usize,
    desk: Desk,
    len_bytes: usize,
    /// Requests so far.
    pub asked: u64,
    /// By the request's number.
    pub answers: BTreeMap<u64, Answer>,
}

impl Asker {
    pub fn new(owner: usize, client: Client<[u8], [u8]>, len_bytes: usize) -> Self {
        let desk = Desk::new(client, |_| Vec::new());
        Self { owner, desk, len_bytes, asked: 0, answers: BTreeMap::new() }
    }

    /// Sends one request.
    ///
    /// # Errors
    /// It is refused.
    pub fn ask(&mut self) -> Result<()> {
        let request = payload(self.owner, self.asked, self.len_bytes);
        let index = self.asked;
        self.desk.with_dependent_mut(|client, asked| {
            asked.push((index, client.try_request(&request[..])?));
            anyhow::Ok(())
        })?;
        self.asked += 1;
        Ok(())
    }

    /// Takes the responses that are there, the last ones first, and checks every byte of them.
    ///
    /// # Errors
    /// One is not what was asked for.
    pub fn take(&mut self) -> Result<()> {
        let Self { owner, desk, answers, .. } = self;
        desk.with_dependent_mut(|_, asked| {
            for at in (0..asked.len()).rev() {
                let (index, pending) = &mut asked[at];
                let answer = match pending.try_wait() {
                    Ok(None) => continue,
                    Ok(Some(response)) => {
                        let (responder, answered) = read(response.bytes())?;
                        let right = answered == answer_to(*owner, *index);
                        ensure!(
                            right,
                            "request {index} of {owner} got the answer to {answered:#x}"
                        );
                        Some(responder)
                    }
                    Err(ResponseError::Unanswered) => None,
                    Err(error) => return Err(error.into()),
                };
                let again = answers.insert(*index, answer);
                ensure!(again.is_none(), "request {index} of {owner} was answered twice");
                drop(asked.remove(at));
            }
            Ok(())
        })
    }

    /// Returns how many requests have no answer yet.
    pub fn waiting(&self) -> u64 {
        self.desk.borrow_dependent().len() as u64
    }

    /// Returns how many responses nobody waited for.
    pub fn dropped(&self) -> u64 {
        self.desk.borrow_owner().dropped()
    }
}

/// The index of a response to such a request.
pub(crate) fn answer_to(owner: usize, index: u64) -> u64 {
    (owner as u64) << INDEX_BITS | index
}
