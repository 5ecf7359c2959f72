//! The victim: every call of a matrix, on a segment that is being damaged.

use std::alloc::Layout;
use std::hint::black_box;

use am_matrix::{Block, Error, Matrix, Offset, TypedBlock};
use atomic_matrix::bytemuck::Pod;

use super::bed::{Bed, Handle};
use super::death::die;
use super::messages::Correspondent;
use super::service::Bureau;
use super::step::{Asking, Operation, Raw, Telling};
use crate::product;

/// Blocks and offsets that the victim keeps, each; more are freed at once.
const KEPT_MAX: usize = 16;
/// Columns of a map, at most; more than the call draws.
const WIDTH_MAX: u16 = 2000;

/// A value of many words, for typed blocks.
type Wide = [u64; 12];

/// What is wrong: a call gave something that no damage excuses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken(pub String);

/// How many calls there were, and how many of them were refused.
#[derive(Clone, Copy, Debug, Default)]
pub struct Calls {
    /// Calls made.
    pub made: u64,
    /// Calls that returned an error.
    pub refused: u64,
}

/// The victim of a round. Its guards may overlap once the segment is damaged, so what their
/// payloads hold proves nothing, and is not looked at; that they lie in the segment is.
pub struct Player<'m> {
    bed: &'m Bed,
    handles: &'m [Handle],
    turn: usize,
    held: Vec<Block<'m>>,
    given: Vec<Offset>,
    mail: Correspondent,
    bureau: Bureau,
    /// What was done so far.
    pub calls: Calls,
}

impl<'m> Player<'m> {
    /// Makes a victim that uses the handles in turn.
    ///
    /// # Panics
    /// When there is no handle.
    #[must_use]
    pub fn new(bed: &'m Bed, handles: &'m [Handle]) -> Self {
        assert!(!handles.is_empty(), "a victim without a handle");
        let (held, given) = (Vec::new(), Vec::new());
        let (mail, bureau) = (Correspondent::default(), Bureau::default());
        Self { bed, handles, turn: 0, held, given, mail, bureau, calls: Calls::default() }
    }

    /// Performs one call about messages.
    ///
    /// # Errors
    /// As [`perform`](Self::perform).
    pub fn tell(&mut self, telling: Telling) -> Result<(), Broken> {
        self.turn += 1;
        let matrix: &'m Matrix = &self.handles[self.turn % self.handles.len()];
        let mut mail = std::mem::take(&mut self.mail);
        let told = mail.tell(self, matrix, telling);
        self.mail = mail;
        told
    }

    /// Performs one call about a service.
    ///
    /// # Errors
    /// As [`perform`](Self::perform).
    pub fn ask(&mut self, asking: Asking) -> Result<(), Broken> {
        self.turn += 1;
        let matrix: &'m Matrix = &self.handles[self.turn % self.handles.len()];
        let mut bureau = std::mem::take(&mut self.bureau);
        let asked = bureau.ask(self, matrix, asking);
        self.bureau = bureau;
        asked
    }

    /// Performs one operation.
    ///
    /// # Errors
    /// [`Broken`], when the answer is none that the call may give.
    pub fn perform(&mut self, operation: Operation) -> Result<(), Broken> {
        self.turn += 1;
        let handles = self.handles;
        let matrix: &'m Matrix = &handles[self.turn % handles.len()];
        match operation {
            Operation::Allocate { size } => self.keep(matrix.allocate(size.bytes()))?,
            Operation::AllocateZeroed { size } => {
                self.keep(matrix.allocate_zeroed(size.bytes()))?;
            }
            Operation::AllocateAligned { size, shift } => {
                let bytes = size.bytes().min(isize::MAX as usize >> 1);
                if let Ok(layout) = Layout::from_size_align(bytes, 1 << (shift % 15)) {
                    self.keep(matrix.allocate_aligned(layout))?;
                }
            }
            Operation::AllocateOffset { size } => {
                let got = matrix.allocate_offset(size.bytes());
                self.keep_offset(got);
            }
            Operation::AllocateValue { wide: true } => {
                self.keep_value(matrix.allocate_value([7_u64; 12]))?;
            }
            Operation::AllocateValue { wide: false } => {
                self.keep_value(matrix.allocate_value(7_u32))?;
            }
            Operation::AllocateMany { count, size } => {
                let got = matrix.allocate_many(count.into(), size.bytes());
                for block in self.seen(got).into_iter().flatten() {
                    self.keep(Ok(block))?;
                }
            }
            other => self.perform_with_blocks(matrix, other)?,
        }
        Ok(())
    }

