//! What opcodes mean: from a statement to an [`Operation`].
//!
//! The one rule: every modifier is looked at, in the order in which the language has them, and one that is left over or
//! not known is an error with its line. So nothing that a compiler may write is ever run as something else.

mod cursor;

use std::collections::HashMap;

use crate::ast::{self, Entry, Operand, StatementKind};
use crate::code::{
    Atomic, Barrier, Binary, Comparison, Instruction, Kernel, Meaning, Operation, Order, Register, Source,
    Space, Special, Type, Unary,
};
use crate::error::ParseError;
use cursor::{part_width, register, source};

/// Gives an entry's statements their meaning.
pub(crate) fn kernel(entry: Entry) -> Result<Kernel, ParseError> {
    let mut labels = HashMap::new();
    let mut position = 0;
    for statement in &entry.statements {
        match &statement.kind {
            StatementKind::Label(name) => {
                if labels.insert(name.as_str(), position).is_some() {
                    return Err(at(statement.line, format!("the label {name} is there twice")));
                }
            }
            StatementKind::Instruction(_) => position += 1,
        }
    }
    let mut code = Vec::with_capacity(position + 1);
    for statement in &entry.statements {
        if let StatementKind::Instruction(instruction) = &statement.kind {
            let (line, guard) = (statement.line, instruction.guard.map(|g| (g.predicate, !g.negated)));
            let operation = Decoder::new(&entry, &labels, instruction)
                .operation()
                .map_err(|problem| at(line, format!("`{}`: {problem}", instruction.opcode)))?;
            code.push(Instruction { line, guard, operation });
        }
    }
    let last = entry.statements.last().map_or(0, |statement| statement.line);
    code.push(Instruction { line: last, guard: None, operation: Operation::Return });
    let Entry { name, parameters, max_threads, registers, .. } = entry;
    Ok(Kernel { name, parameters, max_threads, registers: registers.len(), code })
}

fn at(line: u32, problem: String) -> ParseError {
    ParseError { line, problem }
}

type Decoded<T> = Result<T, String>;

/// One instruction: its modifiers and operands, taken from front to back.
struct Decoder<'a> {
    entry: &'a Entry,
    labels: &'a HashMap<&'a str, usize>,
    opcode: &'a str,
    modifiers: Vec<&'a str>,
    operands: std::slice::Iter<'a, Operand>,
}

impl<'a> Decoder<'a> {
    fn new(entry: &'a Entry, labels: &'a HashMap<&'a str, usize>, instruction: &'a ast::Instruction) -> Self {
        let mut words = instruction.opcode.split('.');
        let opcode = words.next().unwrap_or_default();
        // Kept backwards, so that the next one is at the end.
        let mut modifiers: Vec<_> = words.collect();
        modifiers.reverse();
        Self { entry, labels, opcode, modifiers, operands: instruction.operands.iter() }
    }

    fn operation(mut self) -> Decoded<Operation> {
        let operation = match self.opcode {
            "mov" => self.mov()?,
            "cvta" => self.cvta()?,
            "add" => self.add_or_subtract(Binary::Add)?,
            "sub" => self.add_or_subtract(Binary::Subtract)?,
            "mul" => self.multiply()?,
            "mad" => self.multiply_add()?,
            "fma" => self.fused()?,
            "and" => self.binary(Binary::And, &[Meaning::Bits])?,
            "or" => self.binary(Binary::Or, &[Meaning::Bits])?,
            "xor" => self.binary(Binary::Xor, &[Meaning::Bits])?,
            "shl" => self.binary(Binary::ShiftLeft, &[Meaning::Bits])?,
            "shr" => self.binary(Binary::ShiftRight, &[Meaning::Bits, Meaning::Unsigned, Meaning::Signed])?,
            "min" => self.binary(Binary::Minimum, &[Meaning::Unsigned, Meaning::Signed])?,
            "max" => self.binary(Binary::Maximum, &[Meaning::Unsigned, Meaning::Signed])?,
            "neg" => self.unary(Unary::Negate, Meaning::Signed)?,
            "not" => self.unary(Unary::Not, Meaning::Bits)?,
            "setp" => self.compare()?,
            "selp" => self.select()?,
            "bfi" => self.insert()?,
            "cvt" => self.convert()?,
            "ld" => self.load()?,
            "st" => self.store()?,
            "atom" => self.atomic()?,
            "bra" => self.branch()?,
            "bar" => self.barrier()?,
            "ret" => Operation::Return,
            _ => return Err("this opcode is not known".into()),
        };
        match (self.modifiers.pop(), self.operands.next()) {
            (None, None) => Ok(operation),
            (Some(modifier), _) => Err(format!("the modifier .{modifier} is not known here")),
            (None, Some(operand)) => Err(format!("the operand {operand:?} is one too many")),
        }
    }

