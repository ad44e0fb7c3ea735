//! All objects under a prefix, read page by page.

use super::{Entry, Objects};
use crate::StoreError;

/// Objects under a prefix, by key. What changes between two pages is seen or not; whoever must see it follows from
/// [`Pages::revision`] on.
pub struct Pages<'a> {
    objects: &'a dyn Objects,
    prefix: &'a str,
    size: usize,
    /// The last key that was read.
    after: Option<String>,
    revision: Option<u64>,
    more: bool,
}

impl<'a> Pages<'a> {
    /// Reads up to `size` objects at once.
    pub fn of(objects: &'a dyn Objects, prefix: &'a str, size: usize) -> Pages<'a> {
        Pages { objects, prefix, size, after: None, revision: None, more: true }
    }

    /// The next page; `None` after the last one.
    ///
    /// # Errors
    /// When the store can't be asked; the same page can be asked for again then.
    pub async fn next(&mut self) -> Result<Option<Vec<Entry>>, StoreError> {
        if !self.more {
            return Ok(None);
        }
        let page = self.objects.list(self.prefix, self.size, self.after.as_deref()).await?;
        self.revision.get_or_insert(page.revision);
        self.more = page.more && !page.entries.is_empty();
        self.after = page.entries.last().map(|entry| entry.key.clone());
        Ok(Some(page.entries))
    }

    /// The revision that the first page showed; 0 before it was read. What is read later can be newer than this says.
    pub fn revision(&self) -> u64 {
        self.revision.unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::objects::{Change, History, SqliteObjects, Txn};

    #[tokio::test]
    async fn every_object_is_read_once_and_what_comes_between_is_followed() {
        let dir = tempfile::tempdir().expect("a directory");
        let objects = SqliteObjects::open(&dir.path().join("objects.db"), History::default(), None).expect("opens");
        let put = async |key: &str| {
            let changes = vec![Change::Put(key.to_owned(), Bytes::new())];
            objects.txn(Txn { checks: Vec::new(), changes }).await.expect("put")
        };
        let mut pages = Pages::of(&objects, "none/", 2);
        assert_eq!((pages.next().await.expect("read"), pages.revision()), (Some(Vec::new()), pages.revision()));
        assert_eq!(pages.next().await.expect("read"), None);
        let mut last = 0;
        for key in ["a/1", "a/2", "a/3", "a/4", "b/1"] {
            last = put(key).await;
        }
        let (mut pages, mut read) = (Pages::of(&objects, "a/", 2), Vec::new());
        while let Some(entries) = pages.next().await.expect("read") {
            read.extend(entries.into_iter().map(|entry| entry.key));
            assert!(put("a/0").await > last, "behind what was read");
        }
        assert_eq!(read, ["a/1", "a/2", "a/3", "a/4"]);
        assert_eq!(pages.revision(), last);
    }
}
