//! Operations on collections: `element-index`, `block`, `split`, `replicate`.

use std::ops::Deref;

use lyra_afcl::graph::{Number, Operation, Pick};
use serde_json::Value;

use super::{Fault, Most, shown, whole};
use crate::core::Extent;

/// Applies an operation to the first of its task's inputs; the others are its arguments.
///
/// # Errors
/// When the first is no array, an argument is out of its range, or the result would be larger than `most`.
pub fn collection<V: Deref<Target = Value>>(operation: &Operation, values: &[V], most: Most) -> Result<Value, Fault> {
    let data = values.first().ok_or("there is no collection")?;
    let array = data.as_array().ok_or_else(|| format!("{} is no collection", shown(data)))?;
    let number = |number: &Number| -> Result<i64, Fault> {
        match number {
            Number::Constant(number) => Ok(*number),
            Number::Input(at) => Ok(whole(values.get(*at as usize).ok_or("an argument is missing")?)?),
        }
    };
    match operation {
        Operation::ElementIndex(picks) => element_index(array, picks, &number, most),
        Operation::Block { size, overlap } => block(array, number(size)?, number(overlap)?, most),
        Operation::Split(chunks) => split(array, number(chunks)?, most),
        Operation::Replicate(times) => replicate(array, number(times)?, most),
    }
}

fn element_index(
    array: &[Value],
    picks: &[Pick],
    number: &impl Fn(&Number) -> Result<i64, Fault>,
    most: Most,
) -> Result<Value, Fault> {
    let at = |index: i64| {
        let element = usize::try_from(index).ok().and_then(|index| array.get(index));
        element.ok_or_else(|| Fault::Data(format!("index {index} is not in a collection of {}", array.len())))
    };
    if let [Pick::At(index)] = picks {
        return Ok(at(number(index)?)?.clone());
    }
    let mut flat = Made::new(most);
    let last = i64::try_from(array.len()).unwrap_or(i64::MAX) - 1;
    for pick in picks {
        match pick {
            Pick::At(index) => flat.push(at(number(index)?)?)?,
            Pick::Range { start, end, stride } => {
                let of = |given: &Option<Number>, without: i64| given.as_ref().map_or(Ok(without), number);
                let (start, end, stride) = (of(start, 0)?, of(end, last)?, of(stride, 1)?);
                if stride < 1 {
                    return Err(Fault::Data(format!("the stride {stride} is below 1")));
                }
                if start > end {
                    continue;
                }
                // Both ends must be there, the end is taken in.
                at(start)?;
                at(end)?;
                let mut index = start;
                while index <= end {
                    match at(index)? {
                        // Nested arrays are taken apart by one level.
                        Value::Array(inner) => inner.iter().try_for_each(|element| flat.push(element))?,
                        element => flat.push(element)?,
                    }
                    // A stride beyond all numbers is beyond the end.
                    let Some(next) = index.checked_add(stride) else { break };
                    index = next;
                }
            }
        }
    }
    Ok(Value::Array(flat.elements))
}

/// An array that is being made.
struct Made {
    elements: Vec<Value>,
    bytes: u64,
    most: Most,
}

impl Made {
    fn new(most: Most) -> Made {
        Made { elements: Vec::new(), bytes: 0, most }
    }

    fn push(&mut self, element: &Value) -> Result<(), Fault> {
        self.bytes += Extent::of(element).memory;
        self.most.allows(self.bytes)?;
        self.most.has(self.elements.len() + 1)?;
        self.elements.push(element.clone());
        Ok(())
    }
}

fn block(array: &[Value], size: i64, overlap: i64, most: Most) -> Result<Value, Fault> {
    let (Ok(size), Ok(overlap)) = (usize::try_from(size), usize::try_from(overlap)) else {
        return Err(Fault::Data(format!("a block of {size} with an overlap of {overlap} can't be")));
    };
    if size < 1 || overlap >= size {
        return Err(Fault::Data(format!("a block of {size} can't overlap by {overlap}")));
    }
    let mut blocks = Vec::new();
    let (mut start, mut elements, mut bytes) = (0, 0_usize, 0);
    while start < array.len() {
        let end = start.saturating_add(size).min(array.len());
        let block = &array[start..end];
        bytes += block.iter().map(Extent::of).fold(Extent::array(), Extent::with).memory;
        most.allows(bytes)?;
        elements += block.len();
        most.has(elements / 2)?;
        blocks.push(Value::Array(block.to_vec()));
        if end == array.len() {
            break;
        }
        start += size - overlap;
    }
    Ok(Value::Array(blocks))
}

fn split(array: &[Value], chunks: i64, most: Most) -> Result<Value, Fault> {
    let chunks = usize::try_from(chunks).ok().filter(|chunks| *chunks >= 1);
    let chunks = chunks.ok_or("a collection is split in 2 or more")?.min(array.len());
    most.has(chunks)?;
    most.allows(array.iter().map(|element| Extent::of(element).memory).sum())?;
    if chunks == 0 {
        return Ok(Value::Array(Vec::new()));
    }
    let length = array.len().div_ceil(chunks);
    let chunk = |n: usize| {
        let start = (n * length).min(array.len());
        Value::Array(array[start..(start + length).min(array.len())].to_vec())
    };
    Ok(Value::Array((0..chunks).map(chunk).collect()))
}

