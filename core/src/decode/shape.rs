//! How one JSON value is read without ever failing: what it says, and what is wrong with it.
//!
//! Straight from the stream into the types of k8s-openapi; what no table names is skipped. Which
//! fields there are is `kinds`'.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// The first thing that is wrong with a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldFault {
    path: String,
    what: String,
}

impl FieldFault {
    /// A value that is not what it should be.
    fn new(wanted: &str, found: &str) -> Self {
        Self { path: String::new(), what: format!("expected {wanted}, found {found}") }
    }

    /// The same, seen from one level further out.
    pub(super) fn below(mut self, step: &str) -> Self {
        let dot = if self.path.is_empty() || self.path.starts_with('[') { "" } else { "." };
        self.path = format!("{step}{dot}{}", self.path);
        self
    }
}

impl fmt::Display for FieldFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() {
            return f.write_str(&self.what);
        }
        write!(f, "{}: {}", self.path, self.what)
    }
}

/// What was found at a place: nothing or null, a value, something wrong, or a value of which a part
/// is wrong.
#[derive(Clone, Debug)]
pub struct Field<T> {
    /// The value, as far as it can be read.
    pub value: Option<T>,
    /// What is wrong with it.
    pub wrong: Option<FieldFault>,
}

impl<T> Field<T> {
    fn good(value: T) -> Self {
        Self { value: Some(value), wrong: None }
    }

    fn bad(wrong: FieldFault) -> Self {
        Self { value: None, wrong: Some(wrong) }
    }

    fn checked(value: Option<T>, wanted: &str, found: &str) -> Self {
        match value {
            Some(value) => Self::good(value),
            None => Self::bad(FieldFault::new(wanted, found)),
        }
    }
}

/// What can be read from a JSON value. Each way of writing a value that a type does not expect is
/// wrong; none ends the reading.
pub trait Shape: Sized {
    /// What is expected, for messages.
    const WANTED: &'static str;

    /// From a string.
    fn text(_: &str) -> Option<Self> {
        None
    }

    /// From a whole number.
    fn number(_: i64) -> Option<Self> {
        None
    }

    /// From `true` or `false`.
    fn truth(_: bool) -> Option<Self> {
        None
    }

    /// From a list.
    ///
    /// # Errors
    /// Only what is no JSON.
    fn list<'de, A: SeqAccess<'de>>(mut list: A) -> Result<Field<Self>, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Field::bad(FieldFault::new(Self::WANTED, "a list")))
    }

    /// From an object.
    ///
    /// # Errors
    /// Only what is no JSON.
    fn object<'de, A: MapAccess<'de>>(mut map: A) -> Result<Field<Self>, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Field::bad(FieldFault::new(Self::WANTED, "an object")))
    }
}

impl<'de, T: Shape> Deserialize<'de> for Field<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reading(PhantomData))
    }
}

struct Reading<T>(PhantomData<T>);

