//! Operations on collections: `element-index`, `block`, `split`, `replicate`.

use std::sync::Arc;

use lyra_afcl::graph::{Number, Operation, Pick};
use serde_json::Value;

use super::{shown, whole};

/// Applies an operation to the first of its task's inputs; the others are its arguments.
///
/// # Errors
/// When the first is no array, an argument is out of its range, or the result would have more than `limit` elements.
pub fn collection(operation: &Operation, values: &[Arc<Value>], limit: usize) -> Result<Value, String> {
    let data = values.first().ok_or("there is no collection")?;
    let array = data.as_array().ok_or_else(|| format!("{} is no collection", shown(data)))?;
    let number = |number: &Number| match number {
        Number::Constant(number) => Ok(*number),
        Number::Input(at) => whole(values.get(*at as usize).ok_or("an argument is missing")?),
    };
    match operation {
        Operation::ElementIndex(picks) => element_index(array, picks, &number, limit),
        Operation::Block { size, overlap } => block(array, number(size)?, number(overlap)?, limit),
        Operation::Split(chunks) => split(array, number(chunks)?, limit),
        Operation::Replicate(times) => replicate(array, number(times)?, limit),
    }
}

fn element_index(
    array: &[Value],
    picks: &[Pick],
    number: &impl Fn(&Number) -> Result<i64, String>,
    limit: usize,
) -> Result<Value, String> {
    let at = |index: i64| {
        let element = usize::try_from(index).ok().and_then(|index| array.get(index));
        element.ok_or_else(|| format!("index {index} is not in a collection of {}", array.len()))
    };
    if let [Pick::At(index)] = picks {
        return Ok(at(number(index)?)?.clone());
    }
    let mut flat = Vec::new();
    let last = i64::try_from(array.len()).unwrap_or(i64::MAX) - 1;
    for pick in picks {
        match pick {
            Pick::At(index) => flat.push(at(number(index)?)?.clone()),
            Pick::Range { start, end, stride } => {
                let of = |given: &Option<Number>, without: i64| given.as_ref().map_or(Ok(without), number);
                let (start, end, stride) = (of(start, 0)?, of(end, last)?, of(stride, 1)?);
                if stride < 1 {
                    return Err(format!("the stride {stride} is below 1"));
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
                        Value::Array(inner) => flat.extend(inner.iter().cloned()),
                        element => flat.push(element.clone()),
                    }
                    index += stride;
                }
            }
        }
        bounded(flat.len(), limit)?;
    }
    Ok(Value::Array(flat))
}

fn block(array: &[Value], size: i64, overlap: i64, limit: usize) -> Result<Value, String> {
    let (Ok(size), Ok(overlap)) = (usize::try_from(size), usize::try_from(overlap)) else {
        return Err(format!("a block of {size} with an overlap of {overlap} can't be"));
    };
    if size < 1 || overlap >= size {
        return Err(format!("a block of {size} can't overlap by {overlap}"));
    }
    let mut blocks = Vec::new();
    let mut start = 0;
    while start < array.len() {
        let end = (start + size).min(array.len());
        blocks.push(Value::Array(array[start..end].to_vec()));
        bounded(blocks.len().saturating_mul(size), limit.saturating_mul(2))?;
        if end == array.len() {
            break;
        }
        start += size - overlap;
    }
    Ok(Value::Array(blocks))
}

fn split(array: &[Value], chunks: i64, limit: usize) -> Result<Value, String> {
    let chunks = usize::try_from(chunks).ok().filter(|chunks| *chunks >= 1);
    let chunks = chunks.ok_or("a collection is split in 2 or more")?.min(array.len());
    bounded(chunks, limit)?;
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

fn replicate(array: &[Value], times: i64, limit: usize) -> Result<Value, String> {
    let times =
        usize::try_from(times).ok().filter(|times| *times >= 1).ok_or("elements are replicated 2 or more times")?;
    bounded(array.len().saturating_mul(times), limit)?;
    let repeated = array.iter().flat_map(|element| std::iter::repeat_n(element, times)).cloned();
    Ok(Value::Array(repeated.collect()))
}

fn bounded(length: usize, limit: usize) -> Result<(), String> {
    if length > limit { Err(format!("{length} elements are more than the limit of {limit}")) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn apply(operation: &Operation, data: Value) -> Result<Value, String> {
        collection(operation, &[Arc::new(data)], 100)
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
    fn arguments_may_be_data() {
        let operation = Operation::Split(Number::Input(1));
        let made = collection(&operation, &[Arc::new(json!([1, 2])), Arc::new(json!(2.0))], 10);
        assert_eq!(made, Ok(json!([[1], [2]])));
    }
}
