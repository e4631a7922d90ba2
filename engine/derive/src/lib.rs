//! Derives for the events of `lockstep-engine`, which re-exports them and documents them by examples
//! that compile: `Body` for one kind of fixed layout, `Kinds` for an enum of kinds over one slot.
//!
//! ```text
//!   struct ─► body ─┬─ fields are integers, no gap between them, fits its slot   when compiled
//!                   ├─ Pod, Zeroable, Clone, Copy, Debug, PartialEq, Eq, Default
//!                   ├─ Body: kind, version, name, fields for the journal's schema
//!                   ├─ Kinds: a logic that takes this kind alone
//!                   └─ State: it may lie in a snapshot
//!   enum   ─► kinds ── Kinds: a view of a slot, by its kind; no kind twice       when compiled
//! ```
//!
//! What is wrong is said at the field, the variant or the attribute that is wrong.

mod body;
mod kinds;

use proc_macro::TokenStream;
use syn::{DeriveInput, Expr, ExprLit, Lit, LitInt, LitStr, Path, parse_macro_input};

/// See `lockstep_engine::event`.
#[proc_macro_derive(Body, attributes(body))]
pub fn body(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    let made = body::derive(&input);
    made.unwrap_or_else(syn::Error::into_compile_error).into()
}

/// See `lockstep_engine::event`.
#[proc_macro_derive(Kinds, attributes(kinds))]
pub fn kinds(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    let made = kinds::derive(&input);
    made.unwrap_or_else(syn::Error::into_compile_error).into()
}

/// What stands in `#[body(…)]` or `#[kinds(…)]`.
#[derive(Default)]
struct Given {
    kind: Option<LitInt>,
    version: Option<LitInt>,
    schema: Option<LitStr>,
    name: Option<LitStr>,
    slot: Option<Path>,
}

impl Given {
    /// Reads the attribute of this name; only these keys may stand in it.
    fn of(input: &DeriveInput, attribute: &str, keys: &[&str]) -> syn::Result<Self> {
        let mut given = Self::default();
        for own in input
            .attrs
            .iter()
            .filter(|own| own.path().is_ident(attribute))
        {
            own.parse_nested_meta(|meta| {
                let key = meta
                    .path
                    .get_ident()
                    .map(ToString::to_string)
                    .unwrap_or_default();
                if !keys.contains(&key.as_str()) {
                    return Err(meta.error(format!("expected one of: {}", keys.join(", "))));
                }
                let value = meta.value()?;
                match key.as_str() {
                    "kind" => given.kind = Some(number(&value.parse()?)?),
                    "version" => given.version = Some(number(&value.parse()?)?),
                    "schema" => given.schema = Some(value.parse()?),
                    "name" => given.name = Some(value.parse()?),
                    _ => given.slot = Some(value.parse()?),
                }
                Ok(())
            })?;
        }
        Ok(given)
    }
}

/// The number of an expression that is one, bare or handed on by a `macro_rules!`.
fn number(value: &Expr) -> syn::Result<LitInt> {
    match value {
        Expr::Lit(ExprLit {
            lit: Lit::Int(number),
            ..
        }) => Ok(number.clone()),
        Expr::Group(group) => number(&group.expr),
        other => Err(syn::Error::new_spanned(other, "expected a number")),
    }
}

/// A number of so many bits, at least 1.
fn in_range(number: &LitInt, most: u64, what: &str) -> syn::Result<()> {
    match number.base10_parse::<u64>() {
        Ok(found) if (1..=most).contains(&found) => Ok(()),
        _ => Err(syn::Error::new_spanned(number, what)),
    }
}