    fn perform_with_blocks(
        &mut self,
        matrix: &'m Matrix,
        operation: Operation,
    ) -> Result<(), Broken> {
        match operation {
            Operation::Drop { which } => drop(self.pick(which)),
            Operation::Free { which } => {
                if let Some(block) = self.pick(which) {
                    self.seen(block.free());
                }
            }
            Operation::FreeMany { count } => {
                let first = self.held.len().saturating_sub(count.into());
                matrix.free_many(self.held.drain(first..));
            }
            Operation::IntoOffset { which } => {
                if let Some(block) = self.pick(which) {
                    self.keep_offset(Ok(block.into_offset()));
                }
            }
            Operation::FromOffset { which } => {
                if let Some(offset) = self.pick_offset(which) {
                    self.keep(matrix.from_offset(offset))?;
                }
            }
            Operation::ValueFromOffset { which, wide } => {
                if let Some(offset) = self.pick_offset(which) {
                    match wide {
                        true => self.keep_value(matrix.value_from_offset::<Wide>(offset))?,
                        false => self.keep_value(matrix.value_from_offset::<u32>(offset))?,
                    }
                }
            }
            Operation::Ack { which } => {
                if let Some(offset) = self.pick_offset(which) {
                    self.seen(matrix.ack(offset));
                }
            }
            Operation::Shrink { which, size } => {
                if let Some(mut block) = self.pick(which) {
                    self.seen(block.shrink(size.bytes()));
                    self.keep(Ok(block))?;
                }
            }
            Operation::TryGrow { which, size } => {
                if let Some(mut block) = self.pick(which) {
                    self.seen(block.try_grow(size.bytes()));
                    self.keep(Ok(block))?;
                }
            }
            other => self.look(matrix, other)?,
        }
        Ok(())
    }

