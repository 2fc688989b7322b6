//! State as bytes and back: little-endian, floats by their bits, so that what is read is what was written.

use crate::flow::text::Text;
use ipnet::IpNet;
use sekisho_schema::Timestamp;
use std::net::IpAddr;

/// What can be kept over a restart.
pub(crate) trait Keep: Sized {
    /// Appends its bytes.
    fn keep(&self, out: &mut Vec<u8>);
    /// Reads it back and moves on; `None` when the bytes are not its.
    fn take(from: &mut &[u8]) -> Option<Self>;
}

macro_rules! numbers {
    ($($number:ty),*) => {$(
        impl Keep for $number {
            fn keep(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_le_bytes());
            }

            fn take(from: &mut &[u8]) -> Option<Self> {
                let (head, rest) = from.split_first_chunk()?;
                *from = rest;
                Some(Self::from_le_bytes(*head))
            }
        }
    )*};
}
numbers!(u8, u16, u32, u64, u128, i32, i64, f32, f64);

/// Keeps a struct field by field, in the order that is written.
macro_rules! keep_fields {
    ($type:ty { $($field:ident),* $(,)? }) => {
        impl $crate::learn::keep::Keep for $type {
            fn keep(&self, out: &mut Vec<u8>) {
                $($crate::learn::keep::Keep::keep(&self.$field, out);)*
            }

            fn take(from: &mut &[u8]) -> Option<Self> {
                $(let $field = $crate::learn::keep::Keep::take(from)?;)*
                Some(Self { $($field),* })
            }
        }
    };
}
pub(crate) use keep_fields;

impl Keep for bool {
    fn keep(&self, out: &mut Vec<u8>) {
        u8::from(*self).keep(out);
    }

    fn take(from: &mut &[u8]) -> Option<Self> {
        match u8::take(from)? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }
}

impl Keep for Timestamp {
    fn keep(&self, out: &mut Vec<u8>) {
        self.nanos().keep(out);
    }

    fn take(from: &mut &[u8]) -> Option<Self> {
        i64::take(from).map(Self::from_nanos)
    }
}

impl<T: Keep + Copy + Default, const N: usize> Keep for [T; N] {
    fn keep(&self, out: &mut Vec<u8>) {
        self.iter().for_each(|item| item.keep(out));
    }

    fn take(from: &mut &[u8]) -> Option<Self> {
        let mut all = [T::default(); N];
        for item in &mut all {
            *item = T::take(from)?;
        }
        Some(all)
    }
}

impl<T: Keep> Keep for Option<T> {
    fn keep(&self, out: &mut Vec<u8>) {
        self.is_some().keep(out);
        if let Some(item) = self {
            item.keep(out);
        }
    }

    fn take(from: &mut &[u8]) -> Option<Self> {
        if bool::take(from)? { T::take(from).map(Some) } else { Some(None) }
    }
}

impl<T: Keep> Keep for Vec<T> {
    fn keep(&self, out: &mut Vec<u8>) {
        (self.len() as u32).keep(out);
        self.iter().for_each(|item| item.keep(out));
    }

    fn take(from: &mut &[u8]) -> Option<Self> {
        let count = u32::take(from)? as usize;
        // Every item takes a byte at least, and room is made as items come: a forged count reserves nothing.
        if count > from.len() {
            return None;
        }
        let mut all = Self::new();
        for _ in 0..count {
            all.push(T::take(from)?);
        }
        Some(all)
    }
}

impl Keep for Box<str> {
    fn keep(&self, out: &mut Vec<u8>) {
        (self.len() as u32).keep(out);
        out.extend_from_slice(self.as_bytes());
    }

    fn take(from: &mut &[u8]) -> Option<Self> {
        let count = u32::take(from)? as usize;
        let (head, rest) = from.split_at_checked(count)?;
        *from = rest;
        std::str::from_utf8(head).ok().map(Self::from)
    }
}

impl<const SHORT: usize> Keep for Text<SHORT> {
    fn keep(&self, out: &mut Vec<u8>) {
        let text = self.as_str();
        (text.len() as u32).keep(out);
        out.extend_from_slice(text.as_bytes());
    }

    fn take(from: &mut &[u8]) -> Option<Self> {
        Some(Box::<str>::take(from)?.as_ref().into())
    }
}

impl Keep for IpAddr {
    fn keep(&self, out: &mut Vec<u8>) {
        match self {
            Self::V4(address) => {
                4_u8.keep(out);
                address.to_bits().keep(out);
            }
            Self::V6(address) => {
                6_u8.keep(out);
                address.to_bits().keep(out);
            }
        }
    }

    fn take(from: &mut &[u8]) -> Option<Self> {
        match u8::take(from)? {
            4 => u32::take(from).map(|bits| std::net::Ipv4Addr::from_bits(bits).into()),
            6 => u128::take(from).map(|bits| std::net::Ipv6Addr::from_bits(bits).into()),
            _ => None,
        }
    }
}

impl Keep for IpNet {
    fn keep(&self, out: &mut Vec<u8>) {
        self.addr().keep(out);
        self.prefix_len().keep(out);
    }

    fn take(from: &mut &[u8]) -> Option<Self> {
        let address = IpAddr::take(from)?;
        Self::new(address, u8::take(from)?).ok()
    }
}

impl<A: Keep, B: Keep> Keep for (A, B) {
    fn keep(&self, out: &mut Vec<u8>) {
        self.0.keep(out);
        self.1.keep(out);
    }

    fn take(from: &mut &[u8]) -> Option<Self> {
        Some((A::take(from)?, B::take(from)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq)]
    struct Some2 {
        a: Option<f32>,
        b: Vec<(u8, Box<str>)>,
        c: [u16; 3],
    }
    keep_fields!(Some2 { a, b, c });

    #[test]
    fn what_is_read_is_what_was_written_and_anything_shorter_is_refused() {
        let kept = Some2 { a: Some(-0.0), b: vec![(7, "name".into())], c: [1, 2, 3] };
        let mut bytes = Vec::new();
        kept.keep(&mut bytes);
        let mut from = bytes.as_slice();
        let read = Some2::take(&mut from).unwrap();
        assert!(from.is_empty() && read == kept && read.a.unwrap().is_sign_negative());
        for cut in 0..bytes.len() {
            assert!(Some2::take(&mut &bytes[..cut]).is_none(), "{cut}");
        }
    }

    #[test]
    fn a_forged_count_reserves_nothing() {
        assert!(Vec::<u64>::take(&mut [0xFF, 0xFF, 0xFF, 0xFF, 1].as_slice()).is_none());
    }
}
