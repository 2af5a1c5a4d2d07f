//! From tokens to [`Module`]. What is not understood is an error with its line.

use std::collections::HashMap;

use crate::ast::{
    Base, Entry, Guard, Instruction, Module, Operand, Parameter, Register, Statement, StatementKind,
};
use crate::error::ParseError;
use crate::token::{self, Kind, Token};

/// Reads a whole module.
pub(crate) fn module(text: &str) -> Result<Module, ParseError> {
    let tokens = token::tokens(text)?;
    let end = tokens.last().map_or(1, |token| token.line);
    Parser { tokens, next: 0, end }.module()
}

struct Parser {
    tokens: Vec<Token>,
    next: usize,
    end: u32,
}

/// The registers of an entry, what their names mean in the blocks that are open, and its other variables.
struct Registers {
    widths: Vec<u32>,
    scopes: Vec<HashMap<String, Register>>,
    /// What each block has for itself.
    shared: Vec<Parameter>,
}

impl Registers {
    fn find(&self, name: &str) -> Option<Register> {
        self.scopes.iter().rev().find_map(|scope| scope.get(name).copied())
    }

    fn declare(&mut self, name: String, width: u32) -> Result<(), String> {
        let number = Register::try_from(self.widths.len()).map_err(|_| "too many registers".to_owned())?;
        let scope = self.scopes.last_mut().ok_or("a register outside of an entry")?;
        if scope.insert(name.clone(), number).is_some() {
            return Err(format!("the register {name} is declared twice"));
        }
        self.widths.push(width);
        Ok(())
    }
}

impl Parser {
    fn module(mut self) -> Result<Module, ParseError> {
        self.expect_word(".version")?;
        self.word()?;
        self.expect_word(".target")?;
        let target = self.word()?;
        self.expect_word(".address_size")?;
        if self.number()? != 64 {
            return Err(self.error("addresses have 64 bits"));
        }
        let (mut entries, mut shared) = (Vec::new(), Vec::new());
        while self.next < self.tokens.len() {
            match self.word()?.as_str() {
                ".visible" => {}
                ".entry" => entries.push(self.entry(&shared)?),
                ".shared" => {
                    self.variable(&mut shared)?;
                    self.expect(';')?;
                }
                other => return Err(self.error(format!("`{other}` is not known outside of an entry"))),
            }
        }
        Ok(Module { target, entries })
    }

    fn entry(&mut self, shared: &[Parameter]) -> Result<Entry, ParseError> {
        let name = self.word()?;
        let parameters = self.parameters()?;
        let mut max_threads = None;
        while !self.eat('{') {
            match self.word()?.as_str() {
                ".maxntid" => {
                    let product = self.numbers()?.into_iter().product::<u64>();
                    max_threads = Some(u32::try_from(product).map_err(|_| self.error("too many threads"))?);
                }
                ".minnctapersm" => {
                    self.numbers()?;
                }
                other => return Err(self.error(format!("`{other}` is not known before an entry's body"))),
            }
        }
        let mut registers =
            Registers { widths: Vec::new(), scopes: vec![HashMap::new()], shared: shared.to_vec() };
        let mut statements = Vec::new();
        while !registers.scopes.is_empty() {
            self.statement(&mut registers, &mut statements)?;
        }
        let Registers { widths, shared, .. } = registers;
        Ok(Entry { name, parameters, shared, max_threads, registers: widths, statements })
    }

    fn numbers(&mut self) -> Result<Vec<u64>, ParseError> {
        let mut found = vec![self.number()?];
        while self.eat(',') {
            found.push(self.number()?);
        }
        Ok(found)
    }

    fn parameters(&mut self) -> Result<Vec<Parameter>, ParseError> {
        let mut found = Vec::new();
        if !self.eat('(') || self.eat(')') {
            return Ok(found);
        }
        loop {
            self.expect_word(".param")?;
            self.variable(&mut found)?;
            if !self.eat(',') {
                self.expect(')')?;
                return Ok(found);
            }
        }
    }

    /// `.align 8 .b8 name[12]`, behind those that are there.
    fn variable(&mut self, found: &mut Vec<Parameter>) -> Result<(), ParseError> {
        let mut kind = self.word()?;
        let mut alignment = None;
        if kind == ".align" {
            alignment = Some(self.size()?);
            kind = self.word()?;
        }
        let width = width_of(&kind).ok_or_else(|| self.error(format!("`{kind}` is no type")))? as usize / 8;
        let name = self.word()?;
        let mut bytes = width;
        if self.eat('[') {
            bytes *= self.size()?;
            self.expect(']')?;
        }
        let end = found.last().map_or(0, |last| last.offset + last.bytes);
        let offset = end.next_multiple_of(alignment.unwrap_or(width).max(1));
        found.push(Parameter { name, offset, bytes });
        Ok(())
    }

