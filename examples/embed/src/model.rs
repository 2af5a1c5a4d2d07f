//! The MiniLM sentence encoder, split over the ranks.
//!
//! A BERT encoder turns the tokens of a batch into one vector each; mean pooling turns those into one vector a
//! sentence. Each rank runs all of it, but of every layer's attention it computes only its own heads, and of every MLP
//! only its own columns (see `parallel`). That costs two all-reduces a layer and batch, and nothing else crosses
//! between ranks. The embedding tables and the layer norms are whole on every rank: every rank needs their results in
//! full, and looking up a row is cheaper than fetching it from a peer. `main` calls [`Encoder::embed`].
//!
//! Activations are matrices of (tokens of the batch, hidden size), so that every linear layer is one matrix product.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use candle_core::{D, Device, Tensor};
use candle_nn::{LayerNorm, Module, ops::softmax_last_dim};
use serde::Deserialize;

use crate::parallel::{ColumnParallelLinear, RowParallelLinear};
use crate::ranks::Ranks;
use crate::text::Batch;
use crate::weights::Weights;

/// What is added to the attention score of a padding token: after the softmax nothing of it is left.
const MASKED: f32 = -1e9;
/// The all-reduces of a layer: one ends its attention, one its MLP.
pub(crate) const ALL_REDUCES_PER_LAYER: usize = 2;

/// The numbers of a model's config.json that this encoder needs.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Config {
    pub(crate) hidden_size: usize,
    pub(crate) intermediate_size: usize,
    pub(crate) num_attention_heads: usize,
    pub(crate) num_hidden_layers: usize,
    pub(crate) max_position_embeddings: usize,
    pub(crate) type_vocab_size: usize,
    pub(crate) vocab_size: usize,
    pub(crate) layer_norm_eps: f64,
    pub(crate) hidden_act: String,
}

impl Config {
    /// Reads config.json.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let read = || -> Result<Self> { Ok(serde_json::from_slice(&std::fs::read(path)?)?) };
        read().with_context(|| format!("reading {}", path.display()))
    }

    /// Checks that this encoder can run the model, split over so many ranks.
    pub(crate) fn check(&self, world_size: usize) -> Result<()> {
        let heads = self.num_attention_heads;
        ensure!(
            self.hidden_act == "gelu",
            "the model's activation is {}, this encoder has gelu",
            self.hidden_act
        );
        ensure!(
            heads > 0 && self.hidden_size.is_multiple_of(heads),
            "{heads} attention heads can't share a hidden size of {}",
            self.hidden_size
        );
        let fits = |ranks: usize| heads.is_multiple_of(ranks) && self.intermediate_size.is_multiple_of(ranks);
        let possible: Vec<_> =
            (1..=heads).filter(|&ranks| fits(ranks)).map(|ranks| ranks.to_string()).collect();
        ensure!(
            fits(world_size),
            "{heads} attention heads and {} MLP columns can't be split evenly over {world_size} ranks: start {} ranks",
            self.intermediate_size,
            possible.join(", ")
        );
        Ok(())
    }

    /// The all-reduces that embedding so many batches takes.
    pub(crate) fn all_reduces(&self, batches: usize) -> usize {
        self.num_hidden_layers * ALL_REDUCES_PER_LAYER * batches
    }
}

/// The whole encoder, as one rank holds it.
pub(crate) struct Encoder {
    word_embeddings: Tensor,
    position_embeddings: Tensor,
    /// Every token here is of the first of the model's token types.
    token_type_embedding: Tensor,
    embedding_norm: LayerNorm,
    layers: Vec<Layer>,
}

impl Encoder {
    /// Reads this rank's part of the model.
    pub(crate) fn load(weights: &Weights, config: &Config, ranks: &Arc<Ranks>) -> Result<Self> {
        config.check(ranks.world_size())?;
        let table = |name: &str, rows: usize| {
            weights.whole(&format!("embeddings.{name}_embeddings.weight"), &[rows, config.hidden_size])
        };
        Ok(Self {
            word_embeddings: table("word", config.vocab_size)?,
            position_embeddings: table("position", config.max_position_embeddings)?,
            token_type_embedding: table("token_type", config.type_vocab_size)?.get(0)?,
            embedding_norm: load_norm(weights, "embeddings.LayerNorm", config)?,
            layers: (0..config.num_hidden_layers)
                .map(|number| Layer::load(weights, &format!("encoder.layer.{number}"), config, ranks))
                .collect::<Result<_>>()?,
        })
    }

