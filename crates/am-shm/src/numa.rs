//! Which NUMA nodes a segment's pages are to come from, and on which they lie.

use std::collections::BTreeMap;
use std::fs::{File, read_to_string};
use std::ops::Range;
use std::path::Path;

use nix::errno::Errno;
use nix::libc::c_int;

use crate::error::Error;
use crate::mapping::Mapping;
use crate::mempolicy::{self, NODES_MAX};
use crate::pages::FilePages;
use crate::segment::Segment;

/// Pages asked about by one system call.
const BATCH_PAGES: usize = 4096;
/// Lists the nodes that have memory, as in `0-1,3`.
const NODES_FILE: &str = "/sys/devices/system/node/has_memory";

/// A range of a segment's bytes, and the NUMA node that its pages are to come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding {
    /// The bytes, counted from the start of the segment.
    pub range: Range<u64>,
    /// The number of the node, as in `/sys/devices/system/node`.
    pub node: u32,
}

/// What the kernel answered to a [`Binding`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Bound {
    /// Pages that come from now on come from the node alone.
    Taken {
        /// The bytes that this is true of, in whole pages; empty when no page begins in the range
        /// asked for.
        range: Range<u64>,
        /// The node.
        node: u32,
    },
    /// The kernel knows nothing of nodes (`ENOSYS`), or this process may not bind (`EPERM`, as in
    /// some containers). Nothing was changed.
    Refused {
        /// The kernel's error number.
        errno: i32,
    },
}

/// On which NUMA nodes the pages of a range lie.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Nodes {
    /// Bytes on each node, in whole pages; nodes that have none are left out.
    pub bytes_on: BTreeMap<u32, u64>,
    /// Bytes in pages that this process has not mapped, or that the kernel does not tell about.
    /// They may exist: [`Segment::prefault`] maps them.
    pub unmapped_bytes: u64,
}

impl Segment {
    /// Has the pages of a range of bytes come from one NUMA node, and from no other (`mbind` with
    /// `MPOL_BIND`), from now on.
    ///
    /// A page belongs to the range in which its first byte lies, so ranges that adjoin share none.
    /// Pages that exist already stay where they are: bind before they are touched, by
    /// [`Options::bind`](crate::Options::bind) where this call formats. On tmpfs, hugetlbfs and for
    /// memfds the binding is the file's, and counts for every process that maps it, until its memory
    /// goes; on other file systems the kernel takes it and does not follow it, which
    /// [`nodes`](Self::nodes) shows.
    ///
    /// When the node has no memory left, a touch of a page ends as it does in a machine without
    /// memory; of huge pages, which are set aside without regard to nodes, in a `SIGBUS`.
    /// [`Options::reserve`](crate::Options::reserve) and
    /// [`prefault`](Self::prefault) find that out as an error.
    ///
    /// # Errors
    /// [`Error::BadRange`] for a range that is reversed or not within the segment;
    /// [`Error::NoSuchNode`] for a node that does not exist, or has no memory that this process may
    /// use. That a kernel knows no nodes, or lets this process bind nothing, is not an error but
    /// [`Bound::Refused`].
    ///
    /// ```
    /// use am_shm::{Bound, Options, Place, Segment};
    ///
    /// let options = Options { size_bytes: 1 << 20, ..Options::default() };
    /// let place = Place::Memfd("near".into());
    /// let segment = Segment::create(&place, &options, |_| Ok::<(), ()>(())).unwrap();
    /// let bound = segment.bind(0..1 << 19, 0)?;
    /// if bound == (Bound::Taken { range: 0..1 << 19, node: 0 }) {
    ///     segment.prefault()?;
    ///     println!("{:?}", segment.nodes(0..1 << 19)?);
    /// }
    /// # Ok::<(), am_shm::Error>(())
    /// ```
    pub fn bind(&self, range: Range<u64>, node: u32) -> Result<Bound, Error> {
        bind_all(self.mapping(), self.file(), self.label(), &[Binding { range, node }])
            .map(|mut bound| bound.remove(0))
    }

    /// What came of [`Options::bind`](crate::Options::bind), in its order; empty when this call did
    /// not format.
    #[must_use]
    pub fn bound(&self) -> &[Bound] {
        &self.bound
    }

