//! A fault of Lyra in what one run does, kept from all others.

use std::any::Any;
use std::panic::AssertUnwindSafe;

use futures::FutureExt;
use lyra_types::{Error, Result};

/// Does work for one run; where it panics there is an error. What it worked on is dropped with it.
pub(super) async fn guarded<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    AssertUnwindSafe(work).catch_unwind().await.unwrap_or_else(|panic| Err(fault(panic.as_ref())))
}

/// What a panic said.
pub(super) fn fault(panic: &(dyn Any + Send)) -> Error {
    let said = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    Error::internal(format!("a fault of Lyra, please tell us: {}", said.unwrap_or("it panicked")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_an_error_that_says_what_it_said() {
        let number = || std::hint::black_box(7);
        let work = async move {
            assert_eq!(number(), 8, "of {}", "the test");
            Ok(())
        };
        let error = guarded(work).await.expect_err("it panics");
        assert!(error.detail.contains("of the test"), "{}", error.detail);
        assert_eq!(guarded(async { Ok(1) }).await.expect("no panic"), 1);
    }
}