    /// The embeddings of a batch of sentences: one row of length 1 a sentence, the same bits on all ranks.
    pub(crate) fn embed(&self, batch: &Batch) -> Result<Tensor> {
        let (sentences, length) = (batch.sentences.len(), batch.length);
        let mask = Tensor::from_slice(&batch.mask, (sentences, length), &Device::Cpu)?;
        let bias = attention_bias(&mask)?;
        let mut hidden = self.embed_tokens(batch)?;
        for layer in &self.layers {
            hidden = layer.forward(&hidden, &bias)?;
        }
        let hidden = hidden.reshape((sentences, length, ()))?;
        Ok(normalise(&mean_pool(&hidden, &mask)?)?)
    }

    /// Word, position and token type, added up and normalised: (tokens of the batch, hidden size).
    fn embed_tokens(&self, batch: &Batch) -> Result<Tensor> {
        let longest = self.position_embeddings.dim(0)?;
        ensure!(batch.length <= longest, "a sentence of {} tokens, the model takes {longest}", batch.length);
        let token_ids = Tensor::from_slice(&batch.token_ids, batch.token_ids.len(), &Device::Cpu)?;
        let words = self.word_embeddings.index_select(&token_ids, 0)?;
        let places = self.position_embeddings.narrow(0, 0, batch.length)?;
        let places = places.broadcast_add(&self.token_type_embedding)?;
        let by_sentence = words.reshape((batch.sentences.len(), batch.length, ()))?;
        let embeddings = by_sentence.broadcast_add(&places)?.reshape(words.shape())?;
        Ok(self.embedding_norm.forward(&embeddings)?)
    }
}

/// One layer: attention and MLP, each followed by the residual and a layer norm.
struct Layer {
    attention: Attention,
    attention_norm: LayerNorm,
    mlp_in: ColumnParallelLinear,
    mlp_out: RowParallelLinear,
    mlp_norm: LayerNorm,
}

impl Layer {
    fn load(weights: &Weights, name: &str, config: &Config, ranks: &Arc<Ranks>) -> Result<Self> {
        let (hidden, columns) = (config.hidden_size, config.intermediate_size);
        let part = |part: &str| format!("{name}.{part}");
        Ok(Self {
            attention: Attention::load(weights, &part("attention"), config, ranks)?,
            attention_norm: load_norm(weights, &part("attention.output.LayerNorm"), config)?,
            mlp_in: ColumnParallelLinear::load(weights, &part("intermediate.dense"), hidden, columns, ranks)?,
            mlp_out: RowParallelLinear::load(weights, &part("output.dense"), columns, hidden, ranks)?,
            mlp_norm: load_norm(weights, &part("output.LayerNorm"), config)?,
        })
    }

    fn forward(&self, hidden: &Tensor, bias: &Tensor) -> candle_core::Result<Tensor> {
        let attended = self.attention.forward(hidden, bias)?;
        let hidden = self.attention_norm.forward(&(hidden + attended)?)?;
        let expanded = self.mlp_in.forward(&hidden)?.gelu_erf()?;
        self.mlp_norm.forward(&(&hidden + self.mlp_out.forward(&expanded)?)?)
    }
}

/// Self-attention over this rank's heads.
struct Attention {
    query: ColumnParallelLinear,
    key: ColumnParallelLinear,
    value: ColumnParallelLinear,
    output: RowParallelLinear,
    /// The heads of this rank: the model's, divided by the number of ranks.
    heads: usize,
    /// Values of a head.
    width: usize,
}

