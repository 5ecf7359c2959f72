//! What actors and the survivor send each other: each message says who sent it, and as which of his, and is filled
//! with a pattern.

use anyhow::{Context, Result, bail, ensure};
use atomic_matrix::Offset;

use crate::pattern;
use crate::stage::Stage;

/// Who sends: actors have their numbers.
pub(crate) const SURVIVOR: usize = 3;
/// Who has the place of somebody that is gone: the survivor, too, by other handles.
pub(crate) const HEIR: usize = 4;

/// A message of an actor's, or the survivor's, as the `index`th of his.
pub(crate) fn payload(owner: usize, index: u64, len_bytes: usize) -> Vec<u8> {
    let mut payload = vec![0; len_bytes];
    fill(&mut payload, owner, index);
    payload
}

/// Makes bytes such a message.
pub(crate) fn fill(payload: &mut [u8], owner: usize, index: u64) {
    let (head, rest) = payload.split_at_mut(8);
    head.copy_from_slice(&((owner as u64) << 32 | index).to_le_bytes());
    pattern::fill(rest, pattern::key(10 + owner as u32, index));
}

/// Tells whose message it is, and which.
///
/// # Errors
/// It is none, or a byte of it has changed.
pub(crate) fn read(payload: &[u8]) -> Result<(usize, u64)> {
    let Some((head, rest)) = payload.split_first_chunk::<8>() else {
        bail!("{} bytes are no message", payload.len())
    };
    let head = u64::from_le_bytes(*head);
    let (owner, index) = ((head >> 32) as usize, head & u64::from(u32::MAX));
    let holds = owner <= HEIR && pattern::holds(rest, pattern::key(10 + owner as u32, index));
    ensure!(holds, "the payload has changed");
    Ok((owner, index))
}

/// Removes a name and frees its block, and then every block that is nobody's, which must hold messages as they were
/// sent; returns how many those were. Nobody but the survivor lives, and it has no handle on them any more.
///
/// # Errors
/// There is no such name, or something else is nobody's.
pub(crate) fn free_all(stage: &Stage<'_>, name: &str, kind: u32) -> Result<u64> {
    let matrix = stage.matrix;
    // SAFETY: nobody looks at it any more, as the caller says.
    unsafe { matrix.remove_named(name, kind) }?.free()?;
    let mut messages = 0;
    for sector in &stage.geometry().sectors {
        for granule in 0..u64::from(sector.granules) {
            let at_bytes = sector.data_bytes + (granule << sector.granule_shift) + 32;
            let offset = Offset::from_bytes(at_bytes)?;
            if matrix.common(offset).is_err() {
                continue;
            }
            // SAFETY: as above.
            let block = unsafe { matrix.adopt_common(offset) }?;
            read(&block).context("a message of the last turn")?;
            block.free()?;
            messages += 1;
        }
    }
    Ok(messages)
}
