//! Takes numbers and pieces off the front of an input; what is missing is zero or empty.

pub(crate) struct Input<'a> {
    rest: &'a [u8],
}

impl<'a> Input<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(crate) fn take(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.rest.split_at(len.min(self.rest.len()));
        self.rest = rest;
        taken
    }

    pub(crate) fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }

    fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        for (to, from) in bytes.iter_mut().zip(self.take(N)) {
            *to = *from;
        }
        bytes
    }

    pub(crate) fn byte(&mut self) -> u8 {
        u8::from_le_bytes(self.array())
    }

    pub(crate) fn short(&mut self) -> u16 {
        u16::from_le_bytes(self.array())
    }

    pub(crate) fn word(&mut self) -> u32 {
        u32::from_le_bytes(self.array())
    }

    pub(crate) fn long(&mut self) -> i64 {
        i64::from_le_bytes(self.array())
    }

    /// Pieces, each behind its length of two bytes, up to the end.
    pub(crate) fn pieces(mut self) -> impl Iterator<Item = &'a [u8]> {
        std::iter::from_fn(move || {
            if self.is_empty() {
                return None;
            }
            let len = usize::from(self.short());
            Some(self.take(len))
        })
    }
}

/// Writes what [`Input::pieces`] reads; a piece is cut at 65,535 bytes.
pub(crate) fn write_pieces<'p>(out: &mut Vec<u8>, pieces: impl IntoIterator<Item = &'p [u8]>) {
    for piece in pieces {
        let piece = piece.get(..piece.len().min(0xFFFF)).unwrap_or_default();
        out.extend_from_slice(&(piece.len() as u16).to_le_bytes());
        out.extend_from_slice(piece);
    }
}
