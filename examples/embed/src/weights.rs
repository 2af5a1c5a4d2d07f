//! Reads a model's weights, and of each split matrix only the rows or columns that this rank needs.
//!
//! A safetensors file is eight bytes of length, a JSON table of that length (name, type, shape and place of each
//! tensor), then the tensors, row by row. So a rank that wants some rows reads one range, and a rank that wants some
//! columns reads one short range per row; the rest of the file is never touched. The invariant: nothing in the table
//! is believed before it has been compared with the shape the model asks for and with the length of the file.

use std::collections::HashMap;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use candle_core::{Device, Tensor};
use serde::Deserialize;

use crate::ranks::Shard;

/// Bytes of a table no real model reaches; a longer one is taken for a damaged file.
const LONGEST_TABLE: u64 = 64 << 20;
/// Bytes of one f32.
const VALUE: usize = size_of::<f32>();

/// An open safetensors file.
pub(crate) struct Weights {
    file: File,
    /// Where the tensors begin, and where the file ends, in bytes.
    tensors: Range<u64>,
    table: HashMap<String, Entry>,
}

#[derive(Deserialize)]
struct Entry {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: (u64, u64),
}

impl Weights {
    /// Opens `path` and reads its table.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        Self::read_table(path).with_context(|| format!("reading the table of {}", path.display()))
    }

    fn read_table(path: &Path) -> Result<Self> {
        let file = File::open(path)?;
        let file_length = file.metadata()?.len();
        let mut length = [0; 8];
        file.read_exact_at(&mut length, 0)?;
        let length = u64::from_le_bytes(length);
        ensure!(length <= LONGEST_TABLE, "a table of {length} bytes: this is no safetensors file");
        let mut json = vec![0; usize::try_from(length)?];
        file.read_exact_at(&mut json, 8)?;
        let mut fields: HashMap<String, serde_json::Value> = serde_json::from_slice(&json)?;
        fields.remove("__metadata__");
        let entries = fields.into_iter().map(|(name, field)| Ok((name, serde_json::from_value(field)?)));
        Ok(Self { file, tensors: 8 + length..file_length, table: entries.collect::<Result<_>>()? })
    }

    /// All of a tensor, whatever its number of dimensions.
    pub(crate) fn whole(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        let start = self.locate(name, shape)?;
        let values = self.read(start, 0..shape.iter().product())?;
        Ok(Tensor::from_vec(values, shape, &Device::Cpu)?)
    }

    /// This shard's entries of a vector, or its rows of a matrix.
    pub(crate) fn rows(&self, name: &str, shape: &[usize], shard: Shard) -> Result<Tensor> {
        let start = self.locate(name, shape)?;
        let rows = shard.range(shape[0])?;
        let row_length: usize = shape[1..].iter().product();
        let values = self.read(start, rows.start * row_length..rows.end * row_length)?;
        let mut part = shape.to_vec();
        part[0] = rows.len();
        Ok(Tensor::from_vec(values, part, &Device::Cpu)?)
    }

    /// This shard's columns of a matrix.
    pub(crate) fn columns(&self, name: &str, shape: [usize; 2], shard: Shard) -> Result<Tensor> {
        let start = self.locate(name, &shape)?;
        let columns = shard.range(shape[1])?;
        let mut values = Vec::with_capacity(shape[0] * columns.len());
        for row in 0..shape[0] {
            let row_start = row * shape[1];
            values.extend(self.read(start, row_start + columns.start..row_start + columns.end)?);
        }
        Ok(Tensor::from_vec(values, (shape[0], columns.len()), &Device::Cpu)?)
    }

    /// Where in the file tensor `name` begins, once its type, shape and place have been found right.
    fn locate(&self, name: &str, shape: &[usize]) -> Result<u64> {
        let entry = self.table.get(name).with_context(|| format!("the file holds no tensor {name}"))?;
        ensure!(entry.dtype == "F32", "{name} is of type {}, this example reads F32", entry.dtype);
        ensure!(entry.shape == shape, "{name} has shape {:?}, its config says {shape:?}", entry.shape);
        let (start, end) = entry.data_offsets;
        let bytes = shape.iter().product::<usize>() as u64 * VALUE as u64;
        let inside = end <= self.tensors.end.saturating_sub(self.tensors.start);
        ensure!(
            inside && end.checked_sub(start) == Some(bytes),
            "{name} lies at {start}..{end}, outside the file"
        );
        Ok(self.tensors.start + start)
    }

    /// The f32 values number `range`, counted from the file position `start`.
    fn read(&self, start: u64, range: Range<usize>) -> Result<Vec<f32>> {
        let mut bytes = vec![0; range.len() * VALUE];
        self.file.read_exact_at(&mut bytes, start + (range.start * VALUE) as u64)?;
        let (values, _) = bytes.as_chunks::<VALUE>();
        Ok(values.iter().map(|&value| f32::from_le_bytes(value)).collect())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Writes `tensors` to a file under the test's name and opens it.
    pub(crate) fn written(test: &str, tensors: HashMap<String, Tensor>) -> Weights {
        let path =
            std::env::temp_dir().join(format!("unisono-embed-{}-{test}.safetensors", std::process::id()));
        candle_core::safetensors::save(&tensors, &path).unwrap();
        let weights = Weights::open(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        weights
    }

    fn counting(test: &str) -> Weights {
        let matrix = Tensor::arange(0f32, 24.0, &Device::Cpu).unwrap().reshape((4, 6)).unwrap();
        written(test, HashMap::from([("matrix".into(), matrix)]))
    }

    #[test]
    fn shards_side_by_side_are_the_whole() {
        let weights = counting("shards");
        let whole = weights.whole("matrix", &[4, 6]).unwrap().to_vec2::<f32>().unwrap();
        for world_size in [1, 2] {
            let shards = (0..world_size).map(|rank| Shard { rank, world_size });
            let rows: Vec<_> =
                shards.clone().map(|shard| weights.rows("matrix", &[4, 6], shard).unwrap()).collect();
            let columns: Vec<_> =
                shards.map(|shard| weights.columns("matrix", [4, 6], shard).unwrap()).collect();
            assert_eq!(Tensor::cat(&rows, 0).unwrap().to_vec2::<f32>().unwrap(), whole);
            assert_eq!(Tensor::cat(&columns, 1).unwrap().to_vec2::<f32>().unwrap(), whole);
        }
    }

    #[test]
    fn a_wrong_name_a_wrong_shape_and_an_uneven_split_are_refused() {
        let weights = counting("refused");
        let message = |result: Result<Tensor>| result.unwrap_err().to_string();
        assert!(message(weights.whole("vector", &[6])).contains("no tensor vector"));
        assert!(message(weights.whole("matrix", &[6, 4])).contains("[4, 6]"));
        let shard = Shard { rank: 0, world_size: 5 };
        assert!(message(weights.columns("matrix", [4, 6], shard)).contains("6 rows or columns"));
    }
}