fn replicate(array: &[Value], times: i64, most: Most) -> Result<Value, Fault> {
    let times =
        usize::try_from(times).ok().filter(|times| *times >= 1).ok_or("elements are replicated 2 or more times")?;
    most.has(array.len().saturating_mul(times))?;
    let once: u64 = array.iter().map(|element| Extent::of(element).memory).sum();
    most.allows(once.saturating_mul(times as u64))?;
    let repeated = array.iter().flat_map(|element| std::iter::repeat_n(element, times)).cloned();
    Ok(Value::Array(repeated.collect()))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use serde_json::json;

    const MOST: Most = Most { elements: 100, bytes: 1 << 20 };

    fn apply(operation: &Operation, data: Value) -> Result<Value, Fault> {
        collection(operation, &[Arc::new(data)], MOST)
    }

    fn at(index: i64) -> Pick {
        Pick::At(Number::Constant(index))
    }

    fn range(start: Option<i64>, end: Option<i64>, stride: Option<i64>) -> Pick {
        let of = |number: Option<i64>| number.map(Number::Constant);
        Pick::Range { start: of(start), end: of(end), stride: of(stride) }
    }

    #[test]
    fn element_index_takes_one_or_a_flat_list() {
        let data = json!([10, 11, 12, 13]);
        let pick = |picks: Vec<Pick>| apply(&Operation::ElementIndex(picks), data.clone());
        assert_eq!(pick(vec![at(2)]), Ok(json!(12)));
        assert_eq!(pick(vec![at(2), at(0)]), Ok(json!([12, 10])));
        assert_eq!(pick(vec![range(Some(1), Some(2), None)]), Ok(json!([11, 12])), "the end is taken in");
        assert_eq!(pick(vec![range(None, None, Some(2)), at(3)]), Ok(json!([10, 12, 13])));
        assert!(pick(vec![at(4)]).is_err());
        assert!(pick(vec![at(-1)]).is_err());
        assert!(pick(vec![range(Some(0), Some(9), None)]).is_err());
        let far = pick(vec![range(Some(1), None, Some(i64::MAX))]);
        assert_eq!(far, Ok(json!([11])), "a stride beyond the end takes the first");
        let nested = apply(&Operation::ElementIndex(vec![range(None, None, None)]), json!([[1, 2], [3], 4]));
        assert_eq!(nested, Ok(json!([1, 2, 3, 4])));
    }

    #[test]
    fn blocks_overlap_and_the_last_may_be_short() {
        let block = |size, overlap| {
            let operation = Operation::Block { size: Number::Constant(size), overlap: Number::Constant(overlap) };
            apply(&operation, json!([1, 2, 3, 4, 5]))
        };
        assert_eq!(block(2, 0), Ok(json!([[1, 2], [3, 4], [5]])));
        assert_eq!(block(3, 1), Ok(json!([[1, 2, 3], [3, 4, 5]])));
        assert_eq!(block(10, 0), Ok(json!([[1, 2, 3, 4, 5]])));
        assert!(block(2, 2).is_err());
    }

    #[test]
    fn split_and_replicate_keep_the_order() {
        let split = |n| apply(&Operation::Split(Number::Constant(n)), json!([1, 2, 3, 4, 5]));
        assert_eq!(split(2), Ok(json!([[1, 2, 3], [4, 5]])));
        assert_eq!(split(4), Ok(json!([[1, 2], [3, 4], [5], []])));
        assert_eq!(split(9), Ok(json!([[1], [2], [3], [4], [5]])));
        let replicate = |n| apply(&Operation::Replicate(Number::Constant(n)), json!(["a", "b"]));
        assert_eq!(replicate(2), Ok(json!(["a", "a", "b", "b"])));
        assert!(replicate(51).is_err(), "more than the limit");
    }

    #[test]
    fn what_would_take_too_many_bytes_is_not_made() {
        let long = || json!(["x".repeat(400_000), "y".repeat(400_000)]);
        let twice = range(None, None, None);
        let operations = [
            Operation::Replicate(Number::Constant(2)),
            Operation::Block { size: Number::Constant(2), overlap: Number::Constant(1) },
            Operation::ElementIndex(vec![twice, twice]),
        ];
        for operation in operations {
            let data = if matches!(operation, Operation::Block { .. }) {
                json!(["a".repeat(400_000), "b".repeat(400_000), "c".repeat(10)])
            } else {
                long()
            };
            let most = Most { elements: 100, bytes: 1_000_000 };
            let made = collection(&operation, &[Arc::new(data)], most);
            assert!(matches!(&made, Err(Fault::Limit(said)) if said.contains("max_result_bytes")), "{operation:?}");
        }
        assert!(apply(&Operation::Split(Number::Constant(2)), long()).is_ok());
    }

    #[test]
    fn arguments_may_be_data() {
        let operation = Operation::Split(Number::Input(1));
        let made = collection(&operation, &[Arc::new(json!([1, 2])), Arc::new(json!(2.0))], MOST);
        assert_eq!(made, Ok(json!([[1], [2]])));
    }
}
