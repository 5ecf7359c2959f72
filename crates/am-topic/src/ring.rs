//! The ring itself: slots, their notes and cells, found by number.

use crate::layout::Shape;
use crate::slot::{NOTE, SLOT_WIDES, Slot};
use am_layout::Wide;

/// The slots of a topic, and their cells. Small enough to be copied into a loop.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ring<'a> {
    /// As many as a power of two.
    slots: &'a [[Wide; SLOT_WIDES]],
    notes: &'a [[Wide; NOTE]],
    cells: &'a [Wide],
    cell_wides: usize,
}

impl<'a> Ring<'a> {
    /// The ring in the wide words behind the fixed ones: a topic's shape says how many.
    pub fn over(wides: &'a [Wide], shape: &Shape) -> Self {
        let (slots, rest) = wides.split_at(SLOT_WIDES * shape.slots() as usize);
        let (notes, cells) = rest.split_at(NOTE * shape.slots() as usize);
        let (slots, notes) = (slots.as_chunks().0, notes.as_chunks().0);
        Self { slots, notes, cells, cell_wides: shape.cell_wides() }
    }

    #[inline]
    pub fn slot(&self, number: u64) -> Slot<'a> {
        let index = self.index_of(number);
        Slot::new(&self.slots[index], self.notes, index)
    }

    /// The cell of a slot; empty when there are none.
    #[inline]
    pub fn cell(&self, number: u64) -> &'a [Wide] {
        let at = self.cell_wides * self.index_of(number);
        self.cells.get(at..at + self.cell_wides).unwrap_or_default()
    }

    /// Where a slot and its cell stand; of the second only where it would, if there is none.
    #[inline]
    pub fn lines(&self, number: u64) -> (*const Wide, *const Wide) {
        let cell = self.cells.as_ptr().wrapping_add(self.cell_wides * self.index_of(number));
        (self.slot(number).as_ptr(), cell)
    }

    /// Goes from slot to slot, round and round, beginning with that of `number`.
    #[inline]
    pub fn walk(&self, number: u64) -> Walk<'a> {
        let index = self.index_of(number);
        let (slots, cells) = (&self.slots[index..], &self.cells[self.cell_wides * index..]);
        Walk { ring: *self, index, slots: slots.iter(), cells }
    }

    #[inline]
    fn index_of(&self, number: u64) -> usize {
        number as usize & (self.slots.len() - 1)
    }
}

/// Slots and their cells, one after the other.
#[derive(Clone, Debug)]
pub(crate) struct Walk<'a> {
    ring: Ring<'a>,
    index: usize,
    slots: core::slice::Iter<'a, [Wide; SLOT_WIDES]>,
    cells: &'a [Wide],
}

impl<'a> Iterator for Walk<'a> {
    type Item = (Slot<'a>, &'a [Wide]);

    #[inline(always)]
    fn next(&mut self) -> Option<Self::Item> {
        if self.slots.as_slice().is_empty() {
            (self.slots, self.cells) = (self.ring.slots.iter(), self.ring.cells);
            self.index = 0;
        }
        let slot = Slot::new(self.slots.next()?, self.ring.notes, self.index);
        self.index += 1;
        let (cell, cells) = self.cells.split_at_checked(self.ring.cell_wides)?;
        self.cells = cells;
        Some((slot, cell))
    }
}