    fn look(&mut self, matrix: &'m Matrix, operation: Operation) -> Result<(), Broken> {
        match operation {
            Operation::AckUnshared { which } => {
                if let Some(offset) = self.pick_offset(which) {
                    // SAFETY: only this victim knows it. Damage may make others find it in their caches:
                    // then a block is parked twice, which is what damage can do by itself, too.
                    self.seen(unsafe { matrix.ack_unshared(offset) });
                }
            }
            Operation::Trim => {
                self.seen(matrix.trim());
            }
            Operation::FromForged { raw } => self.keep(matrix.from_offset(self.offset(raw)))?,
            Operation::AckForged { raw } => {
                self.seen(matrix.ack(self.offset(raw)));
            }
            Operation::UsableBytes { raw } => {
                let offset = self.offset(raw);
                let Some(bytes) = matrix.usable_bytes(offset) else { return Ok(()) };
                let Ok(address) = matrix.payload_ptr(offset) else {
                    return Err(Broken(format!("{offset} is usable but no payload")));
                };
                self.must_be_inside(address.as_ptr(), bytes)?;
            }
            Operation::PayloadPtr { raw } => {
                if let Some(address) = self.seen(matrix.payload_ptr(self.offset(raw))) {
                    self.must_be_inside(address.as_ptr(), 0)?;
                }
            }
            Operation::Stats => {
                black_box(matrix.stats());
            }
            Operation::Check => {
                black_box(matrix.check().len());
            }
            Operation::HeapMap { width } => {
                black_box(matrix.heap_map((width % WIDTH_MAX).into()));
            }
            Operation::Participants => {
                black_box(product::participants(matrix));
            }
            Operation::Recover => {
                black_box(product::recover(matrix));
            }
            Operation::AttachAnew => self.attach_anew(),
            Operation::Die { how } | Operation::DieToo { how } => {
                let attached = self.bed.attach();
                if let Some(handle) = self.seen(attached) {
                    die(self.bed, handle, how);
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// One more handle, for a moment.
    fn attach_anew(&mut self) {
        let attached = self.bed.attach();
        let Some(handle) = self.seen(attached) else { return };
        // Geometry is believed only as far as it is valid; it may be another one by now.
        if let Some(mut block) = self.seen(handle.allocate(100)) {
            touch(&mut block);
        }
        black_box(product::recover(&handle));
    }

    /// Gives back, or tries to, whatever the victim has, in all the ways there are.
    ///
    /// # Errors
    /// As [`perform`](Self::perform).
    pub fn finish(&mut self) -> Result<(), Broken> {
        let matrix: &Matrix = &self.handles[0];
        drop((std::mem::take(&mut self.mail), std::mem::take(&mut self.bureau)));
        black_box(matrix.stats());
        let third = self.held.len() / 3;
        matrix.free_many(self.held.drain(2 * third..));
        for mut block in std::mem::take(&mut self.held).into_iter().take(third) {
            let usable = block.usable_size();
            self.must_be_inside(block.as_ptr(), usable)?;
            self.seen(block.try_grow(usable + 1));
            self.seen(block.shrink(1));
            self.keep_offset(Ok(block.into_offset()));
        }
        for offset in std::mem::take(&mut self.given) {
            self.seen(matrix.ack(offset));
        }
        black_box((product::recover(matrix), matrix.check().len()));
        Ok(())
    }

    // --- keeping and picking ----------------------------------------------------------------------

    pub(super) fn seen<T, E>(&mut self, result: Result<T, E>) -> Option<T> {
        self.calls.made += 1;
        self.calls.refused += u64::from(result.is_err());
        result.ok()
    }

    fn keep(&mut self, result: Result<Block<'m>, Error>) -> Result<(), Broken> {
        let Some(mut block) = self.seen(result) else { return Ok(()) };
        self.must_be_inside(block.as_ptr(), block.len())?;
        touch(&mut block);
        if self.held.len() < KEPT_MAX {
            self.held.push(block);
        }
        Ok(())
    }

    fn keep_value<T: Pod>(
        &mut self,
        result: Result<TypedBlock<'m, T>, Error>,
    ) -> Result<(), Broken> {
        let block = self.seen(result).map(TypedBlock::into_block);
        block.map_or(Ok(()), |block| self.keep(Ok(block)))
    }

    fn keep_offset(&mut self, result: Result<Offset, Error>) {
        if let Some(offset) = self.seen(result)
            && self.given.len() < KEPT_MAX
        {
            self.given.push(offset);
        }
    }

    fn pick(&mut self, which: u8) -> Option<Block<'m>> {
        let at = usize::from(which).checked_rem(self.held.len())?;
        Some(self.held.swap_remove(at))
    }

    fn pick_offset(&mut self, which: u8) -> Option<Offset> {
        let at = usize::from(which).checked_rem(self.given.len())?;
        Some(self.given.swap_remove(at))
    }

    fn offset(&self, raw: Raw) -> Offset {
        let (sector, at, beside) = match raw {
            Raw::Wild(raw) => return Offset::from_raw(raw),
            Raw::Granule(sector, at, beside) => (sector, at, beside),
        };
        let sector = &self.bed.geometry().sectors[usize::from(sector) % am_layout::SECTORS];
        let at = u64::from(at % sector.granules.max(1)) << sector.granule_shift;
        let unit = (sector.data_bytes + at) / am_layout::OFFSET_UNIT_BYTES + 1;
        Offset::from_raw((unit as u32).wrapping_add_signed(beside.signum().into()))
    }

    /// Looks whether a payload lies in a sector, in the mapping of one of the handles.
    ///
    /// # Errors
    /// [`Broken`], when it does not.
    pub fn must_be_inside(&self, address: *const u8, len: usize) -> Result<(), Broken> {
        let inside = |handle: &Handle| {
            let base = handle.arena().base();
            self.bed.in_a_sector(base, address, len)
        };
        match self.handles.iter().any(inside) {
            true => Ok(()),
            false => Err(Broken(format!("{len} bytes at {address:p} lie outside of the sectors"))),
        }
    }
}

/// Reads and writes both ends of a payload, and its middle.
fn touch(block: &mut Block<'_>) {
    let len = block.len();
    for at in [0, len / 2, len.wrapping_sub(1)] {
        if let Some(byte) = block.get_mut(at) {
            *black_box(byte) ^= 0x5a;
        }
    }
}
