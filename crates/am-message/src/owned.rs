//! Messages taken out of the segment.

use crate::{BadMessage, Info, Item, MessageSet, Received, Seq};
use std::marker::PhantomData;

/// A copy of a message, which no longer keeps anybody waiting.
pub struct Owned<S: MessageSet + ?Sized> {
    info: Info,
    /// The payload lies in here, where it is as aligned as its kind demands.
    store: Box<[u8]>,
    first: usize,
    _set: PhantomData<fn() -> Box<S>>,
}

impl<S: MessageSet + ?Sized> Owned<S> {
    fn of(info: Info, payload: &[u8]) -> Self {
        let align_bytes = S::KINDS.get(info.kind as usize).map_or(1, |kind| kind.align_bytes);
        let mut store = vec![0; payload.len() + align_bytes - 1].into_boxed_slice();
        let first = store.as_ptr().addr().wrapping_neg() % align_bytes;
        store[first..][..payload.len()].copy_from_slice(payload);
        Self { info, store, first, _set: PhantomData }
    }

    /// Returns what the message is.
    ///
    /// # Errors
    /// [`BadMessage`] when it is none of its kind: whoever posted it made it by other means.
    pub fn view(&self) -> Result<S::View<'_>, BadMessage> {
        S::view(self.info.kind, self.bytes())
    }

    /// Returns the payload's bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.store[self.first..][..self.info.len_bytes]
    }

    /// Returns what is known of it.
    #[must_use]
    pub fn info(&self) -> Info {
        self.info
    }

    /// Returns its number in the topic, from 0.
    #[must_use]
    pub fn seq(&self) -> Seq {
        self.info.seq
    }
}

impl<S: MessageSet + ?Sized> Received<'_, S> {
    /// Copies the message, to keep it when this one is let go.
    #[must_use]
    pub fn copied(&self) -> Owned<S> {
        Owned::of(self.info(), self.bytes())
    }
}

impl<S: MessageSet + ?Sized> Item<'_, S> {
    /// As [`Received::copied`].
    #[must_use]
    pub fn copied(&self) -> Owned<S> {
        Owned::of(self.info(), self.bytes())
    }
}

impl<S: MessageSet + ?Sized> Clone for Owned<S> {
    fn clone(&self) -> Self {
        // Anew: a copy of the store is aligned otherwise.
        Self::of(self.info, self.bytes())
    }
}

impl<S: MessageSet + ?Sized> std::fmt::Debug for Owned<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Owned({:?})", self.info)
    }
}
