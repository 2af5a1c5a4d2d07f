//! No readers elsewhere: this build is without the feature `remote`. Nobody can have one of these.

use std::convert::Infallible;
use std::time::{Duration, Instant};

use super::{Plan, Waited};
use crate::queue::error::{Error, ReaderStatus, Result};
use crate::queue::handle::{Elsewhere, Handle};

const MISSING: &str = "the queue's readers elsewhere need the feature `remote` of the crate `unisono`";

#[derive(Debug)]
pub(in crate::queue) struct Outlet(Infallible);

#[derive(Debug)]
pub(in crate::queue) struct Far(Infallible);

#[derive(Clone, Debug)]
pub(in crate::queue) struct FarControl(Infallible);

impl Outlet {
    pub(in crate::queue) fn open(_plan: Plan) -> Result<Outlet> {
        Err(Error::Elsewhere { problem: MISSING.to_string() })
    }

    pub(in crate::queue) fn at(&self) -> Elsewhere {
        match self.0 {}
    }

    pub(in crate::queue) fn listen(&self, _news: impl Fn() + Send + Sync + 'static) {
        match self.0 {}
    }

    pub(in crate::queue) fn send(&self, _message: Vec<u8>) {
        match self.0 {}
    }

    pub(in crate::queue) fn wait_for_room(
        &self,
        _bytes: u64,
        _limit: Duration,
        _is_over: impl Fn() -> bool,
    ) -> Waited {
        match self.0 {}
    }

    pub(in crate::queue) fn rouse(&self) {
        match self.0 {}
    }

    pub(in crate::queue) fn is_troubled(&self) -> bool {
        match self.0 {}
    }

    pub(in crate::queue) fn take_trouble(&self) -> Option<Error> {
        match self.0 {}
    }

    pub(in crate::queue) fn untold(&self) -> Vec<Error> {
        match self.0 {}
    }

    pub(in crate::queue) fn is_complete(&self) -> bool {
        match self.0 {}
    }

    pub(in crate::queue) fn say_complete(&self) {
        match self.0 {}
    }

    pub(in crate::queue) fn statuses(&self) -> Vec<ReaderStatus> {
        match self.0 {}
    }

    pub(in crate::queue) fn missing(&self) -> Vec<ReaderStatus> {
        match self.0 {}
    }

    pub(in crate::queue) fn behind(&self) -> Vec<ReaderStatus> {
        match self.0 {}
    }

    pub(in crate::queue) fn close(&self) {
        match self.0 {}
    }
}

impl Far {
    pub(in crate::queue) fn open(
        _handle: &Handle,
        _elsewhere: &Elsewhere,
        _rank: usize,
        _deadline: Option<Instant>,
    ) -> Result<Far> {
        Err(Error::Elsewhere { problem: MISSING.to_string() })
    }

    pub(in crate::queue) fn control(&self) -> FarControl {
        match self.0 {}
    }

    pub(in crate::queue) fn take(
        &mut self,
        _operation: &'static str,
        _timeout: Option<Duration>,
    ) -> Result<Vec<u8>> {
        match self.0 {}
    }

    pub(in crate::queue) fn wait_until_ready(
        &mut self,
        _operation: &'static str,
        _timeout: Option<Duration>,
    ) -> Result<()> {
        match self.0 {}
    }

    pub(in crate::queue) fn set_warn_interval(&mut self, _interval: Duration) {
        match self.0 {}
    }

    pub(in crate::queue) fn put_back(&mut self, _message: Vec<u8>) {
        match self.0 {}
    }

    pub(in crate::queue) fn number(&self) -> u64 {
        match self.0 {}
    }

    pub(in crate::queue) fn finish(&mut self) {
        match self.0 {}
    }
}

impl FarControl {
    pub(in crate::queue) fn cancel(&self) {
        match self.0 {}
    }

    pub(in crate::queue) fn shut_down(&self) {
        match self.0 {}
    }
}
