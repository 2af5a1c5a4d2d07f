//! What callers know by integers.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::lock;
use crate::error::Error;

/// Numbers are given once in a process, whatever they are for: one of another kind is never mistaken for this one's.
static LAST: AtomicI64 = AtomicI64::new(0);

/// By its number, each behind a lock of its own: calls with one wait for one another.
#[derive(Debug)]
pub(super) struct Table<T> {
    all: Mutex<HashMap<i64, Arc<Mutex<T>>>>,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self { all: Mutex::default() }
    }
}

impl<T> Table<T> {
    /// Its number from now on.
    pub(super) fn add(&self, one: T) -> i64 {
        let handle = LAST.fetch_add(1, Ordering::Relaxed) + 1;
        lock(&self.all).insert(handle, Arc::new(Mutex::new(one)));
        handle
    }

    /// Takes it out; `None` if another thread is in a call with it, which drops it.
    pub(super) fn remove(&self, what: &'static str, handle: i64) -> Result<Option<T>, Error> {
        let removed = lock(&self.all).remove(&handle).ok_or(Error::Context { what, handle })?;
        Ok(Arc::into_inner(removed).map(|one| one.into_inner().unwrap_or_else(PoisonError::into_inner)))
    }

    pub(super) fn with<R>(
        &self,
        what: &'static str,
        handle: i64,
        act: impl FnOnce(&mut T) -> Result<R, Error>,
    ) -> Result<R, Error> {
        let one = lock(&self.all).get(&handle).cloned().ok_or(Error::Context { what, handle })?;
        let mut one = lock(&one);
        act(&mut one)
    }
}
