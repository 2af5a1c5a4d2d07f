//! The table by which peers find inputs: rows of pointers, one per rank, in device memory.

use crate::error::Error;
use crate::layout::ROW_BYTES;

/// Rows of pointers in device memory.
#[derive(Debug)]
pub(super) struct Table {
    address: u64,
    rows: usize,
    taken: usize,
}

impl Table {
    pub(super) fn new(address: u64, bytes: usize) -> Self {
        Self { address, rows: bytes / ROW_BYTES, taken: 0 }
    }

    /// Takes the next row; returns its address.
    pub(super) fn take_row(&mut self) -> Result<u64, Error> {
        if self.taken == self.rows {
            return Err(Error::TableFull { rows: self.rows });
        }
        self.taken += 1;
        Ok(self.address + ((self.taken - 1) * ROW_BYTES) as u64)
    }
}
