//! What is done with embeddings once they are there: compared with each other, with a saved result, between ranks.
//!
//! An [`Embeddings`] is a row of numbers for each sentence, in the order of the text. The invariant: rows have length
//! 1, so the dot product of two rows is the cosine of the angle between the sentences.

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use candle_core::{Device, Tensor};
use serde::Serialize;

/// The names under which a saved result holds the embeddings, and the speed at which they were made.
const EMBEDDINGS: &str = "embeddings";
const SPEED: &str = "sentences_per_second";

/// An embedding for each sentence of a text.
#[derive(Debug, PartialEq)]
pub(crate) struct Embeddings {
    values: Vec<f32>,
    width: usize,
}

/// Two sentences and the cosine of the angle between them.
#[derive(Debug, PartialEq, Serialize)]
pub(crate) struct Pair {
    pub(crate) cosine: f32,
    pub(crate) first: usize,
    pub(crate) second: usize,
}

impl Embeddings {
    /// Room for so many sentences, all zero.
    pub(crate) fn zeros(sentences: usize, width: usize) -> Self {
        Self { values: vec![0.0; sentences * width], width }
    }

    /// Puts the rows of a batch where its sentences stand in the text.
    pub(crate) fn put(&mut self, sentences: &[usize], rows: &[Vec<f32>]) {
        for (&sentence, row) in sentences.iter().zip(rows) {
            self.values[sentence * self.width..][..self.width].copy_from_slice(row);
        }
    }

    fn rows(&self) -> std::slice::ChunksExact<'_, f32> {
        self.values.chunks_exact(self.width)
    }

    /// The `count` closest pairs, the closest first. A sentence is in one pair at most: otherwise a family of nearly
    /// equal sentences would fill the list.
    pub(crate) fn nearest_pairs(&self, count: usize) -> Vec<Pair> {
        let rows: Vec<_> = self.rows().collect();
        let mut pairs = Vec::new();
        for (second, right) in rows.iter().enumerate() {
            for (first, left) in rows[..second].iter().enumerate() {
                let cosine = left.iter().zip(*right).map(|(left, right)| left * right).sum();
                pairs.push(Pair { cosine, first, second });
            }
        }
        pairs.sort_by(|left, right| right.cosine.total_cmp(&left.cosine));
        let mut taken = vec![false; rows.len()];
        pairs.retain(|pair| {
            let free = !taken[pair.first] && !taken[pair.second];
            if free {
                taken[pair.first] = true;
                taken[pair.second] = true;
            }
            free
        });
        pairs.truncate(count);
        pairs
    }

    /// The largest absolute difference to `other`, which is of the same text and model. Not a number counts as
    /// infinitely different.
    pub(crate) fn largest_difference(&self, other: &Self) -> Result<f32> {
        ensure!(
            self.width == other.width && self.values.len() == other.values.len(),
            "{} embeddings of {} numbers can't be compared with {} of {}: save them from the same text and model",
            self.rows().len(),
            self.width,
            other.rows().len(),
            other.width
        );
        let differences = self.values.iter().zip(&other.values).map(|(left, right)| (left - right).abs());
        Ok(differences
            .map(|difference| if difference.is_nan() { f32::INFINITY } else { difference })
            .fold(0.0, f32::max))
    }

    /// A 64-bit FNV-1a hash of every bit, to compare between ranks.
    pub(crate) fn checksum(&self) -> u64 {
        let bytes = self.values.iter().flat_map(|value| value.to_le_bytes());
        bytes
            .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
    }

    /// Saves the embeddings as a safetensors file, and beside them how fast they were made.
    pub(crate) fn save(&self, path: &Path, sentences_per_second: f64) -> Result<()> {
        let shape = (self.rows().len(), self.width);
        let tensors = HashMap::from([
            (EMBEDDINGS, Tensor::from_slice(&self.values, shape, &Device::Cpu)?),
            (SPEED, Tensor::new(sentences_per_second, &Device::Cpu)?),
        ]);
        candle_core::safetensors::save(&tensors, path).with_context(|| format!("saving {}", path.display()))
    }

    /// Reads what [`Embeddings::save`] wrote.
    pub(crate) fn load(path: &Path) -> Result<(Self, f64)> {
        let read = || -> Result<(Self, f64)> {
            let tensors = candle_core::safetensors::load(path, &Device::Cpu)?;
            let tensor = |name: &str| tensors.get(name).with_context(|| format!("it holds no {name}"));
            let embeddings = tensor(EMBEDDINGS)?;
            let (_, width) = embeddings.dims2()?;
            let values = embeddings.flatten_all()?.to_vec1()?;
            Ok((Self { values, width }, tensor(SPEED)?.to_scalar()?))
        };
        read().with_context(|| format!("reading the saved embeddings in {}", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn embeddings(rows: &[[f32; 2]]) -> Embeddings {
        Embeddings { values: rows.concat(), width: 2 }
    }

    #[test]
    fn pairs_come_closest_first_and_share_no_sentence() {
        let four = embeddings(&[[1.0, 0.0], [0.0, 1.0], [0.8, 0.6], [0.6, 0.8]]);
        let pairs: Vec<_> = four.nearest_pairs(8).iter().map(|pair| (pair.first, pair.second)).collect();
        // (2, 3) at 0.96; (0, 2) and (1, 3) at 0.8 share a sentence with it; what is left is (0, 1) at 0.
        assert_eq!(pairs, [(2, 3), (0, 1)]);
        assert_eq!(four.nearest_pairs(1).len(), 1);
    }

    #[test]
    fn rows_of_a_batch_land_at_their_sentences() {
        let mut made = Embeddings::zeros(3, 2);
        made.put(&[2, 0], &[vec![5.0, 6.0], vec![1.0, 2.0]]);
        assert_eq!(made, embeddings(&[[1.0, 2.0], [0.0, 0.0], [5.0, 6.0]]));
    }

    #[test]
    fn the_largest_difference_is_found_and_nan_is_never_equal() {
        let left = embeddings(&[[1.0, 0.0]]);
        assert_eq!(left.largest_difference(&embeddings(&[[0.75, 0.125]])).unwrap(), 0.25);
        assert_eq!(left.largest_difference(&embeddings(&[[1.0, f32::NAN]])).unwrap(), f32::INFINITY);
        assert!(left.largest_difference(&embeddings(&[[1.0, 0.0], [1.0, 0.0]])).is_err());
    }

    #[test]
    fn one_bit_changes_the_checksum() {
        let sum = embeddings(&[[1.0, 0.0]]).checksum();
        assert_eq!(sum, embeddings(&[[1.0, 0.0]]).checksum());
        assert_ne!(sum, embeddings(&[[1.0, -0.0]]).checksum());
    }

    #[test]
    fn what_is_saved_is_loaded() {
        let path =
            std::env::temp_dir().join(format!("unisono-embed-{}-saved.safetensors", std::process::id()));
        let saved = embeddings(&[[1.0, 0.0], [0.6, 0.8]]);
        saved.save(&path, 12.5).unwrap();
        let loaded = Embeddings::load(&path);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(loaded.unwrap(), (saved, 12.5));
    }
}