    /// Tells on which NUMA nodes the pages of a range lie, those whose first byte is in it. Touches
    /// none. Takes a system call for every 4096 pages.
    ///
    /// # Errors
    /// [`Error::BadRange`] for a range that is reversed or not within the segment;
    /// [`Error::Syscall`] when the kernel does not tell (`ENOSYS`: it knows no nodes).
    pub fn nodes(&self, range: Range<u64>) -> Result<Nodes, Error> {
        let pages = FilePages::of(self.file(), self.label())?;
        let range = whole_pages(&range, pages.page_bytes, self.mapping(), self.label())?;
        let page_bytes = pages.page_bytes as usize;
        let mut found = Nodes::default();
        let mut starts = (range.start as usize..range.end as usize)
            .step_by(page_bytes)
            .map(|at| self.mapping().as_ptr().wrapping_add(at))
            .peekable();
        while starts.peek().is_some() {
            let batch: Vec<*const u8> = starts.by_ref().take(BATCH_PAGES).collect();
            let mut nodes: Vec<c_int> = vec![-1; batch.len()];
            mempolicy::nodes_of(&batch, &mut nodes).map_err(|cause| {
                Error::syscall("ask for the NUMA nodes of", self.label(), cause)
            })?;
            nodes.iter().for_each(|&node| found.add(node, pages.page_bytes));
        }
        Ok(found)
    }
}

impl Nodes {
    /// Counts one page, by what the kernel says of it.
    fn add(&mut self, node: c_int, page_bytes: u64) {
        match u32::try_from(node) {
            Ok(node) => *self.bytes_on.entry(node).or_default() += page_bytes,
            Err(_) => self.unmapped_bytes += page_bytes,
        }
    }
}

/// Binds ranges of a mapping one after the other.
///
/// # Errors
/// See [`Segment::bind`]; the bindings before the one that failed stay.
pub(crate) fn bind_all(
    mapping: &Mapping,
    file: &File,
    path: &Path,
    bindings: &[Binding],
) -> Result<Vec<Bound>, Error> {
    let page_bytes = FilePages::of(file, path)?.page_bytes;
    let bind = |binding: &Binding| {
        let range = whole_pages(&binding.range, page_bytes, mapping, path)?;
        bind(mapping, range, binding.node, path)
    };
    bindings.iter().map(bind).collect()
}

fn bind(mapping: &Mapping, range: Range<u64>, node: u32, path: &Path) -> Result<Bound, Error> {
    let with_memory = read_to_string(NODES_FILE).ok().map(|list| list.trim().to_owned());
    let is_known = with_memory.as_deref().is_none_or(|list| lists(list, node));
    let no_such_node = || {
        let with_memory = with_memory.clone().unwrap_or_else(|| "not told".into());
        Error::NoSuchNode { path: path.into(), node, with_memory }
    };
    if node >= NODES_MAX || !is_known {
        return Err(no_such_node());
    }
    if range.is_empty() {
        return Ok(Bound::Taken { range, node });
    }
    let (from, len) = (range.start as usize, (range.end - range.start) as usize);
    match mempolicy::bind(mapping, from, len, node) {
        Ok(()) => Ok(Bound::Taken { range, node }),
        Err(cause) => match cause.raw_os_error().map_or(Errno::UnknownErrno, Errno::from_raw) {
            errno @ (Errno::ENOSYS | Errno::EPERM) => Ok(Bound::Refused { errno: errno as i32 }),
            // The range is right, so it is the node: it was taken offline, or is forbidden here.
            Errno::EINVAL => Err(no_such_node()),
            _ => Err(Error::syscall("bind to a NUMA node pages of", path, cause)),
        },
    }
}

/// The pages whose first bytes lie in `range`, as a range of bytes; the last may reach beyond the
/// end of the segment, which is in the middle of it.
fn whole_pages(
    range: &Range<u64>,
    page_bytes: u64,
    mapping: &Mapping,
    path: &Path,
) -> Result<Range<u64>, Error> {
    let len_bytes = mapping.len() as u64;
    if range.start > range.end || range.end > len_bytes {
        return Err(Error::BadRange { path: path.into(), range: range.clone(), len_bytes });
    }
    Ok(range.start.next_multiple_of(page_bytes)..range.end.next_multiple_of(page_bytes))
}

/// Tells whether a list like `0-1,3` has `node` in it.
fn lists(list: &str, node: u32) -> bool {
    list.split(',').any(|part| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let bounds = (first.trim().parse::<u32>(), last.trim().parse::<u32>());
        matches!(bounds, (Ok(first), Ok(last)) if (first..=last).contains(&node))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn list_of_nodes_with_ranges_and_gaps_has_just_these() {
        let within = |list: &str| (0..8).filter(|&node| lists(list, node)).collect::<Vec<_>>();
        assert_eq!(within("0"), [0]);
        assert_eq!(within("0-1,3"), [0, 1, 3]);
        assert_eq!(within("2,5-6"), [2, 5, 6]);
        assert_eq!(within(""), []);
    }

    #[test]
    fn nodes_of_pages_that_are_not_mapped_are_counted_apart() {
        let mut found = Nodes::default();
        for told in [0, 1, -(Errno::ENOENT as i32), 1, -(Errno::EFAULT as i32)] {
            found.add(told, 4096);
        }
        assert_eq!(found.bytes_on, BTreeMap::from([(0, 4096), (1, 8192)]));
        assert_eq!(found.unmapped_bytes, 8192);
    }
}
