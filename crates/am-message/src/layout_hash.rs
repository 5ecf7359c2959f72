//! The hash that decides whether two processes mean the same by the same bytes.

use crate::Message;
use xxhash_rust::const_xxh3::xxh3_64_with_seed;

/// Makes a layout hash of 64 bits out of what makes up a layout, at compile time.
///
/// The hash is XXH3 over each part with the hash so far as its seed, so that it is the same for every
/// compiler, build and process. Parts are hashed with their lengths, so no two sequences of parts run
/// into each other. It tells mistakes apart, not forgeries: whoever may write to a segment may also
/// write the right hash into it, and so every payload is checked as well.
///
/// [`Message`](derive@crate::Message) uses it; an implementation by hand does the same:
///
/// ```
/// use am_message::LayoutHasher;
///
/// const CELSIUS: u64 = LayoutHasher::new("scalar").text("celsius").number(4).finish();
/// const KELVIN: u64 = LayoutHasher::new("scalar").text("kelvin").number(4).finish();
/// assert_ne!(CELSIUS, KELVIN);
/// ```
#[derive(Debug, Clone, Copy)]
pub struct LayoutHasher(u64);

impl LayoutHasher {
    /// Begins the hash of something of that `sort`, such as `"struct"` or `"enum"`.
    pub const fn new(sort: &str) -> Self {
        Self(0).text(sort)
    }

    /// Adds a name.
    #[must_use]
    pub const fn text(self, text: &str) -> Self {
        Self(xxh3_64_with_seed(text.as_bytes(), self.0))
    }

    /// Adds a number: a size, an offset, a count, a discriminant, or another layout's hash.
    #[must_use]
    pub const fn number(self, number: u64) -> Self {
        Self(xxh3_64_with_seed(&number.to_le_bytes(), self.0))
    }

    /// Adds a field: its name, its type's layout, its offset in bytes, and its size.
    #[must_use]
    pub const fn field<T: Message>(self, name: &str, offset_bytes: usize) -> Self {
        let (offset, size) = (offset_bytes as u64, size_of::<T>() as u64);
        self.text(name).number(T::LAYOUT).number(offset).number(size)
    }

    /// Returns the hash.
    pub const fn finish(self) -> u64 {
        self.0
    }
}
