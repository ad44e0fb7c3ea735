//! Code: handing it out to workers, and deleting what no version uses any more.
//!
//! A deploy puts its code before the version that uses it, and another control process may delete code at the same time: so
//! a deploy pins its code first ([`lyra_store::objects::Pins`]), and makes the version only while the pin is there.

use std::collections::HashSet;

use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};
use lyra_types::Error;
use lyra_types::function::Digest;

use super::{Functions, SHOWN, keys};

/// What the keys of pins, and of marks, of code start with.
pub(super) const PINS: (&str, &str) = ("code-in-use/", "code-being-deleted/");

/// How much code goes in one message.
const PIECE: usize = 1 << 20;
/// How many workers code is handed out to at once: so many codes are in memory for it.
pub(super) const HANDED_OUT: usize = 4;

impl Functions {
    /// The code of this digest, in pieces.
    ///
    /// # Errors
    /// [`lyra_types::Code::NotFound`] where it is not in the blob store.
    pub(crate) async fn code(&self, digest: &Digest) -> Result<BoxStream<'static, Result<Bytes, Error>>, Error> {
        let closed = |_| Error::new(lyra_types::Code::Unavailable, "control is shutting down");
        let place = self.handing_out.clone().acquire_owned().await.map_err(closed)?;
        let found = self.blobs.get(digest).await?;
        let code = found.ok_or_else(|| Error::not_found("code", format_args!("of digest {digest}")))?;
        let pieces = (0..code.len()).step_by(PIECE).map(move |at| {
            // As long as a piece is to come.
            let _ = &place;
            Ok(code.slice(at..code.len().min(at + PIECE)))
        });
        Ok(stream::iter(pieces).boxed())
    }

    /// Deletes those of the blobs that no version uses. What can't be deleted now is left to [`Functions::sweep_code`].
    pub(super) async fn drop_unused(&self, mut codes: Vec<Digest>) {
        self.keep_unused(&mut codes);
        match self.pins.delete_unused(&codes, |codes| self.unused(codes)).await {
            Ok(0) => {}
            Ok(deleted) => tracing::debug!(deleted, "unused code deleted"),
            Err(error) => tracing::warn!(%error, "unused code is left"),
        }
    }

    /// Those of the codes that no version uses, as the store has it now.
    async fn unused(&self, mut codes: Vec<Digest>) -> Result<Vec<Digest>, Error> {
        let revision = self.objects.list(keys::ALL, 1, None).await?.revision;
        if tokio::time::timeout(SHOWN, self.table.reaches(revision)).await.is_err() {
            tracing::warn!("the route table is behind; unused code is left for now");
            return Ok(Vec::new());
        }
        self.keep_unused(&mut codes);
        if !codes.is_empty() {
            // Versions of applications keep theirs, whatever becomes of the function.
            let used: HashSet<Digest> = crate::sessions::codes(&*self.objects).await?.into_iter().collect();
            codes.retain(|code| !used.contains(code));
        }
        Ok(codes)
    }

    fn keep_unused(&self, codes: &mut Vec<Digest>) {
        let routes = self.table.all();
        let used: HashSet<&Digest> = routes.iter().flat_map(|route| route.versions.values()).map(|v| &v.code).collect();
        codes.retain(|code| !used.contains(code));
    }

    /// Deletes all code that no version uses: of a process that was killed between code and version.
    pub(super) async fn sweep_code(&self) {
        match self.blobs.list().await {
            Ok(codes) => self.drop_unused(codes).await,
            Err(error) => tracing::warn!(%error, "code can't be listed"),
        }
    }
}