impl<'de, T: Shape> Visitor<'de> for Reading<T> {
    type Value = Field<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(T::WANTED)
    }

    fn visit_unit<E>(self) -> Result<Field<T>, E> {
        Ok(Field { value: None, wrong: None })
    }

    fn visit_none<E: serde::de::Error>(self) -> Result<Field<T>, E> {
        self.visit_unit()
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Field<T>, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_str<E>(self, text: &str) -> Result<Field<T>, E> {
        Ok(Field::checked(T::text(text), T::WANTED, "a text"))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Field<T>, E> {
        Ok(Field::checked(T::number(number), T::WANTED, "a number"))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Field<T>, E> {
        let number = i64::try_from(number).ok().and_then(T::number);
        Ok(Field::checked(number, T::WANTED, "a number"))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Field<T>, E> {
        Ok(Field::bad(FieldFault::new(T::WANTED, "a number")))
    }

    fn visit_bool<E>(self, truth: bool) -> Result<Field<T>, E> {
        Ok(Field::checked(T::truth(truth), T::WANTED, "true or false"))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Field<T>, A::Error> {
        T::list(list)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Field<T>, A::Error> {
        T::object(map)
    }
}

/// A key, borrowed where the input allows it.
#[derive(Deserialize)]
pub(super) struct Key<'a>(#[serde(borrow)] pub(super) Cow<'a, str>);

impl Shape for String {
    const WANTED: &'static str = "a text";

    fn text(text: &str) -> Option<Self> {
        Some(text.to_owned())
    }
}

impl Shape for bool {
    const WANTED: &'static str = "true or false";

    fn truth(truth: bool) -> Option<Self> {
        Some(truth)
    }
}

impl Shape for i32 {
    const WANTED: &'static str = "a whole number of 32 bits";

    fn number(number: i64) -> Option<Self> {
        number.try_into().ok()
    }
}

impl Shape for i64 {
    const WANTED: &'static str = "a whole number";

    fn number(number: i64) -> Option<Self> {
        Some(number)
    }
}

impl Shape for IntOrString {
    const WANTED: &'static str = "a port number or name";

    fn text(text: &str) -> Option<Self> {
        Some(Self::String(text.to_owned()))
    }

    fn number(number: i64) -> Option<Self> {
        number.try_into().ok().map(Self::Int)
    }
}

impl Shape for Time {
    const WANTED: &'static str = "a time before the end of the year 9999";

    fn text(text: &str) -> Option<Self> {
        text.parse::<Timestamp>().ok().map(Self)
    }
}

/// Labels, annotations, selectors. A null among them is an empty text, as Go reads it.
impl Shape for BTreeMap<String, String> {
    const WANTED: &'static str = "an object";

    fn object<'de, A: MapAccess<'de>>(mut map: A) -> Result<Field<Self>, A::Error> {
        let mut read = Field::good(Self::new());
        while let Some((key, field)) = map.next_entry::<String, Field<String>>()? {
            if let Some(wrong) = field.wrong {
                read.wrong.get_or_insert(wrong.below(&format!("[{key}]")));
                continue;
            }
            read.value.get_or_insert_default().insert(key, field.value.unwrap_or_default());
        }
        Ok(read)
    }
}

/// A list of which every element is needed.
impl<T: Shape> Shape for Vec<T> {
    const WANTED: &'static str = "a list";

    fn list<'de, A: SeqAccess<'de>>(list: A) -> Result<Field<Self>, A::Error> {
        let each = Each::<T>::list(list)?.value.unwrap_or_default().0;
        let mut read = Field::good(Self::with_capacity(each.len()));
        for (place, element) in each.into_iter().enumerate() {
            let null = element.value.is_none().then(|| FieldFault::new(T::WANTED, "null"));
            if let Some(wrong) = element.wrong.or(null) {
                read.wrong.get_or_insert(wrong.below(&format!("[{place}]")));
            }
            read.value.get_or_insert_default().extend(element.value);
        }
        Ok(read)
    }
}

/// A list whose elements are judged one by one.
pub struct Each<T>(pub(super) Vec<Field<T>>);

impl<T> Default for Each<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: Shape> Shape for Each<T> {
    const WANTED: &'static str = "a list";

    fn list<'de, A: SeqAccess<'de>>(mut list: A) -> Result<Field<Self>, A::Error> {
        let mut each = Vec::new();
        while let Some(element) = list.next_element()? {
            each.push(element);
        }
        Ok(Field::good(Self(each)))
    }
}

/// The table of the fields of an object that are read, each with what its failure means:
/// `needed` (Option) and `plain` (no Option) make the object unreadable, `extra` is left out, `time`
/// becomes a time that never comes, and a function judges for itself.
macro_rules! fields {
    ($type:ty { $($mode:tt $field:ident = $key:literal),* $(,)? }) => {
        impl $crate::decode::shape::Shape for $type {
            const WANTED: &'static str = "an object";

            fn object<'de, A: serde::de::MapAccess<'de>>(
                mut map: A,
            ) -> Result<$crate::decode::shape::Field<Self>, A::Error> {
                let mut out = <$type>::default();
                let mut first = None;
                while let Some($crate::decode::shape::Key(key)) = map.next_key()? {
                    let wrong = match &*key {
                        $($key => fields!(@$mode map.next_value()?, out.$field),)*
                        _ => {
                            map.next_value::<serde::de::IgnoredAny>()?;
                            None
                        }
                    };
                    if let Some(wrong) = wrong {
                        let wrong: $crate::decode::shape::FieldFault = wrong;
                        first.get_or_insert(wrong.below(&key));
                    }
                }
                Ok($crate::decode::shape::Field { value: Some(out), wrong: first })
            }
        }
    };
    (@needed $found:expr, $to:expr) => {{
        let found: $crate::decode::shape::Field<_> = $found;
        $to = found.value;
        found.wrong
    }};
    (@plain $found:expr, $to:expr) => {{
        let found: $crate::decode::shape::Field<_> = $found;
        $to = found.value.unwrap_or_default();
        found.wrong
    }};
    (@extra $found:expr, $to:expr) => {{
        let found: $crate::decode::shape::Field<_> = $found;
        $to = found.value.filter(|_| found.wrong.is_none());
        None
    }};
    (@time $found:expr, $to:expr) => {{
        let found: $crate::decode::shape::Field<_> = $found;
        $to = found.value.or(found.wrong.map(|_| NEVER));
        None
    }};
    (@($judge:path) $found:expr, $to:expr) => {{
        let found: $crate::decode::shape::Field<_> = $found;
        let (value, wrong) = $judge(found);
        $to = value;
        wrong
    }};
}
pub(super) use fields;
