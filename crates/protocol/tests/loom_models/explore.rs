//! How a model is explored.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use loom::model::Builder;

/// Events in one run of a model; more than that would mean that it does not end.
const LONGEST_RUN: usize = 20_000;

/// Try every order of events of `model` with at most `preemptions` switches away from a thread that could go on.
pub(crate) fn explore(preemptions: usize, model: impl Fn() + Send + Sync + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.max_branches = LONGEST_RUN;
    builder.check(model);
}

/// The same for a model whose ranks give up after a few looks, and which returns whether they came to their end: in
/// some of the orders they must.
pub(crate) fn explore_some(preemptions: usize, model: impl Fn() -> bool + Send + Sync + 'static) {
    // Not loom's: it counts across the runs, and no model looks at it.
    let completed = Arc::new(AtomicU64::new(0));
    let count = completed.clone();
    explore(preemptions, move || {
        if model() {
            count.fetch_add(1, Ordering::Relaxed);
        }
    });
    assert!(completed.load(Ordering::Relaxed) > 0, "no run of the model came to its end");
}
