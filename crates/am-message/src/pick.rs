//! One kind among those of a set: whether a message is of it, and its payload as that.

use crate::{BadMessage, Item, KindOf, MessageSet, Owned, Received, Request, Response};

/// The payload of a message of kind `kind` as a `K`; `None` when that is another kind.
#[inline]
fn pick<S: MessageSet + ?Sized, K: KindOf<S> + ?Sized>(
    kind: u32,
    payload: &[u8],
) -> Result<Option<&K>, BadMessage> {
    if kind == K::INDEX { K::view(payload).map(Some) } else { Ok(None) }
}

impl<S: MessageSet + ?Sized> Received<'_, S> {
    /// Tells whether the message is of kind `K`. The payload is not looked at.
    #[must_use]
    #[inline]
    pub fn is<K: KindOf<S> + ?Sized>(&self) -> bool {
        self.info().kind == K::INDEX
    }

    /// Returns the payload as a `K`, where it lies; `None` when the message is of another kind.
    ///
    /// ```
    /// # use am_matrix::{Arena, Matrix, plan};
    /// use am_message::{MessageSet, Topic};
    ///
    /// #[derive(MessageSet)]
    /// enum Feed<'a> { Price(u64), Note(&'a str) }
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let matrix = Matrix::format(Arena::heap(1 << 20), &plan(1 << 20, 60, 30)?)?;
    /// # let topic = Topic::<Feed>::builder(&matrix, "eu").open_or_create()?;
    /// # let mut reader = topic.reader().open()?;
    /// topic.poster()?.post("halt")?;
    ///
    /// let message = reader.read();
    /// if let Some(note) = message.get::<str>()? {
    ///     assert_eq!(note, "halt");
    /// }
    /// assert_eq!(message.get::<u64>()?, None);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`BadMessage`] when it is said to be a `K` and is none: whoever posted it made it by other means.
    #[inline]
    pub fn get<K: KindOf<S> + ?Sized>(&self) -> Result<Option<&K>, BadMessage> {
        pick::<S, K>(self.info().kind, self.bytes())
    }
}

impl<'b, S: MessageSet + ?Sized> Item<'b, S> {
    /// As [`Received::is`].
    #[must_use]
    #[inline]
    pub fn is<K: KindOf<S> + ?Sized>(&self) -> bool {
        self.info().kind == K::INDEX
    }

    /// As [`Received::get`]; what it returns is there as long as the batch.
    ///
    /// # Errors
    /// As there.
    #[inline]
    pub fn get<K: KindOf<S> + ?Sized>(&self) -> Result<Option<&'b K>, BadMessage> {
        pick::<S, K>(self.info().kind, self.bytes())
    }
}

/// The same for what else shows a message, of the set `$set`.
macro_rules! pick_from {
    ($([$($set_or_other:ident),*] $shown:ty, $set:ident;)*) => {$(
        impl<$($set_or_other: MessageSet + ?Sized),*> $shown {
            /// As [`Received::is`].
            #[must_use]
            pub fn is<K: KindOf<$set> + ?Sized>(&self) -> bool {
                self.info().kind == K::INDEX
            }

            /// As [`Received::get`].
            ///
            /// # Errors
            /// As there.
            pub fn get<K: KindOf<$set> + ?Sized>(&self) -> Result<Option<&K>, BadMessage> {
                pick::<$set, K>(self.info().kind, self.bytes())
            }
        }
    )*};
}

pick_from! {
    [S] Owned<S>, S;
    [Q, A] Request<'_, Q, A>, Q;
    [Q, A] Response<'_, Q, A>, A;
}
