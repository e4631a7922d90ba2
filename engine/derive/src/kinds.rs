//! `#[derive(Kinds)]`: an enum of bodies over one slot, which is also the view of a slot.

use proc_macro2::{Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{Data, DeriveInput, Error, Fields, GenericParam, Ident, Result, Type, Variant};

use crate::{Given, in_range};

pub(crate) fn derive(input: &DeriveInput) -> Result<TokenStream> {
    let given = Given::of(input, "kinds", &["schema", "version", "slot"])?;
    let missing = |what: &str| {
        let text = format!("{what} is missing: #[kinds(schema = \"bank.requests\", version = 1)]");
        Error::new_spanned(&input.ident, text)
    };
    let schema = given.schema.ok_or_else(|| missing("the schema's name"))?;
    let version = given
        .version
        .ok_or_else(|| missing("the schema's version"))?;
    in_range(
        &version,
        u64::from(u32::MAX),
        "a version is from 1 to 4294967295: raise it with every change of a body",
    )?;
    must_have_one_lifetime(input)?;
    let variants = variants(input)?;
    let slot = match &given.slot {
        Some(slot) => quote!(#slot),
        None => quote!(::lockstep_engine::Event64),
    };
    let name = &input.ident;
    let own: Vec<&Ident> = variants.iter().map(|(variant, _)| &variant.ident).collect();
    let bodies: Vec<&Type> = variants.iter().map(|(_, body)| *body).collect();
    let kind = quote!(::lockstep_engine::event::Body);
    let views = variants.iter().map(|(variant, body)| {
        let own = &variant.ident;
        // Names as of the derive, errors at the body.
        let span = Span::call_site().located_at(body.span());
        quote_spanned! {span=>
            if header.kind == <#body as #kind>::KIND {
                return ::core::option::Option::Some(#name::#own(
                    ::lockstep_engine::event::Slot::body_as(slot),
                ));
            }
        }
    });
    Ok(quote! {
        const _: () = ::lockstep_engine::event::assert_distinct(
            &[#(<#bodies as #kind>::KIND),*],
        );

        #[automatically_derived]
        impl ::core::clone::Clone for #name<'_> {
            #[inline(always)]
            fn clone(&self) -> Self {
                *self
            }
        }

        #[automatically_derived]
        impl ::core::marker::Copy for #name<'_> {}

        #[automatically_derived]
        impl ::core::fmt::Debug for #name<'_> {
            fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
                match self {
                    #(#name::#own(body) => ::core::fmt::Debug::fmt(body, f),)*
                }
            }
        }

        #[automatically_derived]
        impl ::core::cmp::PartialEq for #name<'_> {
            fn eq(&self, other: &Self) -> bool {
                match (self, other) {
                    #((#name::#own(one), #name::#own(other)) => one == other,)*
                    #[allow(unreachable_patterns, reason = "of one kind there is no other")]
                    _ => false,
                }
            }
        }

        #[automatically_derived]
        impl ::core::cmp::Eq for #name<'_> {}

        impl ::lockstep_engine::event::Kinds for #name<'static> {
            type Slot = #slot;
            type View<'a> = #name<'a>;
            const VERSIONS: &'static [(u16, u16)] =
                &[#((<#bodies as #kind>::KIND, <#bodies as #kind>::VERSION)),*];

            #[inline(always)]
            fn view(slot: &Self::Slot) -> ::core::option::Option<#name<'_>> {
                let header = ::lockstep_engine::event::Slot::header(slot);
                #(#views)*
                ::core::option::Option::None
            }

            fn schema() -> ::lockstep_engine::schema::Schema {
                ::lockstep_engine::system::schema_of::<Self::Slot>(
                    #schema,
                    #version,
                    ::std::vec![#(
                        ::lockstep_engine::event::schema_kind::<Self::Slot, #bodies>()
                    ),*],
                )
            }
        }
    })
}

fn must_have_one_lifetime(input: &DeriveInput) -> Result<()> {
    let mut params = input.generics.params.iter();
    if let (Some(GenericParam::Lifetime(_)), None) = (params.next(), params.next()) {
        return Ok(());
    }
    let text =
        "kinds have one lifetime, that of the slot: enum Requests<'a> { Deposit(&'a Deposit) }";
    Err(Error::new_spanned(&input.ident, text))
}

/// The variants, each with its body.
fn variants(input: &DeriveInput) -> Result<Vec<(&Variant, &Type)>> {
    let Data::Enum(data) = &input.data else {
        return Err(Error::new_spanned(&input.ident, "kinds are an enum"));
    };
    if data.variants.is_empty() {
        return Err(Error::new_spanned(&input.ident, "kinds have at least one"));
    }
    data.variants
        .iter()
        .map(|own| Ok((own, body_of(own)?)))
        .collect()
}

fn body_of(variant: &Variant) -> Result<&Type> {
    let text = "a kind is a reference to its body in the slot: Deposit(&'a Deposit)";
    let wrong = || Error::new_spanned(variant, text);
    let Fields::Unnamed(fields) = &variant.fields else {
        return Err(wrong());
    };
    let mut fields = fields.unnamed.iter();
    match (fields.next().map(|field| &field.ty), fields.next()) {
        (Some(Type::Reference(reference)), None) if reference.mutability.is_none() => {
            Ok(&reference.elem)
        }
        _ => Err(wrong()),
    }
}
