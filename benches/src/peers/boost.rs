//! Boost.Interprocess: red-black-tree best fit in shared memory, under one mutex.

#[cfg(have_boost)]
pub use linked::{Boost, version};

/// Returns the version of Boost: none in this build.
#[cfg(not(have_boost))]
pub fn version() -> &'static str {
    ""
}

#[cfg(have_boost)]
mod linked {
    use std::ffi::{CStr, CString, c_char, c_void};
    use std::ptr::NonNull;

    use anyhow::{Context, Result};

    use crate::heap::{Address, Setup, Shared};
    use uuid::Uuid;

    // Implemented by shim/boost.cpp.
    unsafe extern "C" {
        safe fn am_boost_version() -> *const c_char;
        fn am_boost_open(name: *const c_char) -> *mut c_void;
        fn am_boost_handle(segment: *mut c_void, block: *mut c_void) -> u64;
        fn am_boost_address(segment: *mut c_void, handle: u64) -> *mut c_void;
        fn am_boost_close(segment: *mut c_void);
        fn am_boost_create(name: *const c_char, bytes: usize) -> *mut c_void;
        fn am_boost_allocate(segment: *mut c_void, bytes: usize) -> *mut c_void;
        fn am_boost_deallocate(segment: *mut c_void, block: *mut c_void);
        fn am_boost_destroy(segment: *mut c_void, name: *const c_char);
    }

    /// Returns the version of the headers, such as `1_74`.
    pub fn version() -> &'static str {
        // SAFETY: the shim returns a string literal.
        unsafe { CStr::from_ptr(am_boost_version()) }.to_str().unwrap_or("")
    }

    /// One `managed_shared_memory`.
    pub struct Boost {
        segment: NonNull<c_void>,
        /// Of the one who made it, and will remove it.
        name: Option<CString>,
    }

    // SAFETY: managed_shared_memory locks its mutex inside allocate and deallocate.
    unsafe impl Sync for Boost {}

    impl Boost {
        /// Creates the segment that `id` names.
        ///
        /// # Errors
        /// When the system refuses.
        pub fn with_bytes(id: Uuid, bytes: usize) -> Result<Self> {
            let name = CString::new(id.to_string())?;
            // SAFETY: `name` is a NUL-terminated string that outlives the call.
            let segment = unsafe { am_boost_create(name.as_ptr(), bytes) };
            let segment = NonNull::new(segment).context("Boost cannot create its segment")?;
            Ok(Self { segment, name: Some(name) })
        }

        /// Opens the segment that another process created.
        ///
        /// # Errors
        /// When there is none.
        pub fn open(id: Uuid) -> Result<Self> {
            let name = CString::new(id.to_string())?;
            // SAFETY: `name` is a NUL-terminated string that outlives the call.
            let segment = unsafe { am_boost_open(name.as_ptr()) };
            let segment = NonNull::new(segment).context("Boost cannot open its segment")?;
            Ok(Self { segment, name: None })
        }

        /// Returns what names the block in every process.
        #[inline(always)]
        pub fn handle(&self, block: Address) -> u64 {
            // SAFETY: the segment lives as long as `self`; no block is looked at.
            unsafe { am_boost_handle(self.segment.as_ptr(), block.0.as_ptr().cast()) }
        }

        /// Returns where the block of that handle lies in this process.
        #[inline(always)]
        pub fn address(&self, handle: u64) -> Option<Address> {
            // SAFETY: the segment lives as long as `self`; no block is looked at.
            Address::of(unsafe { am_boost_address(self.segment.as_ptr(), handle) })
        }
    }

    impl Shared for Boost {
        type Block<'h> = Address;

        const FIXED: bool = true;

        fn create(setup: &Setup) -> Result<Self> {
            Self::with_bytes(setup.id, setup.segment_bytes)
        }

        #[inline(always)]
        fn alloc(&self, bytes: usize) -> Option<Self::Block<'_>> {
            // SAFETY: the segment lives as long as `self`.
            Address::of(unsafe { am_boost_allocate(self.segment.as_ptr(), bytes) })
        }

        #[inline(always)]
        fn payload<'h>(&'h self, block: &mut Self::Block<'h>) -> NonNull<u8> {
            block.0
        }

        #[inline(always)]
        unsafe fn free<'h>(&'h self, block: Self::Block<'h>, _bytes: usize) -> bool {
            // SAFETY: the caller hands back a live block of this segment.
            unsafe { am_boost_deallocate(self.segment.as_ptr(), block.0.as_ptr().cast()) };
            true
        }
    }

    impl Drop for Boost {
        fn drop(&mut self) {
            match &self.name {
                // SAFETY: the segment came from `am_boost_create` and is not used after this.
                Some(name) => unsafe { am_boost_destroy(self.segment.as_ptr(), name.as_ptr()) },
                // SAFETY: the segment came from `am_boost_open` and is not used after this.
                None => unsafe { am_boost_close(self.segment.as_ptr()) },
            }
        }
    }
}