    fn mov(&mut self) -> Decoded<Operation> {
        let kind = self.kind()?;
        match self.operand()? {
            Operand::Vector(parts) => {
                let to = parts.iter().map(register).collect::<Decoded<Vec<_>>>()?;
                Ok(Operation::Unpack { width: part_width(kind, to.len())?, to, from: self.source(kind)? })
            }
            to => {
                let to = register(to)?;
                match self.operand()? {
                    Operand::Vector(parts) => {
                        let width = part_width(kind, parts.len())?;
                        let part = Type { meaning: kind.meaning, width };
                        let from = parts.iter().map(|p| source(p, part)).collect::<Decoded<Vec<_>>>()?;
                        Ok(Operation::Pack { to, from, width })
                    }
                    Operand::Name(name) => self.name(to, name),
                    from => Ok(Operation::Move { to, from: source(from, kind)?, width: kind.width }),
                }
            }
        }
    }

    /// A special register, or a parameter's address.
    fn name(&self, to: Register, name: &str) -> Decoded<Operation> {
        let what = match name {
            "%tid.x" => Special::Thread,
            "%ctaid.x" => Special::Block,
            "%ntid.x" => Special::Threads,
            "%nctaid.x" => Special::Blocks,
            "%tid.y" | "%tid.z" | "%ctaid.y" | "%ctaid.z" => Special::Zero,
            "%ntid.y" | "%ntid.z" | "%nctaid.y" | "%nctaid.z" => Special::One,
            "%globaltimer" => Special::Time,
            _ => {
                let from = Source::Constant(self.parameter(name)?);
                return Ok(Operation::Move { to, from, width: 64 });
            }
        };
        Ok(Operation::Special { to, what })
    }

    fn parameter(&self, name: &str) -> Decoded<u64> {
        let found = self.entry.parameters.iter().find(|parameter| parameter.name == name);
        found.map(|parameter| parameter.offset as u64).ok_or_else(|| format!("`{name}` is not known"))
    }

    /// Generic and global addresses are the same here.
    fn cvta(&mut self) -> Decoded<Operation> {
        self.eat("to");
        self.expect("global")?;
        self.expect("u64")?;
        let kind = Type { meaning: Meaning::Unsigned, width: 64 };
        Ok(Operation::Move { to: self.register()?, from: self.source(kind)?, width: 64 })
    }

    fn add_or_subtract(&mut self, what: Binary) -> Decoded<Operation> {
        if self.eat("rn") || self.modifiers.first() == Some(&"f32") {
            return self.binary(what, &[Meaning::Float]);
        }
        self.binary(what, &[Meaning::Unsigned, Meaning::Signed])
    }

    fn multiply(&mut self) -> Decoded<Operation> {
        if self.eat("lo") {
            return self.binary(Binary::Multiply, &[Meaning::Unsigned, Meaning::Signed]);
        }
        if self.eat("hi") {
            return self.binary(Binary::MultiplyHigh, &[Meaning::Unsigned, Meaning::Signed]);
        }
        if self.eat("wide") {
            let kind = self.kind_of(&[Meaning::Unsigned, Meaning::Signed], &[16, 32])?;
            let (to, left, right) = (self.register()?, self.source(kind)?, self.source(kind)?);
            return Ok(Operation::MultiplyWide { kind, to, left, right });
        }
        self.eat("rn");
        self.binary(Binary::Multiply, &[Meaning::Float])
    }

