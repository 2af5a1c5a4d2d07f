//! PTX as a row of tokens, each with its line.
//!
//! A word keeps its dots: `st.release.sys.global.u32`, `%tid.x` and `.reg` are one token each.

use crate::error::ParseError;

/// One token and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) line: u32,
    pub(crate) kind: Kind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A name, an opcode with its modifiers, a directive.
    Word(String),
    /// A whole number, or the bits of a `0f…` or `0d…`.
    Number(u64),
    /// What stands between quotation marks.
    Text(String),
    Punctuation(char),
}

/// All tokens of the text; comments and white space are gone.
pub(crate) fn tokens(text: &str) -> Result<Vec<Token>, ParseError> {
    Tokenizer { rest: text, line: 1, found: Vec::new() }.run()
}

struct Tokenizer<'a> {
    rest: &'a str,
    line: u32,
    found: Vec<Token>,
}

impl Tokenizer<'_> {
    fn run(mut self) -> Result<Vec<Token>, ParseError> {
        while let Some(next) = self.rest.chars().next() {
            if next == '\n' {
                self.line += 1;
                self.skip(1);
            } else if next.is_whitespace() {
                self.skip(next.len_utf8());
            } else if self.rest.starts_with("//") {
                self.skip(self.rest.find('\n').unwrap_or(self.rest.len()));
            } else if self.rest.starts_with("/*") {
                self.block_comment()?;
            } else if next.is_ascii_digit() {
                self.number()?;
            } else if is_word(next) {
                let mut word = self.take_while(is_word);
                // A modifier may have a part of its own: `.acc::f32`.
                while self.rest.starts_with("::") {
                    self.skip(2);
                    word = format!("{word}::{}", self.take_while(is_word));
                }
                self.push(Kind::Word(word));
            } else if next == '"' {
                self.text()?;
            } else if ",;:{}[]()+-@!=<>|".contains(next) {
                self.skip(1);
                self.push(Kind::Punctuation(next));
            } else {
                return Err(self.error(format!("the character {next:?} has no meaning here")));
            }
        }
        Ok(self.found)
    }

    fn block_comment(&mut self) -> Result<(), ParseError> {
        let end = self.rest.find("*/").ok_or_else(|| self.error("a comment has no end".into()))?;
        self.line += u32::try_from(self.rest[..end].matches('\n').count()).unwrap_or(u32::MAX);
        self.skip(end + 2);
        Ok(())
    }

    fn number(&mut self) -> Result<(), ParseError> {
        let word = self.take_while(|letter| letter.is_ascii_alphanumeric());
        let digits = word.strip_suffix('U').unwrap_or(&word);
        let hexadecimal = ["0x", "0X", "0f", "0F", "0d", "0D"];
        let value = match hexadecimal.iter().find_map(|start| digits.strip_prefix(start)) {
            Some(digits) => u64::from_str_radix(digits, 16),
            None => digits.parse(),
        };
        let value = value.map_err(|_| self.error(format!("`{word}` is no number")))?;
        self.push(Kind::Number(value));
        Ok(())
    }

    fn text(&mut self) -> Result<(), ParseError> {
        self.skip(1);
        let text = self.take_while(|letter| letter != '"' && letter != '\n');
        if !self.rest.starts_with('"') {
            return Err(self.error("a text has no closing quotation mark".into()));
        }
        self.skip(1);
        self.push(Kind::Text(text));
        Ok(())
    }

    fn take_while(&mut self, belongs: impl Fn(char) -> bool) -> String {
        let length = self.rest.find(|letter| !belongs(letter)).unwrap_or(self.rest.len());
        let taken = self.rest[..length].to_owned();
        self.skip(length);
        taken
    }

    fn skip(&mut self, bytes: usize) {
        self.rest = &self.rest[bytes..];
    }

    fn push(&mut self, kind: Kind) {
        self.found.push(Token { line: self.line, kind });
    }

    fn error(&self, problem: String) -> ParseError {
        ParseError { line: self.line, problem }
    }
}

fn is_word(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || "_$%.".contains(letter)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(text: &str) -> Vec<Kind> {
        tokens(text).unwrap().into_iter().map(|token| token.kind).collect()
    }

    #[test]
    fn words_keep_their_dots_and_numbers_their_bits() {
        let word = |text: &str| Kind::Word(text.into());
        assert_eq!(
            kinds("@%p1 mov.f32 %f1, 0f3F800000; // one\n"),
            [
                Kind::Punctuation('@'),
                word("%p1"),
                word("mov.f32"),
                word("%f1"),
                Kind::Punctuation(','),
                Kind::Number(0x3f80_0000),
                Kind::Punctuation(';'),
            ]
        );
        assert_eq!(kinds("0x10 07 12U"), [Kind::Number(16), Kind::Number(7), Kind::Number(12)]);
    }

    #[test]
    fn lines_are_counted_through_comments() {
        let found = tokens("a\n/* b\n c */ d\n// e\nf").unwrap();
        assert_eq!(found.iter().map(|token| token.line).collect::<Vec<_>>(), [1, 3, 5]);
    }

    #[test]
    fn what_has_no_meaning_is_an_error_with_its_line() {
        assert_eq!(tokens("a\n ?").unwrap_err().line, 2);
        assert_eq!(tokens("0xyz").unwrap_err().problem, "`0xyz` is no number");
    }
}
