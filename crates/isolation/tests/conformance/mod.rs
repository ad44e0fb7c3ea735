//! What every back end promises, claimed once and tested on each: `claims.rs` against the traits, a subject for each
//! back end and runtime in `subjects/`.
//!
//! A new back end is one file in `subjects/` with a type that implements [`Subject`], and one line at the end of this
//! file. What it can't do by nature, its subject says with the reason ([`Deed::Never`]); the claim then does not apply.

mod claims;
mod harness;
mod subjects;

pub use harness::{Deed, Program, Subject};

/// A module with every claim as a test of one subject, which is made for each test alone.
macro_rules! conforms {
    ($name:ident, $subject:expr) => {
        conforms!(@claims $name, $subject,
            an_instance_answers,
            a_call_that_waits_is_answered_when_it_is_done,
            instances_of_one_function_run_at_once,
            a_call_ends_at_its_deadline,
            memory_ends_at_the_limit,
            a_crash_is_told_and_the_next_instance_works,
            an_error_of_the_function_is_told,
            a_result_that_is_too_large_is_refused,
            lines_that_a_call_writes_arrive,
            a_kept_instance_keeps_its_state,
            a_new_instance_begins_anew,
            a_stopped_instance_is_gone,
            a_call_that_is_given_up_frees_everything,
            a_hibernated_instance_wakes_and_serves,
            a_well_instance_passes_its_probe,
            what_is_no_code_is_refused,
            nothing_is_left_behind,
        );
    };
    (@claims $name:ident, $subject:expr, $($claim:ident,)*) => {
        mod $name {
            $(
                #[tokio::test]
                async fn $claim() {
                    super::harness::soon(super::claims::$claim(&$subject)).await;
                }
            )*
        }
    };
}

conforms!(wasm_js, super::subjects::wasm::Script::new());
conforms!(wasm_component, super::subjects::wasm::Component::new());
conforms!(wasm_command, super::subjects::wasm::Command::new());
conforms!(simulated, super::subjects::simulated::Parameters::new());
conforms!(python, super::subjects::python::subject().await);
conforms!(nodejs, super::subjects::nodejs::subject().await);
conforms!(native, super::subjects::native::subject().await);
conforms!(http, super::subjects::http::subject().await);
