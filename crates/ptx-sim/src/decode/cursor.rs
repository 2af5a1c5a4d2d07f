//! Taking an instruction apart from front to back: modifiers in the order in which the language has them, then operands.

use super::{Decoded, Decoder};
use crate::ast::{Base, Operand};
use crate::code::{Address, Meaning, Order, Register, Scope, Source, Space, Type};

impl<'a> Decoder<'a> {
    /// `.weak`, `.volatile`, `.relaxed.scope`, `.acquire.scope` of loads, `.release.scope` of stores; nothing is weak.
    pub(super) fn order(&mut self, is_load: bool) -> Decoded<Order> {
        let relaxed = |scope| Order::Strong { acquires: false, releases: false, scope };
        if self.eat("weak") {
            Ok(Order::Weak)
        } else if self.eat("volatile") {
            // Strong, at system scope, and orders nothing: like relaxed.
            Ok(relaxed(Scope::System))
        } else if self.eat("relaxed") {
            Ok(relaxed(self.scope()?))
        } else if is_load && self.eat("acquire") {
            Ok(Order::Strong { acquires: true, releases: false, scope: self.scope()? })
        } else if !is_load && self.eat("release") {
            Ok(Order::Strong { acquires: false, releases: true, scope: self.scope()? })
        } else {
            Ok(Order::Weak)
        }
    }

    pub(super) fn scope(&mut self) -> Decoded<Scope> {
        match self.modifier()? {
            "cta" => Ok(Scope::Block),
            "gpu" => Ok(Scope::Device),
            "sys" => Ok(Scope::System),
            other => Err(format!("the scope .{other} is not known here")),
        }
    }

    pub(super) fn space(&mut self, order: Order) -> Decoded<Space> {
        if order == Order::Weak && self.eat("param") {
            return Ok(Space::Parameters);
        }
        if order == Order::Weak && self.eat("shared") {
            return Ok(Space::Shared);
        }
        self.eat("global");
        Ok(Space::Global)
    }

    pub(super) fn count(&mut self) -> Option<usize> {
        if self.eat("v2") {
            Some(2)
        } else if self.eat("v4") {
            Some(4)
        } else {
            None
        }
    }

    pub(super) fn address(&mut self, space: Space) -> Decoded<Address> {
        let Operand::Address { base, offset } = self.operand()? else {
            return Err("an address in brackets was expected".into());
        };
        let offset = offset.cast_unsigned();
        match base {
            Base::Register(base) => Ok(Address { base: Some(*base), offset }),
            Base::Name(name) if space == Space::Parameters => {
                Ok(Address { base: None, offset: self.parameter(name)?.wrapping_add(offset) })
            }
            Base::Name(name) if space == Space::Shared => {
                let start = self.shared(name).ok_or_else(|| format!("`{name}` is not known"))?;
                Ok(Address { base: None, offset: start.wrapping_add(offset) })
            }
            Base::Name(name) => Err(format!("`{name}` is not known")),
        }
    }

    pub(super) fn kind_of(&mut self, meanings: &[Meaning], widths: &[u32]) -> Decoded<Type> {
        let kind = self.kind()?;
        let is_known = meanings.contains(&kind.meaning) && widths.contains(&kind.width);
        if is_known { Ok(kind) } else { Err("not known for this type".into()) }
    }

    pub(super) fn kind(&mut self) -> Decoded<Type> {
        let word = self.modifier()?;
        let (meaning, width) = match word {
            "pred" => (Meaning::Bits, 1),
            "bf16" => (Meaning::Brain, 16),
            _ => {
                let meaning = match word.as_bytes().first() {
                    Some(b'b') => Meaning::Bits,
                    Some(b'u') => Meaning::Unsigned,
                    Some(b's') => Meaning::Signed,
                    Some(b'f') => Meaning::Float,
                    _ => return Err(format!("`.{word}` is no type")),
                };
                match &word[1..] {
                    "8" if meaning != Meaning::Float => (meaning, 8),
                    "16" => (meaning, 16),
                    "32" => (meaning, 32),
                    "64" => (meaning, 64),
                    _ => return Err(format!("`.{word}` is no type")),
                }
            }
        };
        Ok(Type { meaning, width })
    }

    pub(super) fn modifier(&mut self) -> Decoded<&'a str> {
        self.modifiers.pop().ok_or_else(|| "a modifier is missing".into())
    }

    pub(super) fn eat(&mut self, wanted: &str) -> bool {
        let is_there = self.modifiers.last() == Some(&wanted);
        if is_there {
            self.modifiers.pop();
        }
        is_there
    }

    pub(super) fn expect(&mut self, wanted: &str) -> Decoded<()> {
        if self.eat(wanted) { Ok(()) } else { Err(format!(".{wanted} was expected")) }
    }

    pub(super) fn operand(&mut self) -> Decoded<&'a Operand> {
        self.operands.next().ok_or_else(|| "an operand is missing".into())
    }

    pub(super) fn register(&mut self) -> Decoded<Register> {
        register(self.operand()?)
    }

    pub(super) fn source(&mut self, kind: Type) -> Decoded<Source> {
        source(self.operand()?, kind)
    }
}

pub(super) fn register(operand: &Operand) -> Decoded<Register> {
    match operand {
        Operand::Register(number) => Ok(*number),
        other => Err(format!("a register was expected, not {other:?}")),
    }
}

pub(super) fn source(operand: &Operand, kind: Type) -> Decoded<Source> {
    match operand {
        Operand::Register(number) => Ok(Source::Register(*number)),
        Operand::Number(value) => Ok(Source::Constant(value & crate::value::mask(kind.width))),
        other => Err(format!("a register or a number was expected, not {other:?}")),
    }
}

pub(super) fn part_width(whole: Type, parts: usize) -> Decoded<u32> {
    match (whole.width, parts) {
        (32, 2) => Ok(16),
        (64, 2) => Ok(32),
        (64, 4) => Ok(16),
        _ => Err("so many parts make no such value".into()),
    }
}
