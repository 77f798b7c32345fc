//! Reads the types of a handler's signature into the description of its route.

use super::access::Access;
use super::operation::Described;
use crate::api::asks::{Asks, Open, RoutePermission};
use crate::api::body::{JsonBody, TextBody};
use crate::api::parts::{Path, Query};
use crate::api::problem::Problem;
use axum::Json;
use axum::body::Body;
use axum::extract::RawQuery;
use axum::http::{HeaderMap, Request, StatusCode};
use axum::response::Response;
use schemars::JsonSchema;

/// A handler, by the types of its arguments.
pub(super) trait Handler<Arguments> {
    /// Adds what the handler's types say.
    fn describe(self, to: &mut Described<'_>);
}

/// The type of an argument.
pub(super) trait Argument {
    /// Adds what the client sends for it, if it sends anything.
    fn describe(_to: &mut Described<'_>) {}
}

/// The type of a first argument, which says who may use the route. No other argument does, so a
/// handler without a decision about callers does not compile here.
pub(super) trait Decides: Argument {}

/// The type of an answer.
pub(super) trait Answer {
    /// Adds the answer, unless only the handler's code knows it.
    fn describe(_to: &mut Described<'_>) {}
}

macro_rules! handlers {
    ($first:ident $($argument:ident)*) => {
        impl<F, Answered, A, $first, $($argument),*> Handler<($first, $($argument,)*)> for F
        where
            F: FnOnce($first, $($argument),*) -> Answered,
            Answered: Future<Output = A>,
            A: Answer,
            $first: Decides,
            $($argument: Argument,)*
        {
            fn describe(self, to: &mut Described<'_>) {
                $first::describe(to);
                $($argument::describe(to);)*
                A::describe(to);
            }
        }
    };
}

handlers!(A1);
handlers!(A1 A2);
handlers!(A1 A2 A3);
handlers!(A1 A2 A3 A4);

impl<R: RoutePermission> Decides for Asks<R> {}

impl<R: RoutePermission> Argument for Asks<R> {
    fn describe(to: &mut Described<'_>) {
        to.permit(R::ACCESS, R::LOCAL_ONLY.map(|(code, _)| code));
    }
}

impl Decides for Open {}

impl Argument for Open {
    fn describe(to: &mut Described<'_>) {
        to.permit(Access::All, None);
    }
}

impl<T: JsonSchema> Argument for Path<T> {
    fn describe(to: &mut Described<'_>) {
        to.places::<T>();
    }
}

/// The route without the part has no place for it.
impl<T: JsonSchema> Argument for Option<Path<T>> {
    fn describe(to: &mut Described<'_>) {
        to.places::<T>();
    }
}

impl<T: JsonSchema> Argument for Query<T> {
    fn describe(to: &mut Described<'_>) {
        to.query::<T>();
    }
}

impl<T: JsonSchema> Argument for JsonBody<T> {
    fn describe(to: &mut Described<'_>) {
        to.json_body::<T>();
    }
}

impl Argument for TextBody {
    fn describe(to: &mut Described<'_>) {
        to.text_body("text/plain");
    }
}

impl Argument for RawQuery {}
impl Argument for HeaderMap {}
impl Argument for Body {}
impl Argument for Request<Body> {}

impl<A: Answer> Answer for Result<A, Problem> {
    fn describe(to: &mut Described<'_>) {
        A::describe(to);
    }
}

impl<T: JsonSchema> Answer for Json<T> {
    fn describe(to: &mut Described<'_>) {
        to.json_answer::<T>(StatusCode::OK);
    }
}

/// The status is 201, because 200 needs none.
impl<T: JsonSchema> Answer for (StatusCode, Json<T>) {
    fn describe(to: &mut Described<'_>) {
        to.json_answer::<T>(StatusCode::CREATED);
    }
}

/// A page of a list.
impl<T: JsonSchema> Answer for (HeaderMap, Json<T>) {
    fn describe(to: &mut Described<'_>) {
        to.json_answer::<T>(StatusCode::OK);
        to.answer_header(
            "Link",
            "The next page, as `rel=\"next\"` (RFC 8288), if there is one.",
        );
    }
}

impl Answer for &'static str {
    fn describe(to: &mut Described<'_>) {
        to.text_answer();
    }
}

impl Answer for String {
    fn describe(to: &mut Described<'_>) {
        to.text_answer();
    }
}

impl Answer for StatusCode {}
impl Answer for Response {}
