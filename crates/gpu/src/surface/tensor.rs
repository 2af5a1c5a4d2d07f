//! A tensor, as far as an all-reduce looks at it.

use crate::driver::Driver;
use crate::dtype::DType;
use crate::error::Error;

/// Where a tensor lies and what is in it.
///
/// # Invariant
///
/// Who makes one vouches for the memory: it is there as long as what is put on the stream uses it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tensor {
    /// The first element's address.
    pub address: u64,
    /// How many elements.
    pub elements: usize,
    /// Bytes of an element.
    pub element_bytes: usize,
    /// What they are; `None` for what is not reduced.
    pub dtype: Option<DType>,
    /// Whether one element follows the other.
    pub is_contiguous: bool,
    /// Bytes from the first element to the end of the storage.
    pub storage_bytes: usize,
}

impl Tensor {
    /// Bytes of all elements.
    pub fn bytes(&self) -> usize {
        self.elements * self.element_bytes
    }

    /// Whether the elements fill a range without gaps, in whatever order: what a reduction needs.
    pub fn is_weakly_contiguous(&self) -> bool {
        self.is_contiguous || self.storage_bytes == self.bytes()
    }

    /// Tells the device of the memory; whether it is there no longer than the caller's call.
    #[allow(unsafe_code, reason = "the vouching of whoever made the tensor")]
    pub(super) fn lend<D: Driver>(&self, device: &D) -> Result<bool, Error> {
        // SAFETY: by the invariant.
        unsafe { device.lend(self.address, self.bytes()) }
    }
}

/// Input and output of an all-reduce: of one type, one length, without gaps.
pub(super) fn check_pair(input: &Tensor, output: &Tensor) -> Result<DType, Error> {
    let problem = |problem: String| Err(Error::Tensor { problem });
    if input.dtype != output.dtype || input.element_bytes != output.element_bytes {
        return problem(format!(
            "input and output are of different types: {:?} and {:?}",
            input.dtype, output.dtype
        ));
    }
    if input.elements != output.elements {
        let (input, output) = (input.elements, output.elements);
        return problem(format!("the input has {input} elements, the output {output}"));
    }
    for (tensor, name) in [(input, "input"), (output, "output")] {
        if !tensor.is_weakly_contiguous() {
            return problem(format!("the {name}'s elements do not lie in a row; make it contiguous"));
        }
    }
    match input.dtype {
        Some(dtype) => Ok(dtype),
        None => problem("only float32, float16 and bfloat16 are reduced".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(elements: usize) -> Tensor {
        let bytes = 2 * elements;
        Tensor {
            address: 0x1000,
            elements,
            element_bytes: 2,
            dtype: Some(DType::F16),
            is_contiguous: true,
            storage_bytes: bytes,
        }
    }

    #[test]
    fn input_and_output_go_together() {
        assert_eq!(check_pair(&tensor(5), &tensor(5)), Ok(DType::F16));
        let refused = |input: &Tensor, output: &Tensor| check_pair(input, output).unwrap_err().to_string();
        assert!(refused(&tensor(5), &tensor(6)).contains("5 elements, the output 6"));
        let other = Tensor { dtype: Some(DType::BF16), ..tensor(5) };
        assert!(refused(&tensor(5), &other).contains("F16) and Some(BF16"));
        let none = Tensor { dtype: None, ..tensor(5) };
        assert!(refused(&none, &none).contains("only float32"));
        let gaps = Tensor { is_contiguous: false, storage_bytes: 16, ..tensor(5) };
        assert!(refused(&gaps, &tensor(5)).contains("the input's elements"));
        let turned = Tensor { is_contiguous: false, ..tensor(5) };
        assert_eq!(check_pair(&turned, &turned), Ok(DType::F16), "the whole storage, in another order");
    }
}
