//! Looks for the store fence in the machine code: no function returns with streamed stores open.
//!
//! The test disassembles its own executable and walks every path from each non-temporal store. A path may not
//! leave the function, by a return, a jump out of it or its end, before it has passed an SFENCE.
//! Elsewhere than on x86-64 the streaming copy is a plain one and there is nothing to look for.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]
#![allow(unsafe_code)]

use std::collections::{BTreeMap, HashMap, HashSet};
use std::process::Command;

/// One function: its instructions by address.
type Function = BTreeMap<u64, Instruction>;

#[derive(Debug, Clone, PartialEq, Eq)]
struct Instruction {
    mnemonic: String,
    operands: String,
}

impl Instruction {
    fn is_streamed_store(&self) -> bool {
        self.mnemonic.trim_start_matches('v').starts_with("movnt") && !self.mnemonic.contains("movntdqa")
    }

    /// The address that a direct jump leads to.
    fn target(&self) -> Option<u64> {
        u64::from_str_radix(self.operands.split_whitespace().next()?.trim_start_matches("0x"), 16).ok()
    }
}

/// Whether every path that begins behind `store` meets a fence before it leaves the function.
fn is_fenced(function: &Function, store: u64) -> bool {
    let mut seen = HashSet::new();
    let mut paths = vec![next(function, store)];
    while let Some(path) = paths.pop() {
        let Some(address) = path else { return false };
        if !seen.insert(address) {
            continue;
        }
        let Some(instruction) = function.get(&address) else { return false };
        let mnemonic = instruction.mnemonic.as_str();
        match mnemonic {
            "sfence" | "mfence" => {}
            // Never reached: the compiler puts it behind calls that do not return.
            "ud2" => {}
            _ if mnemonic.starts_with("ret") => return false,
            _ if mnemonic.starts_with("jmp") => paths.push(instruction.target()),
            _ if mnemonic.starts_with('j') => {
                paths.push(instruction.target());
                paths.push(next(function, address));
            }
            _ => paths.push(next(function, address)),
        }
    }
    true
}

fn next(function: &Function, address: u64) -> Option<u64> {
    function.range(address + 1..).next().map(|(&next, _)| next)
}

/// Reads what `objdump -d --no-show-raw-insn` prints.
fn functions(listing: &str) -> HashMap<String, Function> {
    let mut all: HashMap<String, Function> = HashMap::new();
    let mut name = String::new();
    for line in listing.lines() {
        if let Some((address, label)) = line.strip_suffix(">:").and_then(|head| head.split_once(" <")) {
            name = format!("{label} at {address}");
        } else if let Some((address, text)) = line.split_once(":\t")
            && let Ok(address) = u64::from_str_radix(address.trim(), 16)
        {
            let (mnemonic, operands) =
                text.trim().split_once(char::is_whitespace).unwrap_or((text.trim(), ""));
            let instruction =
                Instruction { mnemonic: mnemonic.to_owned(), operands: operands.trim().to_owned() };
            all.entry(name.clone()).or_default().insert(address, instruction);
        }
    }
    all
}

/// The names of the functions with a streamed store that is not fenced, and the number of streamed stores.
fn unfenced(listing: &str) -> (Vec<String>, usize) {
    let (mut names, mut stores) = (Vec::new(), 0);
    for (name, function) in functions(listing) {
        for (&address, instruction) in &function {
            if instruction.is_streamed_store() {
                stores += 1;
                if !is_fenced(&function, address) {
                    names.push(name.clone());
                }
            }
        }
    }
    (names, stores)
}

#[test]
fn no_function_returns_with_streamed_stores_open() {
    // The copy is used, so that it is part of the executable.
    let (mut to, from) = (vec![0_u8; 1000], vec![7_u8; 1000]);
    // SAFETY: two vectors of 1000 bytes.
    unsafe { unisono_kernels::copy_streaming(to.as_mut_ptr(), from.as_ptr(), 1000) };
    assert_eq!(to, from);

    let executable = std::env::current_exe().expect("a running test has an executable");
    let output = Command::new("objdump")
        .args(["--disassemble", "--no-show-raw-insn", "--demangle=rust"])
        .arg(executable)
        .output()
        .expect("objdump is needed to look for the fence: install binutils");
    assert!(output.status.success(), "objdump: {}", String::from_utf8_lossy(&output.stderr));
    let (names, stores) = unfenced(&String::from_utf8_lossy(&output.stdout));
    assert!(stores >= 3, "AVX2 streams a line with two stores and AVX-512 with one, found {stores}");
    assert!(names.is_empty(), "streamed stores are left open by {names:#?}");
}

#[test]
fn the_walk_finds_a_path_around_the_fence() {
    let fenced = "0000000000001000 <good>:\n\
        \x20   1000:\tvmovntdq %zmm0,(%rdi)\n\
        \x20   1006:\tjne    1000 <good>\n\
        \x20   1008:\tsfence\n\
        \x20   100b:\tret\n";
    assert_eq!(unfenced(fenced), (vec![], 1));
    let around = fenced.replace("jne    1000 <good>", "jne    100b <good+0xb>");
    assert_eq!(unfenced(&around).0.len(), 1);
    let out_of_the_function = fenced.replace("jne    1000 <good>", "jmp    2000 <other>");
    assert_eq!(unfenced(&out_of_the_function).0.len(), 1);
    let indirect = fenced.replace("jne    1000 <good>", "jmp    *%rax");
    assert_eq!(unfenced(&indirect).0.len(), 1);
    let missing = fenced.replace("sfence", "nop");
    assert_eq!(unfenced(&missing).0.len(), 1);
}
