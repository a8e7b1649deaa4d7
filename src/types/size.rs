//! Byte sizes as people write them in configuration.

use std::fmt;
use std::str::FromStr;

/// A number of bytes. Parses `4096`, `64K`, `64KiB`, `64M`, `20GiB`, `1T` (powers of 1024) and
/// `64MB` (powers of 1000).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(pub u64);

impl FromStr for ByteSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, unit) = text.split_at(digits);
        let number: u64 = number
            .parse()
            .map_err(|_| format!("`{text}` is not a size: write a whole number and a unit, as 512MiB or 20GiB"))?;
        let factor: u64 = match unit.trim().to_ascii_lowercase().as_str() {
            "" | "b" => 1,
            "k" | "kib" => 1 << 10,
            "m" | "mib" => 1 << 20,
            "g" | "gib" => 1 << 30,
            "t" | "tib" => 1 << 40,
            "kb" => 1_000,
            "mb" => 1_000_000,
            "gb" => 1_000_000_000,
            "tb" => 1_000_000_000_000,
            other => {
                return Err(format!("`{other}` is not a unit of size: use KiB, MiB, GiB, TiB (or KB, MB, GB, TB)"));
            }
        };
        number.checked_mul(factor).map(ByteSize).ok_or_else(|| format!("`{text}` is larger than 64 bits of bytes"))
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
        let mut unit = 0;
        let mut scaled = self.0;
        while unit + 1 < UNITS.len() && scaled >= 1024 && scaled.is_multiple_of(1024) {
            scaled /= 1024;
            unit += 1;
        }
        if unit == 0 && self.0 >= 1024 {
            let mut value = self.0 as f64;
            while unit + 1 < UNITS.len() && value >= 1024.0 {
                value /= 1024.0;
                unit += 1;
            }
            return write!(f, "{value:.1} {}", UNITS[unit]);
        }
        write!(f, "{scaled} {}", UNITS[unit])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_parse_and_print() {
        assert_eq!("20GiB".parse::<ByteSize>().unwrap(), ByteSize(20 << 30));
        assert_eq!("64M".parse::<ByteSize>().unwrap(), ByteSize(64 << 20));
        assert_eq!("64MB".parse::<ByteSize>().unwrap(), ByteSize(64_000_000));
        assert!("12 parsecs".parse::<ByteSize>().is_err());
        assert!("-1".parse::<ByteSize>().is_err());
        assert!("99999999T".parse::<ByteSize>().is_err());
        assert_eq!(ByteSize(20 << 30).to_string(), "20 GiB");
        assert_eq!(ByteSize(1_300_000_000).to_string(), "1.2 GiB");
    }
}
