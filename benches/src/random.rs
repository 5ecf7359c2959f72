//! Two small generators.

/// The endurance workload's generator: `x * 1103515245 + 12345` modulo 2^32.
pub struct Lcg(u32);

impl Lcg {
    /// Starts from `seed`.
    pub fn new(seed: u32) -> Self {
        Self(seed)
    }

    /// Returns the next number. Its low bits have short periods; the workload is defined with them.
    #[inline(always)]
    pub fn next(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(1_103_515_245).wrapping_add(12_345);
        self.0
    }
}

/// A 64-bit congruential generator (Knuth's MMIX constants) of which only the high half is used.
pub struct Random(u64);

impl Random {
    /// Starts from `seed`.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Returns a number in `0..bound`, without a division; `bound` at most 2^32.
    #[inline(always)]
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (((self.0 >> 32) * bound as u64) >> 32) as usize
    }

    /// Puts `items` into a random order (Fisher–Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}
