//! torch's C functions, found once in the library that the process has loaded.
//!
//! Their names and types are those of torch's header `torch/csrc/inductor/aoti_torch/c/shim.h`, which promises not to change
//! them. Each gives 0, or another number after it has caught whatever was thrown.

#![allow(unsafe_code)]

use std::ffi::{c_char, c_int, c_void};
use std::sync::OnceLock;

use libloading::os::unix::{Library, RTLD_LAZY};
use unisono::DType;

use super::kernel::Boxed;
use crate::element::Element;

/// What torch calls a tensor of its own in C.
pub(super) type RawTensor = *mut c_void;
/// A library of operators.
pub(super) type RawLibrary = *mut c_void;
/// 0 is success.
pub(super) type Status = i32;

/// The library that has all of them.
const HOME: &str = "libtorch_cpu.so";
/// Linux's flag to `dlopen`: only if it is there already.
const ONLY_IF_LOADED: c_int = 4;

/// `std::__throw_runtime_error(const char*)` of the C++ library that torch is linked with: the message is copied, and thrown.
const THROW: &str = "_ZSt21__throw_runtime_errorPKc";

/// A function that ends by throwing a C++ exception.
pub(super) type Throw = unsafe extern "C-unwind" fn(*const c_char) -> !;
type OfTensor<T> = unsafe extern "C" fn(RawTensor, *mut T) -> Status;
type Code = unsafe extern "C" fn() -> i32;

pub(super) struct Functions {
    pub(super) open_fragment:
        unsafe extern "C" fn(*const c_char, *const c_char, u32, *mut RawLibrary) -> Status,
    pub(super) open_implementation:
        unsafe extern "C" fn(*const c_char, *const c_char, *const c_char, u32, *mut RawLibrary) -> Status,
    pub(super) define: unsafe extern "C" fn(RawLibrary, *const c_char) -> Status,
    pub(super) implement: unsafe extern "C" fn(RawLibrary, *const c_char, Boxed) -> Status,
    pub(super) delete_tensor: unsafe extern "C" fn(RawTensor) -> Status,
    pub(super) data: OfTensor<*mut c_void>,
    pub(super) count: OfTensor<i64>,
    pub(super) rank: OfTensor<i64>,
    pub(super) sizes: OfTensor<*mut i64>,
    pub(super) strides: OfTensor<*mut i64>,
    pub(super) dtype: OfTensor<i32>,
    pub(super) device: OfTensor<i32>,
    /// From torch 2.8 on.
    pub(super) is_contiguous: Option<OfTensor<bool>>,
    pub(super) new_empty:
        unsafe extern "C" fn(i64, *const i64, *const i64, i32, i32, i32, *mut RawTensor) -> Status,
    pub(super) throw: Throw,
    /// Whether this thread holds the interpreter's lock.
    pub(super) holds_interpreter: unsafe extern "C" fn() -> c_int,
    pub(super) cpu: i32,
    /// The types of elements by torch's codes for them.
    elements: [Option<Element>; 64],
}

impl Functions {
    /// Those of the torch in this process, or what is missing.
    pub(super) fn get() -> Result<&'static Functions, String> {
        static FOUND: OnceLock<Functions> = OnceLock::new();
        if let Some(found) = FOUND.get() {
            return Ok(found);
        }
        // Not found is not remembered: torch may be imported later.
        let found = Self::find()?;
        Ok(FOUND.get_or_init(|| found))
    }

    fn find() -> Result<Functions, String> {
        // SAFETY: the library is in the process already, so that no code of its beginning is run.
        let torch = unsafe { Library::open(Some(HOME), RTLD_LAZY | ONLY_IF_LOADED) };
        let torch = torch.map_err(|_| format!("{HOME} is not in this process: import torch first"))?;
        let process = Library::this();
        // SAFETY: each type is that of the function with this name in torch's header, in Python's, or in the C++ library's.
        let functions = unsafe {
            Functions {
                open_fragment: found(&torch, "aoti_torch_library_init_fragment")?,
                open_implementation: found(&torch, "aoti_torch_library_init_impl")?,
                define: found(&torch, "aoti_torch_library_def")?,
                implement: found(&torch, "aoti_torch_library_impl")?,
                delete_tensor: found(&torch, "aoti_torch_delete_tensor_object")?,
                data: found(&torch, "aoti_torch_get_data_ptr")?,
                count: found(&torch, "aoti_torch_get_numel")?,
                rank: found(&torch, "aoti_torch_get_dim")?,
                sizes: found(&torch, "aoti_torch_get_sizes")?,
                strides: found(&torch, "aoti_torch_get_strides")?,
                dtype: found(&torch, "aoti_torch_get_dtype")?,
                device: found(&torch, "aoti_torch_get_device_type")?,
                is_contiguous: found(&torch, "aoti_torch_is_contiguous").ok(),
                new_empty: found(&torch, "aoti_torch_empty_strided")?,
                throw: found(&torch, THROW)?,
                holds_interpreter: found(&process, "PyGILState_Check")?,
                cpu: found::<Code>(&torch, "aoti_torch_device_type_cpu")?(),
                elements: elements(&torch),
            }
        };
        // What was found stays where it is as long as the process lives.
        std::mem::forget(torch);
        Ok(functions)
    }

    /// The type that torch has this code for, if it can be moved.
    #[inline]
    pub(super) fn element(&self, code: i32) -> Option<Element> {
        usize::try_from(code).ok().and_then(|code| self.elements.get(code).copied().flatten())
    }
}

/// # Safety
/// `T` is the type of the function with this name.
unsafe fn found<T: Copy>(library: &Library, name: &str) -> Result<T, String> {
    // SAFETY: the caller's word.
    let function = unsafe { library.get::<T>(name.as_bytes()) };
    function
        .map(|function| *function)
        .map_err(|_| format!("this torch has no {name}: torch 2.7 and later have"))
}

/// torch's codes are asked for, as its header advises.
fn elements(torch: &Library) -> [Option<Element>; 64] {
    const NAMED: [(&str, Element); 20] = [
        ("uint8", Element::Plain(DType::U8)),
        ("int8", Element::Plain(DType::I8)),
        ("int16", Element::Plain(DType::I16)),
        ("int32", Element::Plain(DType::I32)),
        ("int64", Element::Plain(DType::I64)),
        ("uint16", Element::Plain(DType::U16)),
        ("uint32", Element::Plain(DType::U32)),
        ("uint64", Element::Plain(DType::U64)),
        ("float16", Element::Plain(DType::F16)),
        ("bfloat16", Element::Plain(DType::BF16)),
        ("float32", Element::Plain(DType::F32)),
        ("float64", Element::Plain(DType::F64)),
        ("bool", Element::Bool),
        ("complex64", Element::Complex(DType::F32)),
        ("complex128", Element::Complex(DType::F64)),
        ("float8_e5m2", Element::Opaque),
        ("float8_e4m3fn", Element::Opaque),
        ("float8_e5m2fnuz", Element::Opaque),
        ("float8_e4m3fnuz", Element::Opaque),
        ("float8_e8m0fnu", Element::Opaque),
    ];
    let mut elements = [None; 64];
    for (name, element) in NAMED {
        // SAFETY: all functions with such names have this type.
        let code = unsafe { found::<Code>(torch, &format!("aoti_torch_dtype_{name}")).map(|code| code()) };
        let code = code.ok().and_then(|code| usize::try_from(code).ok());
        if let Some(slot) = code.and_then(|code| elements.get_mut(code)) {
            *slot = Some(element);
        }
    }
    elements
}
