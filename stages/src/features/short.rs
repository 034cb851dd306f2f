//! Short forms of steps: `{ scale = "standard" }` for `{ scale = { method = "standard" } }`.

use schemars::JsonSchema;
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{DeserializeOwned, Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use std::fmt;
use std::marker::PhantomData;

/// A step's settings, which may be written as less than a table.
pub(super) trait Short: DeserializeOwned {
    /// What may be written, for the error message.
    const FORMS: &'static str = "a list of columns or a table";

    /// The settings that a word stands for.
    fn word<E: Error>(word: &str) -> Result<Self, E> {
        Err(E::custom(format_args!("expected {}, found {word:?}", Self::FORMS)))
    }

    /// The settings that a number stands for.
    fn number<E: Error>(number: f64) -> Result<Self, E> {
        Err(E::custom(format_args!("expected {}, found {number}", Self::FORMS)))
    }

    /// The settings that a list of columns stands for.
    fn columns<E: Error>(columns: Vec<String>) -> Result<Self, E> {
        Err(E::custom(format_args!("expected {}, found {columns:?}", Self::FORMS)))
    }

    /// Checks the settings against each other.
    fn check(&self) -> Result<(), String> {
        Ok(())
    }
}

/// Reads settings in any of their forms.
pub(super) fn read<'de, T: Short, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    struct Forms<T>(PhantomData<T>);

    impl<'de, T: Short> Visitor<'de> for Forms<T> {
        type Value = T;

        fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
            f.write_str(T::FORMS)
        }

        fn visit_str<E: Error>(self, word: &str) -> Result<T, E> {
            T::word(word)
        }

        fn visit_f64<E: Error>(self, number: f64) -> Result<T, E> {
            T::number(number)
        }

        fn visit_i64<E: Error>(self, number: i64) -> Result<T, E> {
            T::number(number as f64)
        }

        fn visit_u64<E: Error>(self, number: u64) -> Result<T, E> {
            T::number(number as f64)
        }

        fn visit_seq<A: SeqAccess<'de>>(self, columns: A) -> Result<T, A::Error> {
            T::columns(Vec::deserialize(SeqAccessDeserializer::new(columns))?)
        }

        fn visit_map<A: MapAccess<'de>>(self, table: A) -> Result<T, A::Error> {
            T::deserialize(MapAccessDeserializer::new(table))
        }
    }

    let settings: T = deserializer.deserialize_any(Forms(PhantomData))?;
    settings.check().map_err(D::Error::custom)?;
    Ok(settings)
}

/// The forms of settings, for the JSON Schema.
#[derive(JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
#[expect(dead_code, reason = "only its schema is used")]
pub(super) enum Forms<T> {
    /// A word: the method.
    Word(String),
    /// A number: the value.
    Number(f64),
    /// The columns.
    Columns(Vec<String>),
    /// Everything.
    Table(T),
}
