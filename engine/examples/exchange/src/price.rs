//! Prices, quantities and money: integers only.
//!
//! A price counts the smallest step of its instrument's currency, a quantity its smallest
//! unit; money is price times quantity. Nothing here is a float, and what does not fit is
//! refused, never rounded in silence. Fees are rounded down, to the payer's favour.

/// A price, in the smallest step.
pub type Price = i64;
/// A quantity, in the smallest unit.
pub type Quantity = u64;
/// Money: price times quantity.
pub type Money = i64;

/// Greatest price that the exchange takes: with [`QUANTITY_MAX`] far from any overflow.
pub const PRICE_MAX: Price = 1 << 40;
/// Greatest quantity of one order. Sums of as many orders as a store holds fit in 64 bits.
pub const QUANTITY_MAX: Quantity = 1 << 40;
/// Greatest price times quantity of one order.
pub const NOTIONAL_MAX: Money = 1 << 60;
/// All money of all accounts together, so that no balance can overflow.
pub const MONEY_MAX: Money = 1 << 61;
/// Greatest position of an account.
pub const POSITION_MAX: i64 = 1 << 60;
/// Greatest fee: 10 %, so that a seller's proceeds always pay it.
pub const FEE_PPM_MAX: u32 = 100_000;

const MILLION: i64 = 1_000_000;

/// Price times quantity, where it is within [`NOTIONAL_MAX`].
#[must_use]
#[inline]
pub fn notional(price: Price, quantity: Quantity) -> Option<Money> {
    let product = price.checked_mul(i64::try_from(quantity).ok()?)?;
    (product <= NOTIONAL_MAX).then_some(product)
}

/// The fee on a trade of this size, rounded down.
///
/// ```
/// use lockstep_exchange::price::fee;
/// assert_eq!(fee(1_999_999, 10), 19);
/// assert_eq!(fee(1 << 60, 100_000), (1 << 60) / 10);
/// ```
#[must_use]
#[inline]
pub const fn fee(notional: Money, ppm: u32) -> Money {
    if ppm == 0 {
        return 0;
    }
    // Exactly notional * ppm / 1e6, in two parts so that nothing overflows.
    let ppm = ppm as i64;
    (notional / MILLION) * ppm + (notional % MILLION) * ppm / MILLION
}

/// The fee rounded up: what has to be reserved, so that the fees of any split of the
/// order into trades are covered.
#[must_use]
#[inline]
pub const fn fee_bound(notional: Money, ppm: u32) -> Money {
    if ppm == 0 {
        return 0;
    }
    let ppm = ppm as i64;
    (notional / MILLION) * ppm + ((notional % MILLION) * ppm + MILLION - 1) / MILLION
}

/// Why a decimal text is not a number of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecimalError {
    /// Something else than digits, one sign in front and one point.
    #[error("expected a decimal number, found other characters")]
    NotDecimal,
    /// More decimals than the scale has, and they are not zero.
    #[error("the number has more decimals than the scale holds")]
    TooManyDecimals,
    /// It exceeds 63 bits.
    #[error("the number does not fit in 63 bits")]
    TooLarge,
}

/// Reads a decimal text as an integer of `10^-decimals`, exactly.
///
/// # Errors
///
/// [`DecimalError`] says why; nothing is rounded.
///
/// ```
/// use lockstep_exchange::price::{parse_decimal, DecimalError};
/// assert_eq!(parse_decimal("236.47", 2), Ok(23_647));
/// assert_eq!(parse_decimal("-0.5", 2), Ok(-50));
/// assert_eq!(parse_decimal("236.400", 1), Ok(2_364));
/// assert_eq!(parse_decimal("236.47", 1), Err(DecimalError::TooManyDecimals));
/// ```
pub fn parse_decimal(text: &str, decimals: u32) -> Result<i64, DecimalError> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if whole.is_empty() && fraction.is_empty() {
        return Err(DecimalError::NotDecimal);
    }
    let mut value: i64 = 0;
    for byte in whole.bytes() {
        value = push_digit(value, byte)?;
    }
    let mut missing = decimals;
    for byte in fraction.bytes() {
        if missing == 0 {
            match byte {
                b'0' => continue,
                b'1'..=b'9' => return Err(DecimalError::TooManyDecimals),
                _ => return Err(DecimalError::NotDecimal),
            }
        }
        value = push_digit(value, byte)?;
        missing -= 1;
    }
    for _ in 0..missing {
        value = push_digit(value, b'0')?;
    }
    Ok(if negative { -value } else { value })
}

fn push_digit(value: i64, byte: u8) -> Result<i64, DecimalError> {
    if !byte.is_ascii_digit() {
        return Err(DecimalError::NotDecimal);
    }
    value
        .checked_mul(10)
        .and_then(|value| value.checked_add(i64::from(byte - b'0')))
        .ok_or(DecimalError::TooLarge)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fees_of_the_parts_never_exceed_the_bound_of_the_whole() {
        for ppm in [0, 1, 7, 300, 99_999, 100_000] {
            for whole in [0, 1, 999, 1_000_000, 1_000_001, 123_456_789] {
                for part in [0, 1, 500, 999_999, 100_000_000] {
                    let rest = whole - part.min(whole);
                    let released = fee_bound(whole, ppm) - fee_bound(rest, ppm);
                    assert!(fee(whole - rest, ppm) <= released, "{ppm} {whole} {part}");
                }
            }
        }
    }

    #[test]
    fn what_is_not_decimal_is_refused() {
        for text in [
            "", ".", "-", "1.2.3", "1e5", "12a", "0x1", " 1", "1 ", "--1",
        ] {
            assert_eq!(
                parse_decimal(text, 2),
                Err(DecimalError::NotDecimal),
                "{text:?}"
            );
        }
        assert_eq!(
            parse_decimal("99999999999999999999", 0),
            Err(DecimalError::TooLarge)
        );
    }

    #[test]
    fn a_product_beyond_the_bound_is_none() {
        assert_eq!(notional(PRICE_MAX, QUANTITY_MAX), None);
        assert_eq!(notional(1 << 30, 1 << 30), Some(NOTIONAL_MAX));
        assert_eq!(notional(5, 7), Some(35));
    }
}
