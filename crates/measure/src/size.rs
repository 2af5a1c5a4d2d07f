//! Sizes in bytes as people write and read them: `16384`, `16KiB`, `1MiB`.
//!
//! The program's arguments come in through [`parse`], messages go out through [`display`]. The one invariant
//! that matters: nothing is rounded; [`parse`] of a [`display`] is the size again.

const UNITS: [(&str, u64); 4] = [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];

/// Not a size in bytes. Write a whole number, alone or followed by KiB, MiB, GiB or TiB.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotASize {
    /// What was given.
    pub given: String,
}

impl std::fmt::Display for NotASize {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} is no size: write bytes as 16384, 16KiB or 1MiB", self.given)
    }
}

impl std::error::Error for NotASize {}

/// The size that a person wrote, in bytes. `K`, `M`, `G`, `T` and their `KiB` forms are powers of 1024, in any
/// case of letters.
///
/// # Errors
/// [`NotASize`] if it is not a whole number with one of the units, or does not fit.
pub fn parse(text: &str) -> Result<usize, NotASize> {
    let not_a_size = || NotASize { given: text.to_string() };
    let trimmed = text.trim();
    let unit_at = trimmed.find(|c: char| !c.is_ascii_digit()).unwrap_or(trimmed.len());
    let (digits, unit) = trimmed.split_at(unit_at);
    let factor = match unit.trim_start().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        "t" | "tib" => 1 << 40,
        _ => return Err(not_a_size()),
    };
    let number: u64 = digits.parse().map_err(|_| not_a_size())?;
    let bytes = number.checked_mul(factor).ok_or_else(not_a_size)?;
    usize::try_from(bytes).map_err(|_| not_a_size())
}

/// A size for people, exact: in the largest unit that divides it, else in bytes.
pub fn display(bytes: u64) -> String {
    for (unit, factor) in UNITS {
        if bytes >= factor && bytes.is_multiple_of(factor) {
            return format!("{}{unit}", bytes / factor);
        }
    }
    bytes.to_string()
}

/// A size for people who want its magnitude: one decimal in the largest unit that it reaches.
pub fn about(bytes: u64) -> String {
    for (unit, factor) in UNITS {
        if bytes >= factor {
            return format!("{:.1} {unit}", bytes as f64 / factor as f64);
        }
    }
    format!("{bytes} bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        assert_eq!(parse("64"), Ok(64));
        assert_eq!(parse("16KiB"), Ok(16 << 10));
        assert_eq!(parse("16k"), Ok(16 << 10));
        assert_eq!(parse(" 1 MiB "), Ok(1 << 20));
        assert_eq!(parse("2gib"), Ok(2 << 30));
        for wrong in ["", "KiB", "-1", "1.5MiB", "12 apples", "99999999999999999999", "18446744073709551615k"]
        {
            assert_eq!(parse(wrong), Err(NotASize { given: wrong.to_string() }), "{wrong}");
        }
    }

    #[test]
    fn what_is_shown_can_be_read_again() {
        for bytes in [0, 1, 1000, 1024, 1 << 20, 3 << 20, (1 << 20) + 1, 1 << 40] {
            assert_eq!(parse(&display(bytes)), Ok(bytes as usize));
        }
        assert_eq!(display(64 << 20), "64MiB");
        assert_eq!(about(1536), "1.5 KiB");
        assert_eq!(about(12), "12 bytes");
    }
}
