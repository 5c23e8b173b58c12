//! What all our worker pods have in common: how they reach the repository, who they are, where they may run, and how
//! their end is read.
//!
//! Everything but [`account`], [`apply`], [`logs`] and [`read`] is pure: plain values in, plain objects out.

pub mod account;
pub mod apply;
pub mod env;
pub mod error;
pub mod exec;
pub mod job;
pub mod logs;
pub mod outcome;
pub mod pod;
pub mod read;
pub mod refused;
pub mod repo;
pub mod select;

pub use outcome::Outcome;
pub use repo::RepoAccess;

#[cfg(test)]
pub(crate) fn settings() -> crate::settings::Settings {
    let image = |name: &str| match name {
        "DATASAFED_IMAGE" => Some("mover:1".to_owned()),
        "KBBACKUP_CONTROLLER_IMAGE" => Some("controller:1".to_owned()),
        "CM_NAMESPACE" => Some("kbbackup".to_owned()),
        _ => None,
    };
    crate::settings::Settings::from_env(image).unwrap()
}
