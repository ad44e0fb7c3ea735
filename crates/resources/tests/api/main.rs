//! The resource API by its clients: plain requests, the real `kubectl`, and the crate `kube`.
#![expect(clippy::unwrap_used, clippy::print_stderr, reason = "a test that meets an error shall fail")]

mod kube_rs;
mod kubectl;
mod requests;
mod scale;
mod server;
mod site;
mod watches;

use lyra_resources::EventType;
use lyra_types::TenantName;

/// Notes an event about an application of `game1`.
fn tell(server: &server::Server, application: &str, reason: &str, message: &str) {
    let tenant = TenantName::new("game1").unwrap();
    let object = server.api.applications().get(&tenant, application).expect("the application is there");
    server.api.events().record(object.object(), EventType::Normal, reason, message);
}
