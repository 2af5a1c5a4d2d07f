//! A kernel as it is executed: a row of decoded instructions over numbered registers.
//!
//! A register holds 64 bits, those above its width zero; what an instruction makes of them its type says.

use crate::ast::Parameter;

/// A register's number.
pub(crate) type Register = u16;

/// A kernel, ready to run.
#[derive(Debug, Clone)]
pub struct Kernel {
    pub(crate) name: String,
    pub(crate) parameters: Vec<Parameter>,
    pub(crate) max_threads: Option<u32>,
    pub(crate) registers: usize,
    pub(crate) code: Vec<Instruction>,
}

impl Kernel {
    /// What the module calls it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Bytes of all its parameters, laid out one after the other at their alignments.
    pub fn parameter_bytes(&self) -> usize {
        self.parameters.last().map_or(0, |last| last.offset + last.bytes)
    }
}

/// One instruction, under its guard.
#[derive(Debug, Clone)]
pub(crate) struct Instruction {
    pub(crate) line: u32,
    /// A predicate, and the value it must have.
    pub(crate) guard: Option<(Register, bool)>,
    pub(crate) operation: Operation,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Operation {
    Move {
        to: Register,
        from: Source,
        width: u32,
    },
    /// Several narrow values into one wide register, the first lowest.
    Pack {
        to: Register,
        from: Vec<Source>,
        width: u32,
    },
    /// One wide value into several narrow registers.
    Unpack {
        to: Vec<Register>,
        from: Source,
        width: u32,
    },
    Special {
        to: Register,
        what: Special,
    },
    Unary {
        what: Unary,
        kind: Type,
        to: Register,
        from: Source,
    },
    Binary {
        what: Binary,
        kind: Type,
        to: Register,
        left: Source,
        right: Source,
    },
    /// The product of two narrow values, twice as wide.
    MultiplyWide {
        kind: Type,
        to: Register,
        left: Source,
        right: Source,
    },
    /// Integers: the low half of the product, plus a third. f32: fused, rounded once.
    MultiplyAdd {
        kind: Type,
        to: Register,
        left: Source,
        right: Source,
        more: Source,
    },
    Compare {
        what: Comparison,
        kind: Type,
        to: Register,
        left: Source,
        right: Source,
    },
    Select {
        to: Register,
        width: u32,
        left: Source,
        right: Source,
        predicate: Register,
    },
    /// `into` with `length` of its bits, from `position` on, replaced by the lowest of `from`.
    Insert {
        width: u32,
        to: Register,
        from: Source,
        into: Source,
        position: Source,
        length: Source,
    },
    Convert {
        to: Register,
        into: Type,
        from: Source,
        of: Type,
    },
    Load {
        to: Vec<Register>,
        space: Space,
        width: u32,
        order: Order,
        address: Address,
    },
    Store {
        from: Vec<Source>,
        space: Space,
        width: u32,
        order: Order,
        address: Address,
    },
    Atomic {
        what: Atomic,
        to: Register,
        kind: Type,
        order: Order,
        address: Address,
        operands: Vec<Source>,
    },
    Branch {
        target: usize,
    },
    Barrier(Barrier),
    Return,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    Register(Register),
    Constant(u64),
}

/// `base + offset`; without a base, the offset alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) base: Option<Register>,
    pub(crate) offset: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Space {
    Parameters,
    /// Device memory, also where an address names no space.
    Global,
}

/// What a type's bits mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Meaning {
    Bits,
    Unsigned,
    Signed,
    Float,
    /// bf16
    Brain,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Type {
    pub(crate) meaning: Meaning,
    pub(crate) width: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Special {
    Thread,
    Block,
    Threads,
    Blocks,
    /// `%tid.y` and the like: launches have one dimension.
    Zero,
    One,
    /// Nanoseconds.
    Time,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unary {
    Negate,
    Not,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Binary {
    Add,
    Subtract,
    Multiply,
    MultiplyHigh,
    And,
    Or,
    Xor,
    ShiftLeft,
    ShiftRight,
    Minimum,
    Maximum,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    /// Neither is a NaN.
    Numbers,
    /// One at least is a NaN.
    NotNumbers,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Atomic {
    CompareAndSwap,
    Exchange,
    Add,
}

/// How an access orders others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// Data: another access to the same memory must be ordered by something else.
    Weak,
    /// A flag.
    Strong { acquires: bool, releases: bool, scope: Scope },
}

/// Who an ordering holds for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Scope {
    Block,
    Device,
    System,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Barrier {
    Sync,
    /// And tells all whether any thread's predicate holds.
    Any {
        to: Register,
        predicate: Register,
        negated: bool,
    },
}
