//! From a text file to batches of token numbers.
//!
//! A text file holds a sentence a line; empty lines and lines that begin with `#` are left out. Sentences of like
//! length share a batch, so that little of it is padding; each batch remembers which sentences it holds, so that the
//! results can be put back in the order of the file. The invariant: the batches follow from the file and the batch
//! size alone, so all ranks make the same ones without a word to each other.

use std::path::Path;

use anyhow::{Context, Result, anyhow, ensure};
use serde::Deserialize;
use tokenizers::{Tokenizer, TruncationParams};

/// Some sentences, padded to the longest of them.
#[derive(Debug, PartialEq)]
pub(crate) struct Batch {
    /// Which sentences of the text these are.
    pub(crate) sentences: Vec<usize>,
    /// Tokens of the longest of them.
    pub(crate) length: usize,
    /// A row of `length` token numbers a sentence.
    pub(crate) token_ids: Vec<u32>,
    /// For each of them, 1 for a token and 0 for padding.
    pub(crate) mask: Vec<f32>,
}

/// Reads the sentences of a text file.
pub(crate) fn read_sentences(path: &Path) -> Result<Vec<String>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    let sentences: Vec<_> = sentences_of(&text).map(str::to_owned).collect();
    ensure!(!sentences.is_empty(), "{} holds no sentence", path.display());
    Ok(sentences)
}

fn sentences_of(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'))
}

/// The most tokens that a sentence may have, as sentence-transformers keeps it beside a model.
#[derive(Deserialize)]
struct SentenceConfig {
    max_seq_length: usize,
}

/// Turns each sentence into the numbers of its tokens, cut off where the model's sentence_bert_config.json says.
pub(crate) fn tokenise(model: &Path, sentences: &[String]) -> Result<Vec<Vec<u32>>> {
    let config = model.join("sentence_bert_config.json");
    let read = || -> Result<SentenceConfig> { Ok(serde_json::from_slice(&std::fs::read(&config)?)?) };
    let longest = read().with_context(|| format!("reading {}", config.display()))?.max_seq_length;

    let path = model.join("tokenizer.json");
    let failed = |error| anyhow!("tokenising with {}: {error}", path.display());
    let mut tokenizer = Tokenizer::from_file(&path).map_err(failed)?;
    tokenizer.with_padding(None);
    let truncation = TruncationParams { max_length: longest, ..Default::default() };
    tokenizer.with_truncation(Some(truncation)).map_err(failed)?;
    let encodings = sentences.iter().map(|sentence| tokenizer.encode_fast(sentence.as_str(), true));
    encodings.map(|encoding| Ok(encoding.map_err(failed)?.get_ids().to_vec())).collect()
}

/// Puts tokenised sentences into batches of at most `batch_size`, the longest sentences first.
pub(crate) fn batches(tokens: &[Vec<u32>], batch_size: usize) -> Vec<Batch> {
    let mut order: Vec<usize> = (0..tokens.len()).collect();
    order.sort_by_key(|&sentence| std::cmp::Reverse(tokens[sentence].len()));
    order.chunks(batch_size.max(1)).map(|sentences| pad(tokens, sentences)).collect()
}

fn pad(tokens: &[Vec<u32>], sentences: &[usize]) -> Batch {
    let length = sentences.iter().map(|&sentence| tokens[sentence].len()).max().unwrap_or(0);
    let mut token_ids = vec![0; sentences.len() * length];
    let mut mask = vec![0.0; sentences.len() * length];
    for (row, &sentence) in sentences.iter().enumerate() {
        let tokens = &tokens[sentence];
        let place = row * length..row * length + tokens.len();
        token_ids[place.clone()].copy_from_slice(tokens);
        mask[place].fill(1.0);
    }
    Batch { sentences: sentences.to_vec(), length, token_ids, mask }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_empty_lines_are_no_sentences() {
        let text = "# source: a book\n\n  Call me Ishmael.  \n# another\nWho ain't a slave?\n";
        assert_eq!(sentences_of(text).collect::<Vec<_>>(), ["Call me Ishmael.", "Who ain't a slave?"]);
    }

    #[test]
    fn the_text_beside_this_example_has_its_hundreds_of_sentences() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("sentences.txt");
        assert!(read_sentences(&path).unwrap().len() >= 200);
    }

    #[test]
    fn a_batch_holds_sentences_of_like_length_and_knows_which() {
        let tokens = [vec![7], vec![1, 2, 3], vec![4, 5]];
        let expected = [
            Batch {
                sentences: vec![1, 2],
                length: 3,
                token_ids: vec![1, 2, 3, 4, 5, 0],
                mask: vec![1.0, 1.0, 1.0, 1.0, 1.0, 0.0],
            },
            Batch { sentences: vec![0], length: 1, token_ids: vec![7], mask: vec![1.0] },
        ];
        assert_eq!(batches(&tokens, 2), expected);
    }
}
