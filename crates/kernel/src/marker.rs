//! What types say without data.

use core::marker::PhantomData;

/// Names types, holds nothing of them.
pub(crate) type Names<T> = PhantomData<fn() -> T>;

/// Belongs to one CPU: neither `Send` nor `Sync`.
pub(crate) type OfThisCpu = PhantomData<*mut ()>;