impl Attention {
    fn load(weights: &Weights, name: &str, config: &Config, ranks: &Arc<Ranks>) -> Result<Self> {
        let hidden = config.hidden_size;
        // Heads lie side by side in the rows of these matrices, so an even split of the rows is a split by heads.
        let by_heads = |part: &str| {
            ColumnParallelLinear::load(weights, &format!("{name}.self.{part}"), hidden, hidden, ranks)
        };
        Ok(Self {
            query: by_heads("query")?,
            key: by_heads("key")?,
            value: by_heads("value")?,
            output: RowParallelLinear::load(weights, &format!("{name}.output.dense"), hidden, hidden, ranks)?,
            heads: config.num_attention_heads / ranks.world_size(),
            width: hidden / config.num_attention_heads,
        })
    }

    fn forward(&self, hidden: &Tensor, bias: &Tensor) -> candle_core::Result<Tensor> {
        let (sentences, _, _, length) = bias.dims4()?;
        let by_head = |rows: Tensor| -> candle_core::Result<Tensor> {
            rows.reshape((sentences, length, self.heads, self.width))?.transpose(1, 2)?.contiguous()
        };
        let query = by_head(self.query.forward(hidden)?)?;
        let key = by_head(self.key.forward(hidden)?)?;
        let value = by_head(self.value.forward(hidden)?)?;

        let scale = 1.0 / (self.width as f64).sqrt();
        let scores = (query.matmul(&key.t()?)? * scale)?.broadcast_add(bias)?;
        let attended = softmax_last_dim(&scores)?.matmul(&value)?;
        self.output
            .forward(&attended.transpose(1, 2)?.reshape((sentences * length, self.heads * self.width))?)
    }
}

fn load_norm(weights: &Weights, name: &str, config: &Config) -> Result<LayerNorm> {
    let vector = |part: &str| weights.whole(&format!("{name}.{part}"), &[config.hidden_size]);
    Ok(LayerNorm::new(vector("weight")?, vector("bias")?, config.layer_norm_eps))
}

/// From a mask of (sentences, length), 1 for a token and 0 for padding, to what is added to the attention scores:
/// (sentences, 1, 1, length).
fn attention_bias(mask: &Tensor) -> candle_core::Result<Tensor> {
    mask.affine(-f64::from(MASKED), f64::from(MASKED))?.unsqueeze(1)?.unsqueeze(1)
}

/// The mean over the tokens of each sentence, padding left out: (sentences, length, hidden) to (sentences, hidden).
fn mean_pool(hidden: &Tensor, mask: &Tensor) -> candle_core::Result<Tensor> {
    let tokens = hidden.broadcast_mul(&mask.unsqueeze(D::Minus1)?)?.sum(1)?;
    tokens.broadcast_div(&mask.sum_keepdim(1)?)
}

