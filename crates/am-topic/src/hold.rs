//! What readers and members of a lossy topic say before they look at a message: where they look (M5).

use crate::layout::Topic;
use crate::slot::{PUBLISHED, Place, state};
use am_layout::Wide;
use am_layout::mutation::{self, Mutation};

impl Topic<'_> {
    /// Says in `hold`, the word of a reader or a member, that it looks at message `number`, which lies at `place`;
    /// false when that is gone already, and nothing is held.
    #[inline]
    pub(crate) fn hold(&self, hold: &Wide, number: u64, place: Place) -> bool {
        // Full barrier (M5): whoever overwrites the message sees this, or we see that it is overwritten.
        if mutation::is(Mutation::HoldWithoutBarrier) {
            hold.store(place.raw());
        } else {
            hold.swap_full(place.raw());
        }
        let stays = self.slot(number).state().load() == state(number, PUBLISHED);
        if !stays {
            let_go(hold);
        }
        stays
    }

    /// Tells whether a reader or a member looks at the message at this place.
    pub(crate) fn is_held(&self, raw: u64) -> bool {
        self.seats().any(|seat| seat.hold().load() == raw)
            || self
                .groups()
                .any(|group| !mutation::is(Mutation::HeldForgetsGroups) && group.is_holding(raw))
    }
}

/// Nothing is held any more.
#[inline]
pub(crate) fn let_go(hold: &Wide) {
    if mutation::is(Mutation::LetGoWithoutRelease) {
        hold.store_relaxed(0);
    } else {
        // Release (M5): whoever frees the message comes after our look at it.
        hold.store(0);
    }
}
