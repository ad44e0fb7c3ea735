//! Processor time: what of it is used up in each period, by the counts of [usage](crate::jobs).
//!
//! Counts are told by workers about a second after a call has ended, and read here every [`EVERY`]: a tenant may use as much more as its
//! calls use in that time.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use lyra_types::quota::{Period, QuotaKey};
use lyra_types::usage::{Hour, UsageGroup, UsageQuery};
use lyra_types::{Result, TenantName, Timestamp};

use super::Quotas;

/// How often counts are read.
const EVERY: Duration = Duration::from_secs(1);
/// Functions of a tenant whose counts are read at once.
const PAGE: usize = 1_000;

/// What was used in a period.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Spent {
    /// In ms.
    pub(super) used: u64,
    /// All is used up; there is more from then on.
    pub(super) until: Option<Timestamp>,
}

impl Quotas {
    /// Reads counts for ever.
    pub(super) async fn watch_cpu(&self) {
        loop {
            match self.read_cpu().await {
                Ok(spent) => *self.spent.write() = spent,
                // What is known may be too little; calls go on.
                Err(error) => tracing::warn!(%error, "what processor time was used can't be read"),
            }
            self.clock.sleep(EVERY).await;
        }
    }

    async fn read_cpu(&self) -> Result<HashMap<QuotaKey, Spent>> {
        let mut limited: BTreeMap<(TenantName, Period), Vec<(QuotaKey, u64)>> = BTreeMap::new();
        for (key, quota) in self.in_force() {
            if let Some((most, period)) = quota.cpu() {
                limited.entry((key.tenant.clone(), period)).or_default().push((key, most));
            }
        }
        let now = self.clock.now();
        let mut spent = HashMap::new();
        for ((tenant, period), keys) in limited {
            let (begin, end) = period.around(now);
            let used = self.used_since(&tenant, begin).await?;
            for (key, most) in keys {
                let micros: u64 = match &key.function {
                    None => used.values().sum(),
                    Some(function) => used.get(function.as_str()).copied().unwrap_or_default(),
                };
                let used = micros / 1_000;
                spent.insert(key, Spent { used, until: (used >= most).then_some(end) });
            }
        }
        Ok(spent)
    }

    /// Microseconds by function.
    async fn used_since(&self, tenant: &TenantName, begin: Timestamp) -> Result<HashMap<String, u64>> {
        let mut used = HashMap::new();
        loop {
            let query = UsageQuery {
                tenant: Some(tenant.clone()),
                from: Some(Hour::of(begin)),
                by: vec![UsageGroup::Function],
                limit: PAGE,
                offset: used.len(),
                ..UsageQuery::default()
            };
            let sums = self.jobs.usage(query).await?;
            let count = sums.len();
            for sum in sums {
                let function = sum.function.map(String::from).unwrap_or_default();
                *used.entry(function).or_default() += sum.usage.cpu_us;
            }
            if count < PAGE {
                return Ok(used);
            }
        }
    }
}
