//! The stack that the guest's machine code runs on: how full it is, and giving back what deep recursion has touched.
//!
//! QuickJS can only see the C stack in its linear memory; many of its functions use next to nothing of that while they
//! fill the real stack. So it asks here before it goes deeper, and a script gets its RangeError long before the stack
//! ends. Stacks are pooled and not wiped (no guest can read them): without this, one recursion for each would keep
//! megabytes for ever.

use crate::wasm::engine::WASM_STACK;

/// What scripts may use of the stack, in bytes; the rest is for native code beyond its last check.
const LIMIT: usize = WASM_STACK - (256 << 10);

/// What stays with a stack after a call, in bytes.
const KEEP: usize = 256 << 10;

/// What native code may have touched below the last check, in bytes.
const BEYOND: usize = 128 << 10;

const PAGE: usize = 4096;

/// The stack of the guest's last entry.
#[derive(Default)]
pub(super) struct Stack {
    /// Where it was at the first and at the deepest check.
    seen: Option<(usize, usize)>,
}

impl Stack {
    /// Whether the stack is used up. Called by the guest, so where this runs is where the guest has got to.
    pub(super) fn is_full(&mut self) -> i32 {
        let here = 0u8;
        let here = std::ptr::from_ref(&here).addr();
        let (start, deepest) = self.seen.get_or_insert((here, here));
        *deepest = here.min(*deepest);
        i32::from(start.saturating_sub(here) > LIMIT)
    }

    /// The guest has been left: gives deep parts of its stack back. The store must still hold the stack.
    pub(super) fn leave(&mut self) {
        let Some((start, deepest)) = self.seen.take() else { return };
        if start - deepest <= KEEP {
            return;
        }
        let from = (deepest - BEYOND).next_multiple_of(PAGE);
        let to = (start - KEEP) / PAGE * PAGE;
        // SAFETY: the range lies within one stack of the pool: `start` and `deepest` were addresses on it, and more than
        // BEYOND bytes are below any check that passed (LIMIT, and the host's part of the stack). The guest has been left,
        // so nothing on the stack is live; the store keeps the stack until it is dropped or entered again, so nobody
        // else uses it. Reading such a page later gives zeros.
        // JUSTIFICATION: the pool would otherwise keep the pages of every deep recursion, or wipe each stack on each call.
        #[expect(unsafe_code, reason = "madvise has no safe form")]
        let done = unsafe { libc::madvise(from as *mut libc::c_void, to - from, libc::MADV_DONTNEED) };
        if done != 0 {
            tracing::debug!(error = %std::io::Error::last_os_error(), "a stack can't be given back");
        }
    }
}
