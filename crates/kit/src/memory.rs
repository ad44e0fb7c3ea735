//! Gives freed memory back to the system.

/// Hands the pages that the allocator keeps but nobody uses back to the system. Takes up to some milliseconds and
/// holds the allocator's locks meanwhile: for idle moments after work that came in a burst (compilation, large
/// results), never on the path of a call. Does nothing where the C library is not glibc.
pub fn trim() {
    #[cfg(target_env = "gnu")]
    {
        #[expect(unsafe_code, reason = "glibc's own interface, there is no safe one")]
        // SAFETY: malloc_trim may be called at any time from any thread; it touches free memory only.
        let _released = unsafe { libc::malloc_trim(0) };
    }
}
