//! Keeps this process's memory small.

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

/// Keeps the kernel from backing this process's memory with huge pages where nobody asked for them (as where
/// `/sys/kernel/mm/transparent_hugepage/enabled` is `always`): a page of 2 MiB for each few KiB that the allocator uses there
/// more than doubles what an idle server takes. Programs that this process starts inherit it.
pub fn keep_pages_small() {
    #[cfg(target_os = "linux")]
    {
        let none: libc::c_ulong = 0;
        #[expect(unsafe_code, reason = "the system's own interface, there is no safe one")]
        // SAFETY: this option reads no memory.
        let _older_kernel = unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, 1 as libc::c_ulong, none, none, none) };
    }
}
