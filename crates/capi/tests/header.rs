//! The header that is checked in is the one that the sources give.
//!
//! `cargo xtask header` writes it; this says when that was forgotten. Which functions there are is seen here, too: each of them
//! begins with the library's name.

use std::path::Path;

const WRITE: &str = "UNISONO_WRITE_HEADER";

fn made() -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let config =
        cbindgen::Config::from_file(folder.join("cbindgen.toml")).expect("cbindgen.toml is understood");
    let builder = cbindgen::Builder::new().with_config(config).with_crate(folder);
    let bindings = builder.generate().expect("cbindgen understands the sources");
    let mut text = Vec::new();
    bindings.write(&mut text);
    String::from_utf8(text).expect("a header is text")
}

#[test]
fn the_header_is_that_of_the_sources() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("include/unisono.h");
    let made = made();
    if std::env::var_os(WRITE).is_some() {
        std::fs::write(&path, &made).expect("the header can be written");
    }
    let found = std::fs::read_to_string(&path).expect("the header is there");
    let differs = made.lines().zip(found.lines()).find(|(made, found)| made != found);
    assert!(
        made == found,
        "include/unisono.h is not that of src/: run `cargo xtask header`; first difference: {differs:?}"
    );
}

#[test]
fn every_function_of_the_header_bears_the_librarys_name() {
    let made = made();
    let functions: Vec<&str> = made
        .lines()
        .filter(|line| {
            !line.starts_with([' ', '/', '#', '}']) && line.contains('(') && !line.starts_with("typedef")
        })
        .filter_map(|line| line.split('(').next()?.split([' ', '*']).next_back())
        .collect();
    assert!(functions.len() > 60, "{functions:?}");
    let others: Vec<_> = functions.iter().filter(|name| !name.starts_with("unisono_")).collect();
    assert!(others.is_empty(), "{others:?}");
}
