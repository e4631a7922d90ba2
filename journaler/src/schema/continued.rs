//! Whether a journal of one schema can be continued by a program with another.
//!
//! A schema has two parts: what the application laid out, and the kinds of whoever keeps its journal, the
//! engine's own. The application's part changes by its version alone. The other part changes with the engine,
//! which the application does not know, at any time.
//!
//! | the program's schema, beside the newest segment's | |
//! |---|---|
//! | another name, or an older version | refused |
//! | a newer version | goes on in a new segment |
//! | the same version, another layout of the application's part | refused: the version was not raised |
//! | a kind of the engine's own that the segment does not list, or not so | goes on in a new segment (`SC3`) |
//! | equal, or fewer kinds of the engine's own | goes on in the same segment |
//!
//! Kinds that only the segment lists are no reason to refuse: there may be no event of them. Each event says
//! its kind and that kind's version; whoever does not know them refuses the event.

use std::ops::RangeInclusive;

use super::{Kind, Schema};

/// How a journal goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum GoesOn {
    /// In the segment that is there.
    Here,
    /// In a new segment.
    Anew,
    /// Not: it is another application's, or another layout under the same version.
    Not,
}

impl Schema {
    /// How a journal whose newest segment has the schema `found` goes on with this one.
    pub(crate) fn goes_on(&self, found: &Schema, own: &[RangeInclusive<u32>]) -> GoesOn {
        if self.name != found.name || self.version < found.version {
            return GoesOn::Not;
        }
        let is_newer = self.version > found.version;
        if !is_newer && !self.has_equal_layout(found, own) {
            return GoesOn::Not;
        }
        let is_listed = |kind| found.kinds.contains(kind);
        if is_newer || !self.kinds.iter().all(is_listed) {
            return GoesOn::Anew;
        }
        GoesOn::Here
    }

    /// Whether the application's part is laid out the same.
    fn has_equal_layout(&self, other: &Schema, own: &[RangeInclusive<u32>]) -> bool {
        let shape = |one: &Schema| (one.event_size, one.kind_offset, one.kind_size);
        shape(self) == shape(other)
            && self.header == other.header
            && self.kinds_beside(own).eq(other.kinds_beside(own))
    }

    fn kinds_beside<'s>(
        &'s self,
        own: &'s [RangeInclusive<u32>],
    ) -> impl Iterator<Item = &'s Kind> {
        let is_own = |kind: &Kind| own.iter().any(|numbers| numbers.contains(&kind.number));
        self.kinds.iter().filter(move |kind| !is_own(kind))
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;
    use crate::schema::{Field, FieldType};

    const OWN: &[RangeInclusive<u32>] = &[0..=0, 0xff00..=0xffff];

    fn field(name: &'static str, offset: u32, kind: FieldType) -> Field {
        Field {
            name: Cow::Borrowed(name),
            kind,
            scale: 0,
            element_size: 4,
            offset,
            count: 1,
            values: Cow::Borrowed(&[]),
        }
    }

    fn kind(number: u32, name: &'static str, layout: FieldType) -> Kind {
        Kind {
            number,
            name: Cow::Borrowed(name),
            fields: Cow::Owned(vec![field("value", 4, layout)]),
        }
    }

    fn schema(name: &'static str, version: u32, kinds: &[Kind]) -> Schema {
        Schema {
            name: Cow::Borrowed(name),
            version,
            event_size: 8,
            kind_offset: 0,
            kind_size: 4,
            header: Cow::Owned(vec![field("kind", 0, FieldType::Unsigned)]),
            kinds: Cow::Owned(kinds.to_vec()),
        }
    }

    #[test]
    fn sc3_the_table() {
        let (unsigned, signed) = (FieldType::Unsigned, FieldType::Signed);
        let (order, tick) = (kind(1, "order", unsigned), kind(0xff05, "tick", unsigned));
        let word = kind(0xff09, "word", unsigned);
        let old = schema("bank", 1, &[order.clone(), tick.clone()]);
        let new = schema("bank", 1, &[order.clone(), tick.clone(), word.clone()]);
        let goes_on = |ours: &Schema, found: &Schema| ours.goes_on(found, OWN);

        assert_eq!(goes_on(&old, &old), GoesOn::Here, "equal");
        assert_eq!(
            goes_on(&new, &old),
            GoesOn::Anew,
            "one more of the engine's"
        );
        assert_eq!(
            goes_on(&old, &new),
            GoesOn::Here,
            "one fewer of the engine's"
        );
        let both = schema("bank", 1, &[tick.clone(), word, order.clone()]);
        assert_eq!(goes_on(&new, &both), GoesOn::Here, "in another order");
        assert_eq!(new.goes_on(&old, &[]), GoesOn::Not, "nobody's own kinds");

        let more = [order.clone(), kind(2, "cancel", unsigned), tick.clone()];
        assert_eq!(goes_on(&schema("bank", 1, &more), &old), GoesOn::Not);
        assert_eq!(goes_on(&old, &schema("bank", 1, &more)), GoesOn::Not);
        assert_eq!(goes_on(&schema("bank", 2, &more), &old), GoesOn::Anew);
        assert_eq!(goes_on(&old, &schema("bank", 2, &more)), GoesOn::Not);
        let changed = [kind(1, "order", signed), tick];
        assert_eq!(goes_on(&schema("bank", 1, &changed), &old), GoesOn::Not);
        let other = schema("shop", 1, &old.kinds);
        assert_eq!(goes_on(&other, &old), GoesOn::Not, "another application");

        let retold = [order, kind(0xff05, "tick", signed)];
        let retold = schema("bank", 1, &retold);
        assert_eq!(goes_on(&retold, &old), GoesOn::Anew, "its events say which");
    }
}
