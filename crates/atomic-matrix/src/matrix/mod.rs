//! The interface of version 0.1: explicit base pointers and relative pointers.

pub mod core;