    fn statement(&mut self, registers: &mut Registers, to: &mut Vec<Statement>) -> Result<(), ParseError> {
        if self.eat('{') {
            registers.scopes.push(HashMap::new());
            return Ok(());
        }
        if self.eat('}') {
            registers.scopes.pop();
            return Ok(());
        }
        if self.eat(';') {
            return Ok(());
        }
        let line = self.line();
        let guard = if self.eat('@') { Some(self.guard(registers)?) } else { None };
        let word = self.word()?;
        let kind = match word.as_str() {
            ".reg" => return self.registers(registers),
            ".shared" => {
                self.variable(&mut registers.shared)?;
                return self.expect(';');
            }
            ".pragma" => return self.pragma(),
            _ if guard.is_none() && self.eat(':') => StatementKind::Label(word),
            _ if word.starts_with('.') => {
                return Err(self.error(format!("`{word}` is not known in an entry")));
            }
            _ => {
                let operands = self.operands(registers)?;
                StatementKind::Instruction(Instruction { guard, opcode: word, operands })
            }
        };
        to.push(Statement { line, kind });
        Ok(())
    }

    fn guard(&mut self, registers: &Registers) -> Result<Guard, ParseError> {
        let negated = self.eat('!');
        let name = self.word()?;
        let predicate =
            registers.find(&name).ok_or_else(|| self.error(format!("`{name}` is no register")))?;
        if registers.widths[usize::from(predicate)] != 1 {
            return Err(self.error(format!("`{name}` is no predicate")));
        }
        Ok(Guard { predicate, negated })
    }

    /// `.reg .b32 %r<5>, x;`
    fn registers(&mut self, registers: &mut Registers) -> Result<(), ParseError> {
        let kind = self.word()?;
        let width = width_of(&kind).ok_or_else(|| self.error(format!("`{kind}` is no type")))?;
        loop {
            let name = self.word()?;
            let declared = if self.eat('<') {
                let count = self.number()?;
                self.expect('>')?;
                (0..count).try_for_each(|number| registers.declare(format!("{name}{number}"), width))
            } else {
                registers.declare(name, width)
            };
            declared.map_err(|problem| self.error(problem))?;
            if !self.eat(',') {
                return self.expect(';');
            }
        }
    }

    /// Advice to the assembler: not to unroll a loop; which bytes of the next load are used at all.
    fn pragma(&mut self) -> Result<(), ParseError> {
        let is_mask = |text: &str| {
            text.strip_prefix("used_bytes_mask ").is_some_and(|mask| mask.parse::<u64>().is_ok())
        };
        match self.take()? {
            Kind::Text(text) if text == "nounroll" || is_mask(&text) => self.expect(';'),
            other => Err(self.error(format!("the pragma {other:?} is not known"))),
        }
    }

    fn operands(&mut self, registers: &Registers) -> Result<Vec<Operand>, ParseError> {
        let mut found = Vec::new();
        if self.eat(';') {
            return Ok(found);
        }
        loop {
            found.push(self.operand(registers)?);
            if !self.eat(',') {
                self.expect(';')?;
                return Ok(found);
            }
        }
    }

    fn operand(&mut self, registers: &Registers) -> Result<Operand, ParseError> {
        if self.eat('{') {
            let mut parts = vec![self.operand(registers)?];
            while self.eat(',') {
                parts.push(self.operand(registers)?);
            }
            self.expect('}')?;
            return Ok(Operand::Vector(parts));
        }
        if self.eat('[') {
            return self.address(registers);
        }
        let negative = self.eat('-');
        match self.take()? {
            Kind::Number(value) if negative => Ok(Operand::Number(value.wrapping_neg())),
            Kind::Number(value) => Ok(Operand::Number(value)),
            Kind::Word(name) if !negative => {
                Ok(registers.find(&name).map_or(Operand::Name(name), Operand::Register))
            }
            other => Err(self.error(format!("{other:?} is no operand"))),
        }
    }

    fn address(&mut self, registers: &Registers) -> Result<Operand, ParseError> {
        let name = self.word()?;
        let base = registers.find(&name).map_or(Base::Name(name), Base::Register);
        let mut offset = 0;
        if self.eat('+') {
            let negative = self.eat('-');
            let distance =
                i64::try_from(self.number()?).map_err(|_| self.error("the offset is too large"))?;
            offset = if negative { -distance } else { distance };
        }
        self.expect(']')?;
        Ok(Operand::Address { base, offset })
    }

    fn line(&self) -> u32 {
        self.tokens.get(self.next).map_or(self.end, |token| token.line)
    }

    /// About the token that was taken last.
    fn error(&self, problem: impl Into<String>) -> ParseError {
        let line = self.tokens.get(self.next.saturating_sub(1)).map_or(self.end, |token| token.line);
        ParseError { line, problem: problem.into() }
    }

    fn take(&mut self) -> Result<Kind, ParseError> {
        let token = self.tokens.get(self.next).cloned().ok_or_else(|| self.error("the text ends here"))?;
        self.next += 1;
        Ok(token.kind)
    }