    fn multiply_add(&mut self) -> Decoded<Operation> {
        self.expect("lo")?;
        let kind = self.kind_of(&[Meaning::Unsigned, Meaning::Signed], &[16, 32, 64])?;
        self.three(kind)
    }

    fn fused(&mut self) -> Decoded<Operation> {
        self.expect("rn")?;
        let kind = self.kind_of(&[Meaning::Float], &[32])?;
        self.three(kind)
    }

    fn three(&mut self, kind: Type) -> Decoded<Operation> {
        let (to, left, right) = (self.register()?, self.source(kind)?, self.source(kind)?);
        Ok(Operation::MultiplyAdd { kind, to, left, right, more: self.source(kind)? })
    }

    fn binary(&mut self, what: Binary, meanings: &[Meaning]) -> Decoded<Operation> {
        let widths: &[u32] = match meanings {
            [Meaning::Float] => &[32],
            [Meaning::Bits] => &[1, 16, 32, 64],
            _ => &[16, 32, 64],
        };
        let kind = self.kind_of(meanings, widths)?;
        let (to, left) = (self.register()?, self.source(kind)?);
        // How far to shift is an u32, whatever is shifted.
        let is_shift = matches!(what, Binary::ShiftLeft | Binary::ShiftRight);
        let right =
            self.source(if is_shift { Type { meaning: Meaning::Unsigned, width: 32 } } else { kind })?;
        Ok(Operation::Binary { what, kind, to, left, right })
    }

    fn unary(&mut self, what: Unary, meaning: Meaning) -> Decoded<Operation> {
        let kind = self.kind_of(&[meaning], &[1, 16, 32, 64])?;
        Ok(Operation::Unary { what, kind, to: self.register()?, from: self.source(kind)? })
    }

    fn compare(&mut self) -> Decoded<Operation> {
        let word = self.modifier()?;
        let kind = self.kind()?;
        let is_float = kind.meaning == Meaning::Float;
        let what = match word {
            "eq" => Comparison::Equal,
            // Of floats `ne` is false where one is a NaN, unlike `!=`.
            "ne" if !is_float => Comparison::NotEqual,
            "lt" => Comparison::Less,
            "le" => Comparison::LessOrEqual,
            "gt" => Comparison::Greater,
            "ge" => Comparison::GreaterOrEqual,
            "num" if is_float => Comparison::Numbers,
            "nan" if is_float => Comparison::NotNumbers,
            _ => return Err(format!("the comparison .{word} is not known here")),
        };
        if kind.meaning == Meaning::Brain || (is_float && kind.width != 32) {
            return Err("this type cannot be compared".into());
        }
        Ok(Operation::Compare {
            what,
            kind,
            to: self.register()?,
            left: self.source(kind)?,
            right: self.source(kind)?,
        })
    }

    fn insert(&mut self) -> Decoded<Operation> {
        let kind = self.kind_of(&[Meaning::Bits], &[32, 64])?;
        let number = Type { meaning: Meaning::Unsigned, width: 32 };
        Ok(Operation::Insert {
            width: kind.width,
            to: self.register()?,
            from: self.source(kind)?,
            into: self.source(kind)?,
            position: self.source(number)?,
            length: self.source(number)?,
        })
    }

    fn select(&mut self) -> Decoded<Operation> {
        let kind = self.kind()?;
        Ok(Operation::Select {
            width: kind.width,
            to: self.register()?,
            left: self.source(kind)?,
            right: self.source(kind)?,
            predicate: self.register()?,
        })
    }

