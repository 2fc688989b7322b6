//! Text of a name that lies where it is kept: nearly all registered names are short, and one that lies elsewhere costs
//! a fetch each time that it is compared.

#[derive(Clone, PartialEq, Eq)]
enum Form<const SHORT: usize> {
    Short(u8, [u8; SHORT]),
    Long(Box<str>),
}

/// A text that is kept, of which so many bytes lie within.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Text<const SHORT: usize>(Form<SHORT>);

impl<const SHORT: usize> Text<SHORT> {
    /// A text that lies within; `None` for a longer one.
    pub(crate) fn within(text: &str) -> Option<Self> {
        (text.len() <= SHORT).then(|| text.into())
    }

    /// Its bytes.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            Form::Short(length, bytes) => bytes.get(..usize::from(*length)).unwrap_or(bytes),
            Form::Long(text) => text.as_bytes(),
        }
    }

    /// The text.
    pub(crate) fn as_str(&self) -> &str {
        match &self.0 {
            // It was made from such.
            Form::Short(..) => std::str::from_utf8(self.as_bytes()).unwrap_or_default(),
            Form::Long(text) => text,
        }
    }

    /// Whether it is this one.
    #[inline]
    pub(crate) fn is(&self, text: &str) -> bool {
        self.as_bytes() == text.as_bytes()
    }
}

impl<const SHORT: usize> From<&str> for Text<SHORT> {
    fn from(text: &str) -> Self {
        let mut bytes = [0; SHORT];
        match (bytes.get_mut(..text.len()), u8::try_from(text.len())) {
            (Some(place), Ok(length)) => {
                place.copy_from_slice(text.as_bytes());
                Self(Form::Short(length, bytes))
            }
            _ => Self(Form::Long(text.into())),
        }
    }
}

impl<const SHORT: usize> Default for Text<SHORT> {
    fn default() -> Self {
        "".into()
    }
}

impl<const SHORT: usize> std::fmt::Debug for Text<SHORT> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Debug::fmt(self.as_str(), f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_or_long_it_is_the_text_that_it_was_made_from() {
        for length in [0, 1, 21, 22, 23, 253] {
            let text = "é".repeat(length / 2) + &"a".repeat(length % 2);
            assert_eq!(text.len(), length);
            let kept = Text::<22>::from(text.as_str());
            assert!(kept.as_str() == text && kept.is(&text) && !kept.is("other"), "{length}");
        }
        assert_eq!(size_of::<Option<Text<22>>>(), 24);
    }
}