/// Scales each row to length 1, so that the cosine of two sentences is their dot product.
fn normalise(rows: &Tensor) -> candle_core::Result<Tensor> {
    rows.broadcast_div(&rows.sqr()?.sum_keepdim(D::Minus1)?.sqrt()?)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::parallel::tests::{largest_difference, on_each_rank};
    use crate::weights::tests::written;

    fn tiny_config() -> Config {
        Config {
            hidden_size: 24,
            intermediate_size: 48,
            num_attention_heads: 12,
            num_hidden_layers: 2,
            max_position_embeddings: 8,
            type_vocab_size: 2,
            vocab_size: 10,
            layer_norm_eps: 1e-12,
            hidden_act: "gelu".into(),
        }
    }

    /// A model of random weights, under the names that a real one has.
    fn tiny_model(test: &str, config: &Config) -> Weights {
        let mut tensors = HashMap::new();
        let mut add = |name: String, shape: &[usize]| {
            let tensor = Tensor::randn(0f32, 0.5, shape, &Device::Cpu).unwrap();
            tensors.insert(name, tensor);
        };
        let (hidden, columns) = (config.hidden_size, config.intermediate_size);
        for (name, rows) in [
            ("word", config.vocab_size),
            ("position", config.max_position_embeddings),
            ("token_type", config.type_vocab_size),
        ] {
            add(format!("embeddings.{name}_embeddings.weight"), &[rows, hidden]);
        }
        let mut layers = vec![("embeddings.LayerNorm".to_owned(), vec![hidden])];
        for layer in (0..config.num_hidden_layers).map(|number| format!("encoder.layer.{number}")) {
            for part in ["self.query", "self.key", "self.value", "output.dense"] {
                layers.push((format!("{layer}.attention.{part}"), vec![hidden, hidden]));
            }
            layers.push((format!("{layer}.attention.output.LayerNorm"), vec![hidden]));
            layers.push((format!("{layer}.intermediate.dense"), vec![columns, hidden]));
            layers.push((format!("{layer}.output.dense"), vec![hidden, columns]));
            layers.push((format!("{layer}.output.LayerNorm"), vec![hidden]));
        }
        for (name, shape) in layers {
            add(format!("{name}.weight"), &shape);
            add(format!("{name}.bias"), &shape[..1]);
        }
        written(test, tensors)
    }

    /// Two sentences, of four and of two tokens.
    fn tiny_batch() -> Batch {
        Batch {
            sentences: vec![0, 1],
            length: 4,
            token_ids: vec![1, 2, 3, 4, 5, 6, 0, 0],
            mask: vec![1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0],
        }
    }

    #[test]
    fn every_world_size_gives_the_embeddings_of_one_rank() {
        let config = tiny_config();
        let weights = tiny_model("worlds", &config);
        let embed = |ranks| Encoder::load(&weights, &config, &ranks).unwrap().embed(&tiny_batch()).unwrap();
        let whole = embed(Arc::new(Ranks::alone()));
        for world_size in [1, 2, 3, 4] {
            let split = on_each_rank(world_size, embed);
            let bits = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            for embeddings in &split {
                let difference = largest_difference(embeddings, &whole);
                assert!(difference < 1e-5, "{world_size} ranks differ by {difference}");
                assert_eq!(bits(embeddings), bits(&split[0]), "rank 0 and another differ in bits");
            }
        }
    }

    #[test]
    fn an_embedding_makes_two_all_reduces_a_layer() {
        let config = tiny_config();
        let weights = tiny_model("count", &config);
        let counts = on_each_rank(2, |ranks| {
            Encoder::load(&weights, &config, &ranks).unwrap().embed(&tiny_batch()).unwrap();
            ranks.take_all_reduce_times().len()
        });
        assert_eq!(counts, [config.all_reduces(1); 2]);
        assert_eq!(counts, [4, 4]);
    }

    #[test]
    fn padding_does_not_change_an_embedding() {
        let config = tiny_config();
        let encoder =
            Encoder::load(&tiny_model("padding", &config), &config, &Arc::new(Ranks::alone())).unwrap();
        let padded = encoder.embed(&tiny_batch()).unwrap().get(1).unwrap();
        let bare = Batch { sentences: vec![1], length: 2, token_ids: vec![5, 6], mask: vec![1.0; 2] };
        let bare = encoder.embed(&bare).unwrap().get(0).unwrap();
        assert!(largest_difference(&padded, &bare) < 1e-6);
    }

    #[test]
    fn a_world_size_that_does_not_divide_the_heads_is_refused_with_those_that_do() {
        let error = tiny_config().check(5).unwrap_err().to_string();
        assert!(error.contains("start 1, 2, 3, 4, 6, 12 ranks"), "{error}");
    }

    #[test]
    fn pooling_is_the_mean_of_the_tokens_without_the_padding() {
        let hidden = Tensor::new(&[[[1f32, 2.0], [3.0, 6.0], [100.0, 100.0]]], &Device::Cpu).unwrap();
        let mask = Tensor::new(&[[1f32, 1.0, 0.0]], &Device::Cpu).unwrap();
        assert_eq!(mean_pool(&hidden, &mask).unwrap().to_vec2::<f32>().unwrap(), [[2.0, 4.0]]);
    }

    #[test]
    fn a_normalised_row_has_length_one() {
        let rows = Tensor::new(&[[3f32, 4.0], [0.0, -2.0]], &Device::Cpu).unwrap();
        assert_eq!(normalise(&rows).unwrap().to_vec2::<f32>().unwrap(), [[0.6, 0.8], [0.0, -1.0]]);
    }
}