    fn convert(&mut self) -> Decoded<Operation> {
        let rounds = self.eat("rn");
        let (into, of) = (self.kind()?, self.kind()?);
        let is_integer = |kind: Type| matches!(kind.meaning, Meaning::Unsigned | Meaning::Signed);
        let is_f32 = |kind: Type| kind.meaning == Meaning::Float && kind.width == 32;
        let is_half =
            |kind: Type| kind.width == 16 && matches!(kind.meaning, Meaning::Float | Meaning::Brain);
        let is_known = if rounds {
            is_half(into) && is_f32(of)
        } else {
            (is_integer(into) && is_integer(of)) || (is_f32(into) && is_half(of))
        };
        if !is_known {
            return Err("this conversion is not known".into());
        }
        Ok(Operation::Convert { to: self.register()?, into, from: self.source(of)?, of })
    }

    fn load(&mut self) -> Decoded<Operation> {
        let order = self.order(true)?;
        let space = self.space(order)?;
        let count = self.count();
        let kind = self.kind()?;
        let to = match (self.operand()?, count) {
            (Operand::Vector(parts), Some(count)) if parts.len() == count => {
                parts.iter().map(register).collect::<Decoded<Vec<_>>>()?
            }
            (to, None) => vec![register(to)?],
            _ => return Err("as many registers as the vector has parts".into()),
        };
        Ok(Operation::Load { to, space, width: kind.width, order, address: self.address(space)? })
    }

    fn store(&mut self) -> Decoded<Operation> {
        let order = self.order(false)?;
        let space = self.space(order)?;
        if space == Space::Parameters {
            return Err("parameters cannot be written".into());
        }
        let count = self.count();
        let kind = self.kind()?;
        let address = self.address(space)?;
        let from = match (self.operand()?, count) {
            (Operand::Vector(parts), Some(count)) if parts.len() == count => {
                parts.iter().map(|part| source(part, kind)).collect::<Decoded<Vec<_>>>()?
            }
            (from, None) => vec![source(from, kind)?],
            _ => return Err("as many values as the vector has parts".into()),
        };
        Ok(Operation::Store { from, space, width: kind.width, order, address })
    }

    fn atomic(&mut self) -> Decoded<Operation> {
        let (acquires, releases) = match self.modifier()? {
            "relaxed" => (false, false),
            "acquire" => (true, false),
            "release" => (false, true),
            "acq_rel" => (true, true),
            other => return Err(format!("the order .{other} is not known here")),
        };
        let order = Order::Strong { acquires, releases, scope: self.scope()? };
        self.eat("global");
        let (what, operands, meanings): (_, _, &[Meaning]) = match self.modifier()? {
            "cas" => (Atomic::CompareAndSwap, 2, &[Meaning::Bits]),
            "exch" => (Atomic::Exchange, 1, &[Meaning::Bits]),
            "add" => (Atomic::Add, 1, &[Meaning::Unsigned]),
            other => return Err(format!("the operation .{other} is not known here")),
        };
        let kind = self.kind_of(meanings, &[32, 64])?;
        let (to, address) = (self.register()?, self.address(Space::Global)?);
        let operands = (0..operands).map(|_| self.source(kind)).collect::<Decoded<Vec<_>>>()?;
        Ok(Operation::Atomic { what, to, kind, order, address, operands })
    }

    fn branch(&mut self) -> Decoded<Operation> {
        self.eat("uni");
        match self.operand()? {
            Operand::Name(name) => {
                let target = self.labels.get(name.as_str()).copied();
                Ok(Operation::Branch { target: target.ok_or_else(|| format!("there is no label {name}"))? })
            }
            other => Err(format!("{other:?} is no label")),
        }
    }

    fn barrier(&mut self) -> Decoded<Operation> {
        let barrier = match self.modifier()? {
            "sync" => Barrier::Sync,
            "red" => {
                self.expect("or")?;
                self.expect("pred")?;
                Barrier::Any { to: self.register()?, predicate: 0, negated: false }
            }
            other => return Err(format!("the barrier .{other} is not known")),
        };
        if self.operand()? != &Operand::Number(0) {
            return Err("only barrier 0 is known".into());
        }
        Ok(Operation::Barrier(match barrier {
            Barrier::Any { to, negated, .. } => Barrier::Any { to, predicate: self.register()?, negated },
            Barrier::Sync => Barrier::Sync,
        }))
    }
}
