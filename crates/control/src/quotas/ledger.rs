//! Who holds which part of each limit: the leader's account of the members. Pure but for the time, which is handed in.
//!
//! What must hold, once the leader has heard all members that hold something: what members may be using never comes to more than the
//! limit. A member may use what it was told last, what it was told before as long as it has not said that it applied the last, and what
//! still runs there; so a share grows only by what all others surely have left. A member that is silent for [`LEASE`] counts no more.
//!
//! A leader that has just begun does not know what is held. For the time of a lease it confirms what members say that they hold, and gives
//! new ones a quarter at most.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use lyra_types::Timestamp;
use lyra_types::quota::{Quota, QuotaKey};
use lyra_wire::quotas::{Claim, Limit, Share, Shares, Want};
use tokio::time::Instant;

use super::split::{Wanted, split};

/// A member that is not heard of for so long has no share any more.
pub(super) const LEASE: Duration = Duration::from_secs(3);
/// Between equals, whose turn it is changes this often.
const TURN: Duration = Duration::from_secs(1);
/// What is left over of a limit is shared out by these weights. Who is patient lets nobody in: it takes no part of rates.
const EAGER: u64 = 8;
const PATIENT: u64 = 1;
/// Rates are told in calls per so many seconds.
const MILLION: f64 = 1_000_000.0;

/// A quota of calls, and until when no processor time is left.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct InForce {
    pub(super) quota: Quota,
    pub(super) spent_until: Option<Timestamp>,
}

/// What a member was told of a limit.
struct Told {
    limit: Limit,
    /// The most that it may be using.
    upper: Share,
}

struct Member {
    heard: Instant,
    patient: bool,
    number: u64,
    told: HashMap<QuotaKey, Told>,
    wants: HashMap<QuotaKey, Want>,
}

/// The account of one term.
pub(super) struct Ledger {
    session: u64,
    began: Instant,
    /// There can be no members but those of this process.
    alone: bool,
    members: BTreeMap<u64, Member>,
}

/// What is asked for and in use under a quota.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Use {
    pub(super) rate: f64,
    pub(super) calls: u64,
    pub(super) memory_mb: u64,
}

impl Ledger {
    pub(super) fn new(session: u64, began: Instant, alone: bool) -> Ledger {
        Ledger { session, began, alone, members: BTreeMap::new() }
    }

    /// Answers a claim.
    pub(super) fn claim(&mut self, now: Instant, claim: Claim, limits: &BTreeMap<QuotaKey, InForce>) -> Shares {
        let me = claim.member;
        self.members.retain(|id, member| *id == me || now.duration_since(member.heard) < LEASE);
        let mut answer = Shares {
            session: self.session,
            number: 0,
            tell_all: false,
            whole: false,
            limits: Vec::new(),
            gone: Vec::new(),
        };
        let known = self.members.get(&me).is_some_and(|member| claim.have == Some((self.session, member.number)));
        let number = self.members.get(&me).map_or(0, |member| member.number);
        if !known {
            let Some(holds) = claim.holds else {
                answer.tell_all = true;
                return answer;
            };
            let told = holds.into_iter().filter_map(|(key, upper)| {
                let InForce { quota, spent_until } = limits.get(&key)?.clone();
                let limit = Limit { key: key.clone(), quota, share: upper, spent_until, shared: true };
                Some((key, Told { limit, upper }))
            });
            let member =
                Member { heard: now, patient: claim.patient, number, told: told.collect(), wants: HashMap::new() };
            self.members.insert(me, member);
            answer.whole = true;
        }
        self.hear(now, me, claim.wants);
        for (key, in_force) in limits {
            let limit = self.part(now, me, key, in_force);
            let Some(member) = self.members.get_mut(&me) else { continue };
            let changed = member.told.get(key).is_none_or(|told| told.limit != limit);
            let upper = member.told.get(key).map_or(limit.share, |told| larger(told.upper, limit.share));
            if changed || answer.whole {
                answer.limits.push(limit.clone());
            }
            member.told.insert(key.clone(), Told { limit, upper });
        }
        if let Some(member) = self.members.get_mut(&me) {
            let gone: Vec<QuotaKey> = member.told.keys().filter(|key| !limits.contains_key(*key)).cloned().collect();
            gone.iter().for_each(|key| drop(member.told.remove(key)));
            answer.gone = gone;
            member.number += 1;
            answer.number = member.number;
        }
        answer
    }

    /// Takes in what a member says: what it was told last is in force there, and so much runs.
    fn hear(&mut self, now: Instant, me: u64, wants: Vec<Want>) {
        let Some(member) = self.members.get_mut(&me) else { return };
        member.heard = now;
        member.wants = wants.into_iter().map(|want| (want.key.clone(), want)).collect();
        for (key, told) in &mut member.told {
            let want = member.wants.get(key);
            let running = Share {
                rate: None,
                burst: None,
                concurrency: want.map(|want| want.running),
                memory_mb: want.map(|want| want.running_mb),
            };
            told.upper = larger(told.limit.share, running);
        }
    }

