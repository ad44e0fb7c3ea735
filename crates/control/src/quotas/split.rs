//! The rule by which members get parts of a limit. Pure.
//!
//! Who wants something gets it, as long as there is enough; what is left over is shared out by weight, so that a member that wants more
//! has some at once. Where there is not enough, parts are in proportion to what is wanted, and nobody who wants something gets nothing while there
//! are as many units as such members.

/// What a member wants of a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) amount: u64,
    /// What is left over is shared out by this.
    pub(super) weight: u64,
}

/// Parts of `total`, in the order of `wants`, which never come to more. Parts are multiples of `unit` (but for one, which has the
/// rest): less is good for nothing. `turn` decides between equals: it goes on with time, so that nobody is left out for ever.
pub(super) fn split(total: u64, unit: u64, wants: &[Wanted], turn: u64) -> Vec<u64> {
    let unit = unit.clamp(1, total.max(1));
    let units = total / unit;
    let wanted: Vec<u64> = wants.iter().map(|want| want.amount.div_ceil(unit)).collect();
    let sum: u128 = wanted.iter().map(|wanted| u128::from(*wanted)).sum();
    let mut parts = match u64::try_from(sum) {
        Ok(sum) if sum <= units => with_the_rest(units - sum, wanted, wants),
        _ => in_proportion(units, &wanted, sum, turn),
    };
    parts.iter_mut().for_each(|part| *part *= unit);
    let rest = total % unit;
    if let Some(largest) = (0..parts.len()).max_by_key(|at| (parts[*at], std::cmp::Reverse(*at)))
        && parts[largest] > 0
    {
        parts[largest] += rest;
    }
    parts
}

fn with_the_rest(rest: u64, mut parts: Vec<u64>, wants: &[Wanted]) -> Vec<u64> {
    let weights: u128 = wants.iter().map(|want| u128::from(want.weight)).sum();
    if weights == 0 {
        return parts;
    }
    let mut left = rest;
    for (part, want) in parts.iter_mut().zip(wants) {
        let more = u64::try_from(u128::from(rest) * u128::from(want.weight) / weights).unwrap_or(0);
        *part += more;
        left -= more;
    }
    let mut heaviest: Vec<usize> = (0..wants.len()).filter(|at| wants[*at].weight > 0).collect();
    heaviest.sort_by_key(|at| std::cmp::Reverse(wants[*at].weight));
    // Less than one for each of them is left.
    for at in heaviest.into_iter().take(usize::try_from(left).unwrap_or(usize::MAX)) {
        parts[at] += 1;
    }
    parts
}

fn in_proportion(units: u64, wanted: &[u64], sum: u128, turn: u64) -> Vec<u64> {
    let exact = |wanted: u64| u128::from(units) * u128::from(wanted);
    let mut parts: Vec<u64> =
        wanted.iter().map(|wanted| u64::try_from(exact(*wanted) / sum).unwrap_or(u64::MAX)).collect();
    let count = wanted.len() as u64;
    let mut order: Vec<usize> = (0..wanted.len()).filter(|at| wanted[*at] > 0).collect();
    // The largest rest first; between equals it goes round.
    order.sort_by_key(|at| (std::cmp::Reverse(exact(wanted[*at]) % sum), (*at as u64 + turn) % count));
    let mut left = units - parts.iter().sum::<u64>();
    for at in &order {
        if left == 0 {
            break;
        }
        parts[*at] += 1;
        left -= 1;
    }
    // Who has nothing gets one of those who have most, while there is one for everybody.
    if units >= order.len() as u64 {
        while let Some(poor) = order.iter().find(|at| parts[**at] == 0)
            && let Some(rich) = (0..parts.len()).max_by_key(|at| parts[*at]).filter(|at| parts[*at] > 1)
        {
            parts[rich] -= 1;
            parts[*poor] += 1;
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn eager(amounts: &[u64]) -> Vec<Wanted> {
        amounts.iter().map(|amount| Wanted { amount: *amount, weight: 8 }).collect()
    }

    #[test]
    fn what_is_wanted_comes_first_and_the_rest_is_for_all() {
        assert_eq!(split(10, 1, &eager(&[4, 0]), 0), [7, 3]);
        assert_eq!(split(10, 1, &eager(&[0, 0, 0]), 0), [4, 3, 3]);
        assert_eq!(split(10, 1, &eager(&[30, 10]), 0), [8, 2]);
        assert_eq!(split(10, 1, &eager(&[10_000, 1]), 0), [9, 1], "nobody who wants something gets nothing");
        let light = Wanted { amount: 2, weight: 1 };
        assert_eq!(split(10, 1, &[eager(&[0])[0], light], 0), [8, 2]);
        assert_eq!(split(20, 1, &[eager(&[0])[0], light], 0), [16, 4]);
        assert_eq!(split(10, 1, &[Wanted { weight: 0, ..light }], 0), [2]);
    }

    #[test]
    fn a_part_is_large_enough_for_a_call() {
        assert_eq!(split(300, 128, &eager(&[128, 128]), 0), [172, 128]);
        assert_eq!(split(128, 128, &eager(&[128, 128]), 0), [128, 0]);
        assert_eq!(split(100, 128, &eager(&[128]), 0), [100], "what fits nowhere is still a part");
    }

    #[test]
    fn between_equals_it_goes_round() {
        let who = |turn| split(1, 1, &eager(&[1, 1]), turn).iter().position(|part| *part == 1);
        assert_ne!(who(0), who(1));
    }

    proptest! {
        #[test]
        fn parts_never_come_to_more_and_nobody_who_wants_is_left_out(
            total in 0_u64..10_000,
            unit in 1_u64..300,
            amounts in prop::collection::vec((0_u64..20_000, 0_u64..9), 1..8),
            turn in any::<u32>(),
        ) {
            let wants: Vec<Wanted> = amounts.iter().map(|(amount, weight)| Wanted { amount: *amount, weight: *weight }).collect();
            let parts = split(total, unit, &wants, turn.into());
            prop_assert!(parts.iter().sum::<u64>() <= total);
            let unit = unit.clamp(1, total.max(1));
            let sum: u64 = wants.iter().map(|want| want.amount.div_ceil(unit)).sum();
            if total >= unit && (wants.iter().any(|want| want.weight > 0) || sum * unit >= total && sum > 0) {
                prop_assert_eq!(parts.iter().sum::<u64>(), total, "nothing lies about");
            }
            let wanting = wants.iter().filter(|want| want.amount > 0).count() as u64;
            for (part, want) in parts.iter().zip(&wants) {
                if sum * unit <= total {
                    prop_assert!(*part >= want.amount);
                }
                if total / unit >= wanting && want.amount > 0 {
                    prop_assert!(*part > 0);
                }
            }
        }
    }
}
