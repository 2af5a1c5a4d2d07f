//! A module of PTX as it is written: entries, and in each its statements with their lines.
//!
//! Registers are resolved here (blocks in braces may declare names anew); opcodes are still words, which `decode` gives
//! a meaning.

/// A module: what a compiler writes into one file.
#[derive(Debug, Clone)]
pub(crate) struct Module {
    pub(crate) target: String,
    pub(crate) entries: Vec<Entry>,
}

/// A kernel.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) parameters: Vec<Parameter>,
    /// What each block has for itself.
    pub(crate) shared: Vec<Parameter>,
    /// From `.maxntid`: the product of the three.
    pub(crate) max_threads: Option<u32>,
    /// The widths of all registers, by number; 1 for predicates.
    pub(crate) registers: Vec<u32>,
    pub(crate) statements: Vec<Statement>,
}

/// A parameter, or a block's own variable, and where it lies in the row of all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Parameter {
    pub(crate) name: String,
    pub(crate) offset: usize,
    pub(crate) bytes: usize,
}

#[derive(Debug, Clone)]
pub(crate) struct Statement {
    pub(crate) line: u32,
    pub(crate) kind: StatementKind,
}

#[derive(Debug, Clone)]
pub(crate) enum StatementKind {
    Label(String),
    Instruction(Instruction),
}

/// `@guard opcode operands;`
#[derive(Debug, Clone)]
pub(crate) struct Instruction {
    pub(crate) guard: Option<Guard>,
    /// With its modifiers: `st.release.sys.global.u32`.
    pub(crate) opcode: String,
    pub(crate) operands: Vec<Operand>,
}

/// Under which condition an instruction is executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Guard {
    pub(crate) predicate: Register,
    pub(crate) negated: bool,
}

/// A register's number within its entry.
pub(crate) type Register = u16;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Operand {
    Register(Register),
    /// A negative number as its two's complement.
    Number(u64),
    /// A label, a parameter, a special register.
    Name(String),
    /// `{a, b, …}`
    Vector(Vec<Operand>),
    /// `[base + offset]`
    Address {
        base: Base,
        offset: i64,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Base {
    Register(Register),
    Name(String),
}
