//! Lists every route, with what its handler's types do not say.
//!
//! Tests compare it with docs/api.md, which another test compares with the router.

mod approvals;
mod authorities;
mod certificates;
mod daemon;
mod devices;
mod published;

use super::handler::Handler;
use super::operation::{Described, Operation};
use super::schemas::Schemas;
use crate::api::approval_guard;

/// The routes so far.
struct Routes<'a> {
    schemas: &'a mut Schemas,
    operations: Vec<Operation>,
    /// The tag of the routes that are added.
    tag: &'static str,
}

/// All routes, in the order of docs/api.md.
pub(super) fn all(schemas: &mut Schemas) -> Vec<Operation> {
    let mut routes = Routes {
        schemas,
        operations: Vec::new(),
        tag: "",
    };
    certificates::certificates(&mut routes);
    certificates::profiles(&mut routes);
    published::est(&mut routes);
    published::files(&mut routes);
    authorities::authorities(&mut routes);
    devices::devices_and_enrollments(&mut routes);
    devices::rollovers(&mut routes);
    devices::blocks(&mut routes);
    approvals::approvals(&mut routes);
    daemon::tokens(&mut routes);
    daemon::daemon(&mut routes);
    for operation in &mut routes.operations {
        if approval_guard::is_guarded(operation.method, &operation.path()) {
            operation.may_need_approval();
        }
    }
    routes.operations
}

impl Routes<'_> {
    fn get<A>(&mut self, route: impl Into<String>, handler: impl Handler<A>) -> Described<'_> {
        self.add("get", route.into(), handler)
    }

    fn post<A>(&mut self, route: impl Into<String>, handler: impl Handler<A>) -> Described<'_> {
        self.add("post", route.into(), handler)
    }

    fn delete<A>(&mut self, route: impl Into<String>, handler: impl Handler<A>) -> Described<'_> {
        self.add("delete", route.into(), handler)
    }

    fn add<A>(
        &mut self,
        method: &'static str,
        route: String,
        handler: impl Handler<A>,
    ) -> Described<'_> {
        let mut operation = Operation::new(self.tag, method, route);
        handler.describe(&mut operation.with(self.schemas));
        self.operations.push(operation);
        let last = self.operations.len() - 1;
        self.operations[last].with(self.schemas)
    }
}
