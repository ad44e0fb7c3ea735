//! Results that are kept for a time. They spare work, and no more: one that can't be read whole is as good as none.

use async_nats::HeaderMap;
use bytes::Bytes;
use lyra_types::{TenantName, Timestamp};

use super::Shared;
use super::bucket::{PLACE, UNTIL};
use super::entry::{Place, decode, encode};
use super::owners::until;
use crate::StoreError;
use crate::nats::Payload;

impl Shared {
    pub(super) async fn memo(
        &self,
        tenant: &TenantName,
        key: &[u8; 32],
        now: Timestamp,
    ) -> Result<Option<Bytes>, StoreError> {
        let rest = format!("{tenant}.{}", hex::encode(key));
        let subject = self.bucket.data_subject("m", &rest);
        let found = self.bucket.channel.last(&self.bucket.data, &subject, "read a kept result").await?;
        let Some(found) = found.filter(|found| until(&found.headers).is_some_and(|until| until > now)) else {
            return Ok(None);
        };
        let payload: Payload = decode(&found.payload)?;
        let parts = self.memo_parts(&rest, found.headers.get(PLACE).map_or("", |place| place.as_str()));
        match self.bucket.channel.payload(&self.bucket.data, &parts, &payload).await {
            Ok(bytes) => Ok(Some(bytes)),
            // Replaced, or forgotten, while it was read.
            Err(StoreError::Damaged { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) async fn keep_memo(
        &self,
        tenant: &TenantName,
        key: &[u8; 32],
        result: &Bytes,
        until: Timestamp,
    ) -> Result<(), StoreError> {
        const OPERATION: &str = "keep a result";
        let rest = format!("{tenant}.{}", hex::encode(key));
        let subject = self.bucket.data_subject("m", &rest);
        let before = self.bucket.channel.last(&self.bucket.data, &subject, OPERATION).await?;
        let mut headers = HeaderMap::new();
        headers.insert(UNTIL, until.millis().to_string().as_str());
        let (payload, large) = Payload::of(result.clone(), "r");
        if let Some(large) = large {
            let place = Place::new(self.bucket.clock().now(), self.bucket.channel.token());
            self.bucket.channel.put_payload(&self.memo_parts(&rest, &place.0), &payload, &large).await?;
            headers.insert(PLACE, place.0.as_str());
        }
        self.bucket.channel.send(&subject, &headers, &encode(&payload)?, OPERATION).await?;
        match before.and_then(|before| before.headers.get(PLACE).map(|place| place.as_str().to_owned())) {
            Some(place) => self.drop_memo_parts(&rest, &place).await,
            None => Ok(()),
        }
    }

    pub(super) async fn forget_memos(&self, tenant: &TenantName) -> Result<(), StoreError> {
        for kind in [self.bucket.data_subject("m", &format!("{tenant}.>")), self.memo_parts(tenant.as_str(), ">")] {
            self.bucket.channel.purge(&self.bucket.data, &kind).await?;
        }
        Ok(())
    }

    fn memo_parts(&self, rest: &str, place: &str) -> String {
        self.bucket.data_subject("d", &format!("m.{rest}.{place}"))
    }

    pub(super) async fn drop_memo_parts(&self, rest: &str, place: &str) -> Result<(), StoreError> {
        let filter = format!("{}.>", self.memo_parts(rest, place));
        self.bucket.channel.purge(&self.bucket.data, &filter).await
    }
}
