//! Puts together what came in parts.

use bytes::{Bytes, BytesMut};

use super::MAX_WHOLE;

/// Pieces of one event or result, in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Pieces(BytesMut);

/// More came than anyone may send.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooLarge;

impl Pieces {
    pub(super) fn new(first: &[u8]) -> Pieces {
        Pieces(BytesMut::from(first))
    }

    pub(super) fn add(&mut self, piece: &[u8]) -> Result<(), TooLarge> {
        if self.0.len() + piece.len() > MAX_WHOLE {
            return Err(TooLarge);
        }
        self.0.extend_from_slice(piece);
        Ok(())
    }

    pub(super) fn whole(self) -> Bytes {
        self.0.freeze()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{PART, cut};
    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn what_is_cut_is_put_together(size in 0..PART * 3 + 2) {
            let whole: Bytes = (0..size).map(|n| n as u8).collect();
            let mut rest = whole.clone();
            let (first, mut more) = cut(&mut rest);
            let mut pieces = Pieces::new(&first);
            while more {
                let (piece, left) = cut(&mut rest);
                prop_assert!(!piece.is_empty() && piece.len() <= PART);
                pieces.add(&piece).unwrap();
                more = left;
            }
            prop_assert_eq!(pieces.whole(), whole);
        }
    }

    #[test]
    fn nobody_sends_without_end() {
        let mut pieces = Pieces::new(&vec![0; MAX_WHOLE - 1]);
        assert_eq!(pieces.add(&[0]), Ok(()));
        assert_eq!(pieces.add(&[0]), Err(TooLarge));
    }
}
