//! An image of a function: how the memory of an instance that has loaded it differs from a new one's.
//!
//! An instance starts as a copy-on-write view of the base image; writing these runs into it gives the state after the
//! function's module was evaluated. Runs are in order, don't overlap, and lie within `memory`; [`Image::decode`] checks
//! that, so [`Image::apply`] need not.

use sha2::{Digest, Sha256};

/// Bytes that are compared at once.
const BLOCK: usize = 64;

/// Equal blocks between two changed ones that are copied rather than starting a new run.
const GAP: usize = 2;

const MAGIC: &[u8; 8] = b"LYRAJS\x00\x01";
const HEAD: usize = MAGIC.len() + 8 + 4;

/// One run of changed bytes: where it starts, and how long it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Run {
    offset: u32,
    length: u32,
}

/// The runs of changed bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Image {
    /// Size of the linear memory, in bytes.
    memory: usize,
    runs: Vec<Run>,
    /// The bytes of all runs, one after the other.
    bytes: Vec<u8>,
}

impl Image {
    /// How `after` differs from `base` at and above `from`; memory that `base` does not have counts as zeros.
    pub(super) fn between(base: &[u8], after: &[u8], from: usize) -> Image {
        let mut image = Image { memory: after.len(), runs: Vec::new(), bytes: Vec::new() };
        let mut start = None;
        let mut end = 0;
        for at in (from..after.len()).step_by(BLOCK) {
            let block = &after[at..after.len().min(at + BLOCK)];
            if same(base, at, block) {
                continue;
            }
            if let Some(run) = start
                && at > end + GAP * BLOCK
            {
                image.push(run, &after[run..end]);
                start = None;
            }
            start = start.or(Some(at));
            end = at + block.len();
        }
        if let Some(run) = start {
            image.push(run, &after[run..end]);
        }
        image
    }

    fn push(&mut self, offset: usize, bytes: &[u8]) {
        let narrow = |n: usize| u32::try_from(n).expect("a linear memory has at most 4 GiB");
        self.runs.push(Run { offset: narrow(offset), length: narrow(bytes.len()) });
        self.bytes.extend_from_slice(bytes);
    }

    /// Size of the memory that the image needs.
    pub(super) fn memory(&self) -> usize {
        self.memory
    }

    /// Bytes that it holds.
    pub(super) fn weight(&self) -> usize {
        self.bytes.len() + self.runs.len() * size_of::<Run>()
    }

    /// Writes the runs into `memory`, which has at least [`Image::memory`] bytes.
    pub(super) fn apply(&self, memory: &mut [u8]) {
        let mut rest = &self.bytes[..];
        for run in &self.runs {
            let (bytes, after) = rest.split_at(run.length as usize);
            memory[run.offset as usize..][..bytes.len()].copy_from_slice(bytes);
            rest = after;
        }
    }

    /// The parts of the file that [`Image::decode`] reads: everything but the bytes, the bytes, a checksum.
    pub(super) fn encode(&self) -> [Vec<u8>; 3] {
        let mut head = Vec::with_capacity(HEAD + self.runs.len() * 8);
        head.extend_from_slice(MAGIC);
        head.extend_from_slice(&(self.memory as u64).to_le_bytes());
        head.extend_from_slice(&(self.runs.len() as u32).to_le_bytes());
        for run in &self.runs {
            head.extend_from_slice(&run.offset.to_le_bytes());
            head.extend_from_slice(&run.length.to_le_bytes());
        }
        let sum = Sha256::new().chain_update(&head).chain_update(&self.bytes).finalize();
        [head, self.bytes.clone(), sum.to_vec()]
    }

    /// Reads what [`Image::encode`] gave; `None` when it is not that.
    pub(super) fn decode(file: &[u8]) -> Option<Image> {
        let (content, sum) = file.split_at_checked(file.len().checked_sub(32)?)?;
        if Sha256::digest(content).as_slice() != sum {
            return None;
        }
        let rest = content.strip_prefix(MAGIC)?;
        let (memory, rest) = rest.split_first_chunk::<8>()?;
        let (count, rest) = rest.split_first_chunk::<4>()?;
        let memory = usize::try_from(u64::from_le_bytes(*memory)).ok()?;
        let (table, bytes) = rest.split_at_checked((u32::from_le_bytes(*count) as usize).checked_mul(8)?)?;
        let word = |four: &[u8]| Some(u32::from_le_bytes(four.try_into().ok()?));
        let mut runs = Vec::with_capacity(table.len() / 8);
        let (mut end, mut total) = (0usize, 0usize);
        for entry in table.chunks_exact(8) {
            let run = Run { offset: word(&entry[..4])?, length: word(&entry[4..])? };
            if (run.offset as usize) < end {
                return None;
            }
            end = (run.offset as usize).checked_add(run.length as usize)?;
            total = total.checked_add(run.length as usize)?;
            runs.push(run);
        }
        let fits = end <= memory && total == bytes.len();
        fits.then(|| Image { memory, runs, bytes: bytes.to_vec() })
    }
}

/// Whether `block` is what `base` has at `at`.
fn same(base: &[u8], at: usize, block: &[u8]) -> bool {
    let known = base.get(at..base.len().min(at + block.len())).unwrap_or_default();
    let (there, beyond) = block.split_at(known.len());
    there == known && beyond.iter().all(|byte| *byte == 0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn restored(base: &[u8], image: &Image) -> Vec<u8> {
        let mut memory = base.to_vec();
        memory.resize(image.memory(), 0);
        image.apply(&mut memory);
        memory
    }

    #[test]
    fn an_unchanged_memory_has_no_runs() {
        let base = vec![7; 1000];
        assert_eq!(Image::between(&base, &base, 0).weight(), 0);
        assert_eq!(Image::between(&[], &[0; 1000], 0).weight(), 0);
    }

    #[test]
    fn what_lies_below_the_start_is_left_out() {
        let image = Image::between(&[0; 256], &[1; 256], 128);
        assert_eq!(restored(&[0; 256], &image), [[0; 128], [1; 128]].concat());
    }

    proptest! {
        #[test]
        fn the_runs_restore_the_memory(
            base in proptest::collection::vec(0u8..3, 0..3000),
            grown in 0usize..1000,
            writes in proptest::collection::vec((any::<prop::sample::Index>(), proptest::collection::vec(any::<u8>(), 1..200)), 0..12),
        ) {
            let mut after = base.clone();
            after.resize(base.len() + grown, 0);
            for (at, bytes) in &writes {
                if !after.is_empty() {
                    let at = at.index(after.len());
                    let length = bytes.len().min(after.len() - at);
                    after[at..at + length].copy_from_slice(&bytes[..length]);
                }
            }
            let image = Image::between(&base, &after, 0);
            prop_assert_eq!(restored(&base, &image), after);
            prop_assert_eq!(Image::decode(&image.encode().concat()), Some(image));
        }

        #[test]
        fn a_damaged_file_is_refused(flip in any::<prop::sample::Index>(), bit in 0u8..8, cut in 0usize..200) {
            let image = Image::between(&[0; 4096], &[[0; 2048], [9; 2048]].concat(), 0);
            let file = image.encode().concat();
            let mut damaged = file.clone();
            damaged[flip.index(file.len())] ^= 1 << bit;
            prop_assert_eq!(Image::decode(&damaged), None);
            prop_assert_eq!(Image::decode(&file[..file.len() - 1 - cut]), None);
        }
    }
}
