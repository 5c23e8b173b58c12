//! Snapshots of volumes: behaviour 4.8.5. Where the reference takes one volume per pod, ours takes all that are named.
//!
//! What an action is to take is recorded in its `volumeSnapshots` when the backup begins; content, size and time are added
//! when all of them are ready. Nothing of it lies in a repository, so there is nothing to seal.

pub mod apply;
pub mod build;
pub mod decide;
pub mod observe;
#[cfg(test)]
mod tests;
