//! NVRTC, loaded when it is needed: from C++ for CUDA to PTX, without a driver.
//!
//! The invariant: what comes out depends on the sources, the options and the library alone; no header of the machine is used.

#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_char, c_int};
use std::path::Path;
use std::ptr;

use anyhow::{Context, Result, bail};
use libloading::{Library, Symbol};

/// A program that is being compiled; what it points to is NVRTC's own.
type Program = *mut std::ffi::c_void;

/// How the kernels are compiled. Contraction would change the sums.
pub(crate) const OPTIONS: [&str; 2] = ["--fmad=false", "--std=c++17"];

/// The loaded library.
#[derive(Debug)]
pub(crate) struct Nvrtc {
    library: Library,
    /// NVRTC looks for it by name, and finds it loaded.
    _builtins: Library,
}

/// A file that is included, or the one that is compiled.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    pub(crate) name: String,
    pub(crate) text: String,
}

impl Nvrtc {
    /// From the unpacked wheel.
    pub(crate) fn load(wheel: &Path) -> Result<Self> {
        let open = |name: &str| {
            let path = wheel.join("nvidia/cuda_nvrtc/lib").join(name);
            // SAFETY: the library is NVIDIA's, checked against a digest; its initialisers have no demands on us.
            unsafe { Library::new(&path) }.with_context(|| format!("loading {}", path.display()))
        };
        Ok(Self { _builtins: open("libnvrtc-builtins.so.12.9")?, library: open("libnvrtc.so.12")? })
    }

    /// The PTX of `main`, which may include the others, for devices of at least this compute capability, times ten.
    pub(crate) fn compile(&self, main: &Source, headers: &[Source], capability: u32) -> Result<String> {
        let text = |text: &str| CString::new(text).context("a source has a zero byte in it");
        let (name, source) = (text(&main.name)?, text(&main.text)?);
        let names = headers.iter().map(|header| text(&header.name)).collect::<Result<Vec<_>>>()?;
        let texts = headers.iter().map(|header| text(&header.text)).collect::<Result<Vec<_>>>()?;
        let architecture = format!("--gpu-architecture=compute_{capability}");
        let options = OPTIONS.iter().copied().chain([architecture.as_str()]);
        let options = options.map(text).collect::<Result<Vec<_>>>()?;
        let pointers = |all: &[CString]| all.iter().map(|one| one.as_ptr()).collect::<Vec<_>>();
        let (names, texts, options) = (pointers(&names), pointers(&texts), pointers(&options));
        let mut program: Program = ptr::null_mut();
        let count = c_int::try_from(headers.len()).context("too many headers")?;
        // SAFETY: the signature is nvrtcCreateProgram's; both arrays have `count` strings, which outlive the call.
        let created = unsafe {
            let create: Symbol<
                '_,
                unsafe extern "C" fn(
                    *mut Program,
                    *const c_char,
                    *const c_char,
                    c_int,
                    *const *const c_char,
                    *const *const c_char,
                ) -> c_int,
            > = self.library.get(b"nvrtcCreateProgram")?;
            create(&raw mut program, source.as_ptr(), name.as_ptr(), count, texts.as_ptr(), names.as_ptr())
        };
        if created != 0 {
            bail!("nvrtcCreateProgram: error {created}");
        }
        let compiled = self.compile_program(program, &options);
        let ptx = self.text(program, "nvrtcGetPTXSize", "nvrtcGetPTX");
        let log = self.text(program, "nvrtcGetProgramLogSize", "nvrtcGetProgramLog");
        // SAFETY: the signature is nvrtcDestroyProgram's; the program was created above and is not used after this.
        unsafe {
            let destroy: Symbol<'_, unsafe extern "C" fn(*mut Program) -> c_int> =
                self.library.get(b"nvrtcDestroyProgram")?;
            destroy(&raw mut program);
        }
        if let Err(problem) = compiled {
            bail!("{}: {problem:#}\n{}", main.name, log.unwrap_or_default());
        }
        ptx
    }

    fn compile_program(&self, program: Program, options: &[*const c_char]) -> Result<()> {
        let count = c_int::try_from(options.len()).context("too many options")?;
        // SAFETY: the signature is nvrtcCompileProgram's; the caller's program is valid and `count` options are there.
        let compiled = unsafe {
            let compile: Symbol<'_, unsafe extern "C" fn(Program, c_int, *const *const c_char) -> c_int> =
                self.library.get(b"nvrtcCompileProgram")?;
            compile(program, count, options.as_ptr())
        };
        if compiled == 0 { Ok(()) } else { bail!("nvrtcCompileProgram: error {compiled}") }
    }

    /// What one function gives the size of and another the text.
    fn text(&self, program: Program, size_of: &str, copy: &str) -> Result<String> {
        let mut bytes = 0_usize;
        // SAFETY: all of NVRTC's functions of this form have these two signatures; the buffer has as many bytes as it
        // asked for, the final zero included.
        let text = unsafe {
            let size_of: Symbol<'_, unsafe extern "C" fn(Program, *mut usize) -> c_int> =
                self.library.get(size_of.as_bytes())?;
            if size_of(program, &raw mut bytes) != 0 {
                bail!("NVRTC has no such text");
            }
            let copy: Symbol<'_, unsafe extern "C" fn(Program, *mut c_char) -> c_int> =
                self.library.get(copy.as_bytes())?;
            let mut text = vec![0_u8; bytes.max(1)];
            if copy(program, text.as_mut_ptr().cast()) != 0 {
                bail!("NVRTC has no such text");
            }
            text
        };
        let text = CStr::from_bytes_until_nul(&text).context("NVRTC's text has no end")?;
        Ok(text.to_str().context("NVRTC's text is no UTF-8")?.to_owned())
    }
}
