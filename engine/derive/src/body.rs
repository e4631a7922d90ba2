//! `#[derive(Body)]`: one kind of event or output, as it lies in ring, journal and wire.

use proc_macro2::{Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{Data, DeriveInput, Error, Field, Fields, Ident, LitInt, Result, Type};

use crate::{Given, in_range};

/// The last kind that an application may have (`E3`).
const KIND_MAX: u64 = 0xfeff;

/// Ways to read a field other than by its type.
const WAYS: [&str; 5] = ["time", "chars", "bytes", "boolean", "padding"];

pub(crate) fn derive(input: &DeriveInput) -> Result<TokenStream> {
    let given = Given::of(input, "body", &["kind", "version", "name", "slot"])?;
    let (kind, version) = numbers(input, &given)?;
    must_be_repr_c(input)?;
    if !input.generics.params.is_empty() {
        let text = "a body has one layout for ever: no generics";
        return Err(Error::new_spanned(&input.generics, text));
    }
    let fields = &fields(input)?;
    for field in fields {
        must_be_plain(&field.ty)?;
    }
    let name = &input.ident;
    let shown = match &given.name {
        Some(shown) => shown.value(),
        None => name.to_string(),
    };
    let slot = match &given.slot {
        Some(slot) => quote!(#slot),
        None => quote!(::lockstep_engine::Event64),
    };
    let schema = fields.iter().map(|field| in_schema(name, field));
    let schema = schema.collect::<Result<Vec<_>>>()?;
    let (checks, plain) = (checks(name, fields, &slot), plain_impls(name, fields));
    Ok(quote! {
        #checks
        #plain

        impl ::lockstep_engine::event::Body for #name {
            const KIND: u16 = #kind;
            const VERSION: u16 = #version;
            const NAME: &'static str = #shown;

            fn fields() -> ::std::vec::Vec<::lockstep_engine::schema::Field> {
                ::std::vec![#(#schema),*]
            }
        }

        impl ::lockstep_engine::event::Kinds for #name {
            type Slot = #slot;
            type View<'a> = &'a #name;
            const VERSIONS: &'static [(u16, u16)] = &[(#kind, #version)];

            #[inline(always)]
            fn view(slot: &Self::Slot) -> ::core::option::Option<&#name> {
                let header = ::lockstep_engine::event::Slot::header(slot);
                (header.kind == #kind).then(|| ::lockstep_engine::event::Slot::body_as(slot))
            }

            fn schema() -> ::lockstep_engine::schema::Schema {
                ::lockstep_engine::system::schema_of::<Self::Slot>(
                    ::core::concat!(::core::module_path!(), "::", #shown),
                    #version,
                    ::std::vec![::lockstep_engine::event::schema_kind::<Self::Slot, #name>()],
                )
            }
        }
    })
}

fn numbers<'g>(input: &DeriveInput, given: &'g Given) -> Result<(&'g LitInt, &'g LitInt)> {
    let missing = |what: &str| {
        let text = format!("{what} is missing: #[body(kind = 1, version = 1)]");
        Error::new_spanned(&input.ident, text)
    };
    let kind = given
        .kind
        .as_ref()
        .ok_or_else(|| missing("the kind's number"))?;
    in_range(
        kind,
        KIND_MAX,
        "E3: an application's kinds are from 1 to 0xfeff",
    )?;
    let version = given
        .version
        .as_ref()
        .ok_or_else(|| missing("the version"))?;
    in_range(version, 0xffff, "a version is from 1 to 65535")?;
    Ok((kind, version))
}

fn must_be_repr_c(input: &DeriveInput) -> Result<()> {
    let mut is_c = false;
    for own in input.attrs.iter().filter(|own| own.path().is_ident("repr")) {
        own.parse_nested_meta(|meta| {
            is_c |= meta.path.is_ident("C");
            if meta.path.is_ident("packed") {
                return Err(meta.error("E1: a body is aligned; name its gaps, `spare: [u8; N]`"));
            }
            if meta.input.peek(syn::token::Paren) {
                let _alignment;
                syn::parenthesized!(_alignment in meta.input);
                _alignment.parse::<TokenStream>()?;
            }
            Ok(())
        })?;
    }
    if is_c {
        return Ok(());
    }
    let text = "add #[repr(C)]: the layout is the same in ring, journal and wire, for ever";
    Err(Error::new_spanned(&input.ident, text))
}

fn fields(input: &DeriveInput) -> Result<Vec<&Field>> {
    if let Data::Struct(data) = &input.data
        && let Fields::Named(fields) = &data.fields
        && !fields.named.is_empty()
    {
        return Ok(fields.named.iter().collect());
    }
    let text = "a body is a struct with named fields: the journal's schema shows their names";
    Err(Error::new_spanned(&input.ident, text))
}

/// What is no fixed layout is refused with what to take instead; the compiler judges the rest.
fn must_be_plain(of: &Type) -> Result<()> {
    let element = match of {
        Type::Array(array) => return must_be_plain(&array.elem),
        Type::Group(group) => return must_be_plain(&group.elem),
        Type::Path(path) => path.path.segments.last().map(|last| last.ident.to_string()),
        Type::Reference(_) | Type::Ptr(_) => Some("&".to_owned()),
        _ => None,
    };
    let instead = match element.as_deref() {
        Some("bool") => {
            "bool: bytes that come from a disk may be neither 0 nor 1; take u8, and #[body(boolean)]"
        }
        Some("usize" | "isize") => "its size is the machine's: take u64 or i64",
        Some("f32" | "f64") => {
            "a float adds up to another sum in another order: take an integer, and #[body(decimal = 2)]"
        }
        Some("char") => "not every u32 is a char: take u32, or [u8; N] and #[body(chars)]",
        Some("String" | "str" | "Vec" | "Box" | "Option" | "Rc" | "Arc" | "&") => {
            "a body lies in the slot as it is, and points nowhere: take integers and arrays of them"
        }
        _ => return Ok(()),
    };
    Err(Error::new_spanned(of, instead))
}

/// One field for the journal's schema, read as its attribute says.
fn in_schema(name: &Ident, field: &Field) -> Result<TokenStream> {
    let (own, of) = (&field.ident, &field.ty);
    let mut made = quote_spanned! {of.span()=>
        ::lockstep_engine::schema::shape_of::<#name, #of>(|body| &body.#own)
            .field(::core::stringify!(#own), ::core::mem::offset_of!(#name, #own))
    };
    for attribute in field.attrs.iter().filter(|own| own.path().is_ident("body")) {
        attribute.parse_nested_meta(|meta| {
            let way = meta
                .path
                .get_ident()
                .map(ToString::to_string)
                .unwrap_or_default();
            if way == "decimal" {
                let digits: LitInt = meta.value()?.parse()?;
                made = quote!(::lockstep_engine::schema::rescaled(#made, #digits));
                return Ok(());
            }
            if !WAYS.contains(&way.as_str()) {
                let ways = WAYS.join(", ");
                return Err(meta.error(format!("expected one of: {ways}, decimal = 2")));
            }
            made = quote!(::lockstep_engine::schema::retyped(#made, #way));
            Ok(())
        })?;
    }
    Ok(made)
}

/// What the compiler is to refuse, each with its own sentence.
fn checks(name: &Ident, fields: &[&Field], slot: &TokenStream) -> TokenStream {
    let types: Vec<&Type> = fields.iter().map(|field| &field.ty).collect();
    let are_plain = types.iter().map(|of| {
        quote_spanned! {of.span()=>
            const _: fn() = || {
                fn is_plain_old_data<T: ::lockstep_engine::bytemuck::Pod>() {}
                is_plain_old_data::<#of>();
            };
        }
    });
    let span = Span::call_site();
    quote_spanned! {span=>
        #(#are_plain)*
        const _: () = ::core::assert!(
            ::core::mem::size_of::<#name>() == 0 #(+ ::core::mem::size_of::<#types>())*,
            "E2: the body has gaps between its fields: order them by size, or name each gap, `spare: [u8; N]`"
        );
        const _: () = ::core::assert!(
            ::core::mem::size_of::<#name>() + ::lockstep_engine::event::HEADER_BYTES
                <= ::core::mem::size_of::<#slot>(),
            "E2: the body does not fit into its slot: take #[body(slot = Event128)], or a smaller body"
        );
        const _: () = ::core::assert!(
            ::core::mem::align_of::<#name>() <= 8,
            "E1: a slot is aligned to 8"
        );
    }
}

/// The traits of plain old data, whose proof is in [`checks`].
fn plain_impls(name: &Ident, fields: &[&Field]) -> TokenStream {
    let own: Vec<_> = fields.iter().map(|field| &field.ident).collect();
    quote! {
        // SAFETY: `repr(C)`, of fields that are plain old data, with no gap: asserted beside.
        unsafe impl ::lockstep_engine::bytemuck::Zeroable for #name {}
        // SAFETY: as above.
        unsafe impl ::lockstep_engine::bytemuck::Pod for #name {}

        #[automatically_derived]
        impl ::core::clone::Clone for #name {
            #[inline(always)]
            fn clone(&self) -> Self {
                *self
            }
        }

        #[automatically_derived]
        impl ::core::marker::Copy for #name {}

        #[automatically_derived]
        impl ::core::default::Default for #name {
            fn default() -> Self {
                ::lockstep_engine::bytemuck::Zeroable::zeroed()
            }
        }

        #[automatically_derived]
        impl ::core::fmt::Debug for #name {
            fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
                f.debug_struct(::core::stringify!(#name))
                    #(.field(::core::stringify!(#own), &self.#own))*
                    .finish()
            }
        }

        #[automatically_derived]
        impl ::core::cmp::PartialEq for #name {
            #[inline]
            fn eq(&self, other: &Self) -> bool {
                ::lockstep_engine::bytemuck::bytes_of(self) == ::lockstep_engine::bytemuck::bytes_of(other)
            }
        }

        #[automatically_derived]
        impl ::core::cmp::Eq for #name {}

        impl ::lockstep_engine::state::State for #name {
            fn save(&self, out: &mut ::lockstep_engine::state::StateWriter<'_>) {
                out.bytes(::lockstep_engine::bytemuck::bytes_of(self));
            }

            fn load(
                from: &mut ::lockstep_engine::state::StateReader<'_>,
            ) -> ::core::result::Result<Self, ::lockstep_engine::state::LoadError> {
                let bytes = from.bytes(::core::mem::size_of::<Self>(), ::core::stringify!(#name))?;
                ::core::result::Result::Ok(::lockstep_engine::bytemuck::pod_read_unaligned(bytes))
            }
        }
    }
}
