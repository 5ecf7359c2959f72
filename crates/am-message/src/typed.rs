//! Loans of a type: filled in field by field, where the message will lie.

use crate::error::PostError;
use crate::{Kind, KindOf, Loan, Message, MessageSet, Poster, Receipt};
use bytemuck::Pod;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};

/// A [`Loan`] that derefs to what is filled in: a message `T`, or a slice `[T]`.
///
/// For types of which every bit pattern is a value (`Pod`): then not even a peer that scribbles can make it
/// anything else.
#[derive(Debug)]
pub struct TypedLoan<'p, S: MessageSet + ?Sized, K: ?Sized> {
    loan: Loan<'p, S>,
    _kind: PhantomData<fn(&K)>,
}

impl<S: MessageSet + ?Sized> Poster<S> {
    /// Lends memory for a message of that type, to be changed where it lies; it is a copy of `value` at first.
    ///
    /// ```
    /// # use am_matrix::{Arena, Matrix, plan};
    /// use am_message::{Message, Topic};
    /// use bytemuck::{Pod, Zeroable};
    ///
    /// #[derive(Message, Pod, Zeroable, Clone, Copy, Debug, PartialEq)]
    /// #[repr(C)]
    /// struct Tick { sym: u32, px: u32 }
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let matrix = Matrix::format(Arena::heap(1 << 20), &plan(1 << 20, 60, 30)?)?;
    /// # let topic = Topic::<Tick>::builder(&matrix, "t").open_or_create()?;
    /// # let mut reader = topic.reader().open()?;
    /// let poster = topic.poster()?;
    /// let mut loan = poster.loan_value(Tick { sym: 7, px: 0 })?;
    /// loan.px = 3;
    /// loan.commit()?;
    /// assert_eq!(reader.read().view()?, &Tick { sym: 7, px: 3 });
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`PostError::Memory`].
    pub fn loan_value<T: Message + Pod + KindOf<S>>(
        &self,
        value: T,
    ) -> Result<TypedLoan<'_, S, T>, PostError> {
        Ok(TypedLoan { loan: self.loan(value)?, _kind: PhantomData })
    }

    /// Lends memory for a slice of `len` messages; they hold whatever lay there before.
    ///
    /// # Errors
    /// [`PostError::Memory`], [`PostError::TooLong`].
    pub fn loan_slice<T: Message + Pod>(
        &self,
        len: usize,
    ) -> Result<TypedLoan<'_, S, [T]>, PostError>
    where
        [T]: KindOf<S>,
    {
        let bytes = len.saturating_mul(size_of::<T>());
        let loan = self.lend(bytes, <[T] as Kind>::ALIGN_BYTES, <[T] as KindOf<S>>::INDEX)?;
        Ok(TypedLoan { loan, _kind: PhantomData })
    }
}

impl<S: MessageSet + ?Sized, K: ?Sized> TypedLoan<'_, S, K> {
    /// As [`Loan::commit`].
    ///
    /// # Errors
    /// As there.
    pub fn commit(self) -> Result<Receipt, PostError> {
        self.loan.commit()
    }

    /// As [`Loan::try_commit`].
    ///
    /// # Errors
    /// As there.
    pub fn try_commit(self) -> Result<Receipt, (Option<Self>, PostError)> {
        self.loan
            .try_commit()
            .map_err(|(loan, error)| (loan.map(|loan| Self { loan, _kind: PhantomData }), error))
    }
}

// The casts cannot fail: the loan was made for just this length and alignment.

impl<S: MessageSet + ?Sized, T: Message + Pod> Deref for TypedLoan<'_, S, T> {
    type Target = T;

    fn deref(&self) -> &T {
        bytemuck::from_bytes(&self.loan)
    }
}

impl<S: MessageSet + ?Sized, T: Message + Pod> DerefMut for TypedLoan<'_, S, T> {
    fn deref_mut(&mut self) -> &mut T {
        bytemuck::from_bytes_mut(&mut self.loan)
    }
}

impl<S: MessageSet + ?Sized, T: Message + Pod> Deref for TypedLoan<'_, S, [T]> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        bytemuck::cast_slice(&self.loan)
    }
}

impl<S: MessageSet + ?Sized, T: Message + Pod> DerefMut for TypedLoan<'_, S, [T]> {
    fn deref_mut(&mut self) -> &mut [T] {
        bytemuck::cast_slice_mut(&mut self.loan)
    }
}
