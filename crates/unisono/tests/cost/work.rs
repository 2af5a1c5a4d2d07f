//! The work whose cost is counted: an operation of each kind, under parameters that make it take that way.

use unisono::{Algorithm, Communicator, Parameters, ReduceOp, Registered, RegisteredMemory};

use crate::formulas::{self, Case, Kind};

/// Parameters under which an operation of this kind takes this way at every size.
pub(crate) fn parameters(kind: Kind, world: usize) -> Parameters {
    let mut parameters = Parameters::for_world(world);
    parameters.algorithm = match kind {
        Kind::Packet => Some(Algorithm::Packet),
        Kind::Swap => Some(Algorithm::Swap),
        Kind::Migrate => Some(Algorithm::Migrate),
        Kind::Pipeline => Some(Algorithm::Pipeline),
        _ => None,
    };
    parameters.push_bytes = 0;
    parameters
}

/// A rank's buffers, made before anything is counted.
pub(crate) struct Buffers {
    input: Vec<f32>,
    output: Vec<f32>,
    registered: Option<Registered<f32>>,
}

impl Buffers {
    pub(crate) fn of(comm: &Communicator, case: Case) -> Self {
        let (input, output) = case.buffers();
        let floats = |bytes: usize| vec![1.0f32; bytes / 4];
        let registered =
            (case.kind == Kind::Push).then(|| comm.alloc(case.bytes / 4).expect("memory suffices"));
        Buffers { input: floats(input), output: floats(output), registered }
    }

    /// The registered memory, if this kind works on such, through a handle of its own.
    pub(crate) fn registered_memory(&self) -> Option<RegisteredMemory> {
        self.registered.as_ref().map(|registered| registered.memory().clone())
    }

    /// What a rank's own work leaves behind before the operation: its registered memory was written by itself.
    pub(crate) fn produce(&mut self) {
        if let Some(memory) = &mut self.registered {
            memory.fill(1.0).expect("memory is mapped");
        }
    }

    /// Carry the operation out.
    pub(crate) fn perform(&mut self, comm: &Communicator, kind: Kind) {
        let (input, output) = (&self.input, &mut self.output);
        let done = match kind {
            Kind::Packet | Kind::Swap | Kind::Migrate | Kind::Pipeline => {
                comm.all_reduce(output, ReduceOp::Sum)
            }
            Kind::Push => {
                let memory = self.registered.as_mut().expect("it was allocated");
                comm.all_reduce_registered(memory, ReduceOp::Sum)
            }
            Kind::AllGather => comm.all_gather(input, output),
            Kind::ReduceScatter => comm.reduce_scatter(input, output, ReduceOp::Sum),
            Kind::AllToAll => comm.all_to_all(input, output),
            Kind::Broadcast => comm.broadcast(output, formulas::ROOT),
            Kind::Barrier => comm.barrier(),
        };
        done.expect("all ranks take part");
    }
}