    fn eat(&mut self, wanted: char) -> bool {
        let is_there = self.tokens.get(self.next).is_some_and(|t| t.kind == Kind::Punctuation(wanted));
        self.next += usize::from(is_there);
        is_there
    }

    fn expect(&mut self, wanted: char) -> Result<(), ParseError> {
        match self.take()? {
            Kind::Punctuation(found) if found == wanted => Ok(()),
            found => Err(self.error(format!("`{wanted}` was expected, {found:?} is there"))),
        }
    }

    fn word(&mut self) -> Result<String, ParseError> {
        match self.take()? {
            Kind::Word(word) => Ok(word),
            // A version, `8.8`, begins with a digit and is read as number, word.
            Kind::Number(number) => match self.take()? {
                Kind::Word(rest) => Ok(format!("{number}{rest}")),
                found => Err(self.error(format!("a word was expected, {found:?} is there"))),
            },
            found => Err(self.error(format!("a word was expected, {found:?} is there"))),
        }
    }

    fn expect_word(&mut self, wanted: &str) -> Result<(), ParseError> {
        let found = self.word()?;
        if found == wanted {
            Ok(())
        } else {
            Err(self.error(format!("`{wanted}` was expected, not `{found}`")))
        }
    }

    fn number(&mut self) -> Result<u64, ParseError> {
        match self.take()? {
            Kind::Number(value) => Ok(value),
            found => Err(self.error(format!("a number was expected, {found:?} is there"))),
        }
    }

    fn size(&mut self) -> Result<usize, ParseError> {
        let value = self.number()?;
        usize::try_from(value).map_err(|_| self.error(format!("{value} is too large")))
    }
}

/// Bits of a type as a register holds it; 1 for predicates.
fn width_of(kind: &str) -> Option<u32> {
    if kind == ".pred" {
        return Some(1);
    }
    let digits = kind.strip_prefix('.')?.strip_prefix(['b', 'u', 's', 'f'])?;
    match digits {
        "8" => Some(8),
        "16" => Some(16),
        "32" => Some(32),
        "64" => Some(64),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = ".version 8.8\n.target sm_80\n.address_size 64\n";

    fn entry(body: &str) -> Result<Entry, ParseError> {
        let text = format!("{HEAD}.visible .entry k(\n.param .align 8 .b8 p[12],\n.param .u64 q)\n{body}");
        module(&text).map(|module| module.entries.into_iter().next().unwrap())
    }

    #[test]
    fn parameters_lie_at_their_alignment() {
        let entry = entry(".maxntid 512, 1, 1\n{ ret; }").unwrap();
        assert_eq!(entry.max_threads, Some(512));
        let offsets: Vec<_> = entry.parameters.iter().map(|p| (p.offset, p.bytes)).collect();
        assert_eq!(offsets, [(0, 12), (16, 8)]);
    }

    #[test]
    fn a_block_may_declare_a_name_anew() {
        let entry = entry("{ .reg .b32 %r<2>; { .reg .b32 %r1; neg.s32 %r1, %r0; } neg.s32 %r1, %r0; ret; }");
        let written: Vec<_> = entry
            .unwrap()
            .statements
            .iter()
            .filter_map(|statement| match &statement.kind {
                StatementKind::Instruction(found) => found.operands.first().cloned(),
                StatementKind::Label(_) => None,
            })
            .collect();
        assert_eq!(written, [Operand::Register(2), Operand::Register(1)]);
    }

    #[test]
    fn a_blocks_own_variables_are_the_modules_and_the_entrys() {
        let text =
            format!("{HEAD}.shared .align 4 .b8 a[6];\n.visible .entry k()\n{{ .shared .u32 b; ret; }}");
        let shared = module(&text).unwrap().entries.into_iter().next().unwrap().shared;
        let offsets: Vec<_> = shared.iter().map(|v| (v.name.as_str(), v.offset, v.bytes)).collect();
        assert_eq!(offsets, [("a", 0, 6), ("b", 8, 4)]);
    }

    #[test]
    fn addresses_guards_and_labels_are_read() {
        let entry = entry("{ .reg .pred %p<1>; .reg .b64 %d<1>;\nL: @!%p0 ld.u64 %d0, [%d0+-8]; }").unwrap();
        let StatementKind::Instruction(load) = &entry.statements[1].kind else { panic!("a load") };
        assert_eq!(load.guard, Some(Guard { predicate: 0, negated: true }));
        assert_eq!(load.operands[1], Operand::Address { base: Base::Register(1), offset: -8 });
        assert_eq!(entry.statements[1].line, 8);
    }

    #[test]
    fn what_is_not_known_is_an_error_with_its_line() {
        assert_eq!(entry("{\n.local .b32 x;\n}").unwrap_err().line, 8);
        assert_eq!(entry("{ ret\n}").unwrap_err().problem, "Punctuation('}') is no operand");
        assert_eq!(module(&format!("{HEAD}.func f")).unwrap_err().line, 4);
        assert!(entry("{ ret;").unwrap_err().problem.contains("ends here"));
    }
}
