//! Walks a JSON document without holding it: the objects of named arrays, one at a time.

use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor,
};
use std::fmt;
use std::marker::PhantomData;

/// Arrays within arrays and objects that are followed.
const DEPTH: u8 = 8;

/// Finds arrays by their names.
pub(super) struct Walk<'w, T, F> {
    /// Names of arrays whose objects are wanted.
    pub(super) wanted: &'w [&'w str],
    /// Names of objects and arrays within which to look.
    pub(super) within: &'w [&'w str],
    pub(super) each: F,
    kind: PhantomData<T>,
}

impl<'w, T: DeserializeOwned, F: FnMut(Result<T, String>)> Walk<'w, T, F> {
    pub(super) const fn new(wanted: &'w [&'w str], within: &'w [&'w str], each: F) -> Self {
        Self { wanted, within, each, kind: PhantomData }
    }

    /// Walks a document to its end.
    pub(super) fn run(&mut self, bytes: &[u8]) -> Result<(), String> {
        let mut deserializer = serde_json::Deserializer::from_slice(bytes);
        Step { walk: self, depth: DEPTH, take: false }
            .deserialize(&mut deserializer)
            .and_then(|()| deserializer.end())
            .map_err(|error| error.to_string())
    }
}

struct Step<'s, 'w, T, F> {
    walk: &'s mut Walk<'w, T, F>,
    depth: u8,
    /// The items of the array that comes are wanted.
    take: bool,
}

impl<'de, T: DeserializeOwned, F: FnMut(Result<T, String>)> DeserializeSeed<'de>
    for Step<'_, '_, T, F>
{
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, T: DeserializeOwned, F: FnMut(Result<T, String>)> Visitor<'de> for Step<'_, '_, T, F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object or an array")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<String>()? {
            let (wanted, within) = (
                self.walk.wanted.contains(&key.as_str()),
                self.walk.within.contains(&key.as_str()),
            );
            if self.depth > 0 && (wanted || within) {
                let depth = self.depth - 1;
                map.next_value_seed(Step { walk: self.walk, depth, take: wanted })?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        if self.take {
            while let Some(item) = seq.next_element_seed(Lenient(PhantomData::<T>))? {
                (self.walk.each)(item);
            }
        } else if self.depth > 0 {
            let depth = self.depth - 1;
            while seq
                .next_element_seed(Step { walk: &mut *self.walk, depth, take: false })?
                .is_some()
            {}
        } else {
            while seq.next_element::<IgnoredAny>()?.is_some() {}
        }
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

/// One item, which may be of another shape without making the document unreadable.
struct Lenient<T>(PhantomData<T>);

impl<'de, T: DeserializeOwned> DeserializeSeed<'de> for Lenient<T> {
    type Value = Result<T, String>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        let value = <serde_json::Value as serde::Deserialize>::deserialize(deserializer)?;
        Ok(T::deserialize(value).map_err(|error| error.to_string()))
    }
}
