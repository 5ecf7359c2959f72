//! The system calls of NUMA policy, which no binding crate offers without the C library libnuma.

use std::io;
use std::ptr::null;

use nix::libc::{self, c_int, c_long, c_uint, c_ulong, c_void};

use crate::mapping::Mapping;

/// Nodes that a mask can name; the kernel's own limit.
pub(crate) const NODES_MAX: u32 = 1024;
const MASK_WORDS: usize = (NODES_MAX / c_ulong::BITS) as usize;

/// Has pages of `len` bytes from `from` on come from `node` alone, when they come.
///
/// `from` must be a multiple of the page size, `from + len` within the mapping (rounded up to a
/// page), and `node` below [`NODES_MAX`].
pub(crate) fn bind(mapping: &Mapping, from: usize, len: usize, node: u32) -> io::Result<()> {
    let mut mask: [c_ulong; MASK_WORDS] = [0; MASK_WORDS];
    mask[(node / c_ulong::BITS) as usize] = 1 << (node % c_ulong::BITS);
    // The kernel reads one bit less than it is told.
    let bits = c_ulong::from(NODES_MAX) + 1;
    let start = mapping.as_mut_ptr().wrapping_add(from);
    // SAFETY: this changes where pages of a range within the mapping come from, not what they hold;
    // the mask is as long as is told, less the bit that is not read.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mbind,
            start.cast::<c_void>(),
            len as c_ulong,
            c_ulong::from(libc::MPOL_BIND as c_uint),
            mask.as_ptr(),
            bits,
            c_ulong::from(0_u32),
        )
    };
    answer(done)
}

/// Asks on which nodes the pages at `pages` lie: for each the node, or a negative error number,
/// `-ENOENT` for one that this process has not mapped.
pub(crate) fn nodes_of(pages: &[*const u8], nodes: &mut [c_int]) -> io::Result<()> {
    assert_eq!(pages.len(), nodes.len(), "one answer for each page");
    let this_process: c_int = 0;
    // SAFETY: without target nodes no page is moved; both arrays are as long as is told, and only
    // the second one is written to.
    let done = unsafe {
        libc::syscall(
            libc::SYS_move_pages,
            this_process,
            pages.len() as c_ulong,
            pages.as_ptr(),
            null::<c_int>(),
            nodes.as_mut_ptr(),
            0 as c_int,
        )
    };
    answer(done)
}

fn answer(done: c_long) -> io::Result<()> {
    match done {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Options, Place, Segment};
    use nix::errno::Errno;

    #[test]
    fn bind_to_a_node_that_is_not_there_is_the_kernels_error() {
        let options = Options { size_bytes: 1 << 20, ..Options::default() };
        let place = Place::Memfd("nowhere".into());
        let segment = Segment::create(&place, &options, |_| Ok::<(), ()>(())).unwrap();
        let told = bind(segment.mapping(), 0, 4096, NODES_MAX - 1).unwrap_err().raw_os_error();
        // The last two where there are no nodes, or this process may not bind.
        let expected = [Errno::EINVAL, Errno::ENOSYS, Errno::EPERM].map(|e| Some(e as i32));
        assert!(expected.contains(&told), "{told:?}");
    }
}
