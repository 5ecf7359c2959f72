//! Prices that go up and down at random.

use super::Tick;

/// The shares.
const SYMBOLS: [[u8; 4]; 4] = [*b"ACME", *b"BOLT", *b"CORK", *b"DUNE"];

/// Where each share stands.
pub struct Market {
    random: u64,
    prices_cents: [u64; SYMBOLS.len()],
}

impl Market {
    /// Opens; the same seed makes the same trades.
    pub fn new(seed: u64) -> Self {
        Self { random: seed, prices_cents: [10_000, 2_500, 40_000, 1_250] }
    }

    /// The next trade: some share goes up or down by up to half a percent, but never below 1.00.
    pub fn trade(&mut self) -> Tick {
        let share = self.random(SYMBOLS.len() as u64) as usize;
        let old = self.prices_cents[share];
        let step = self.random(old / 100 + 2);
        let price_cents = (old + step).saturating_sub(old / 200 + 1).max(100);
        self.prices_cents[share] = price_cents;
        let quantity = self.random(500) as u32 + 1;
        Tick { symbol: SYMBOLS[share], quantity, price_cents }
    }

    /// A number below `limit`, by splitmix64.
    fn random(&mut self, limit: u64) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.random ^ self.random >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ mixed >> 31) % limit
    }
}
