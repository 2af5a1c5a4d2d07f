//! What a fresh machine lacks, made ready on first use and kept in `target/xtask`.
//!
//! | module | what it makes ready |
//! |---|---|
//! | [`apt`] | Debian packages: said before they are installed, named to those who are not root |
//! | [`private_apt`] | packages of another suite or architecture, fetched and not installed |
//! | [`rust_src`] | the source of the standard library, of exactly the running compiler |
//! | [`toolchain`] | a private copy of the running toolchain that holds this source |
//! | [`aarch64`] | in that copy, the standard library for 64-bit Arm; and a linker and an emulator for it |
//! | [`foreign_python`] | a Python for 64-bit Arm, for the emulator |
//! | [`pip`] | Python packages that are only data to us: fetched, checked against a digest, unpacked |
//!
//! The one invariant: a thing under its final name is complete. It is built under another name and renamed, so
//! that an interrupted run leaves nothing that a later run could take for finished.

pub(crate) mod aarch64;
pub(crate) mod apt;
pub(crate) mod foreign_python;
pub(crate) mod pip;
mod private_apt;
pub(crate) mod rust_src;
pub(crate) mod toolchain;