    /// The part of a limit that a member shall have.
    fn part(&self, now: Instant, me: u64, key: &QuotaKey, in_force: &InForce) -> Limit {
        let place = self.members.keys().position(|id| *id == me).unwrap_or_default();
        let turn = now.duration_since(self.began).as_secs() / TURN.as_secs();
        let of = |wanted: fn(&Want) -> u64, of_patient: u64| -> Vec<Wanted> {
            let want = |member: &Member| Wanted {
                // Tries are let in as calls already: who is patient has no use for a part of a rate.
                amount: member.wants.get(key).filter(|_| !member.patient || of_patient > 0).map_or(0, wanted),
                weight: if member.patient { of_patient } else { EAGER },
            };
            self.members.values().map(want).collect()
        };
        let granted = |total: u64, unit: u64, wants: Vec<Wanted>, part: fn(&Share) -> Option<u64>| -> u64 {
            let target = split(total, unit, &wants, turn).get(place).copied().unwrap_or_default();
            let held = |member: &Member| member.told.get(key).and_then(|told| part(&told.upper)).unwrap_or_default();
            let others = self.members.iter().filter(|(id, _)| **id != me).map(|(_, member)| held(member));
            let left = total.saturating_sub(others.sum());
            let own = self.members.get(&me).map(held).unwrap_or_default();
            let beginning = !self.alone && now.duration_since(self.began) < LEASE;
            let most = if beginning { own.max((total / 4).max(1)) } else { u64::MAX };
            target.min(left).min(most)
        };
        let quota = &in_force.quota;
        let rate = quota.rate.map(|rate| (rate * MILLION).round() as u64);
        let rate_part = rate.map(|total| granted(total, 1, of(|want| want.rate, 0), |share| share.rate));
        let burst = rate.zip(rate_part).zip(quota.burst()).map(|((total, part), burst)| {
            let burst = u128::from(burst) * 1_000 * u128::from(part) / u128::from(total.max(1));
            u64::try_from(burst).unwrap_or(u64::MAX)
        });
        let largest = self.members.values().filter_map(|member| member.wants.get(key)).map(|want| want.largest_mb);
        let unit = largest.max().unwrap_or_default();
        let share = Share {
            rate: rate_part,
            burst,
            concurrency: quota
                .concurrency
                .map(|total| granted(total.into(), 1, of(|want| want.concurrency, PATIENT), |share| share.concurrency)),
            memory_mb: quota
                .memory_mb
                .map(|total| granted(total.into(), unit, of(|want| want.memory_mb, PATIENT), |share| share.memory_mb)),
        };
        let shared = self.members.len() > 1;
        Limit { key: key.clone(), quota: quota.clone(), share, spent_until: in_force.spent_until, shared }
    }

    /// What is asked for and in use, by what members said last.
    pub(super) fn used(&self, key: &QuotaKey) -> Use {
        self.members.values().filter_map(|member| member.wants.get(key)).fold(Use::default(), |sum, want| Use {
            rate: sum.rate + want.rate as f64 / MILLION,
            calls: sum.calls + want.running,
            memory_mb: sum.memory_mb + want.running_mb,
        })
    }

    /// How many members there are.
    #[cfg(test)]
    pub(super) fn members(&self) -> usize {
        self.members.len()
    }

    /// What all members together may be using.
    #[cfg(test)]
    fn in_use(&self, key: &QuotaKey) -> Share {
        let mut sum = Share::default();
        let add = |sum: Option<u64>, more: Option<u64>| Some(sum.unwrap_or(0) + more.unwrap_or(0));
        for told in self.members.values().filter_map(|member| member.told.get(key)) {
            sum.rate = add(sum.rate, told.upper.rate);
            sum.burst = add(sum.burst, told.upper.burst);
            sum.concurrency = add(sum.concurrency, told.upper.concurrency);
            sum.memory_mb = add(sum.memory_mb, told.upper.memory_mb);
        }
        sum
    }
}

/// The larger of both, part by part.
fn larger(one: Share, other: Share) -> Share {
    Share {
        rate: one.rate.max(other.rate),
        burst: one.burst.max(other.burst),
        concurrency: one.concurrency.max(other.concurrency),
        memory_mb: one.memory_mb.max(other.memory_mb),
    }
}

/// The quotas that hold calls, of all that are in force.
pub(super) fn of_calls(
    quotas: impl Iterator<Item = (QuotaKey, Quota)>,
    spent: &HashMap<QuotaKey, Timestamp>,
) -> BTreeMap<QuotaKey, InForce> {
    let limiting = quotas.filter(|(_, quota)| quota.limits_calls());
    limiting
        .map(|(key, quota)| {
            let spent_until = spent.get(&key).copied();
            (key, InForce { quota, spent_until })
        })
        .collect()
}

#[cfg(test)]
#[path = "ledger_tests.rs"]
mod tests;
