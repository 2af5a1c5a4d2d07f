//! Programs in C and C++ against the header and the shared library, as a user builds them: compiled with every warning an error,
//! run, and looked at by the compiler's own checks for memory and undefined behaviour.
//!
//! A machine without a compiler fails these tests, and says so.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

/// What each test program says at its end.
const DONE: &str = "all as it should be";

const STRICT: [&str; 4] = ["-Wall", "-Wextra", "-Werror", "-pedantic"];
/// Objects that are not freed, memory that is used after it was, and what C leaves undefined.
const CHECKED: [&str; 3] = ["-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"];

fn here() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The shared library, built as a user builds it, without what tests of the workspace switch on.
fn library() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = Command::new(cargo);
        command.args([
            "build",
            "--package",
            "unisono-capi",
            "--lib",
            "--message-format",
            "json-render-diagnostics",
        ]);
        let built = command.current_dir(here()).stderr(Stdio::inherit()).output().expect("cargo starts");
        assert!(built.status.success(), "the library is built");
        let messages = String::from_utf8(built.stdout).expect("cargo's messages are text");
        let shared = messages
            .lines()
            .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
            .filter(|message| message["reason"] == "compiler-artifact")
            .filter_map(|artifact| artifact["filenames"].as_array().cloned())
            .flatten()
            .filter_map(|file| file.as_str().map(PathBuf::from))
            .find(|file| file.file_name().is_some_and(|name| name == "libunisono.so"));
        shared.expect("cargo names libunisono.so among what it built")
    })
}

/// A program of one source, in a folder of this test's own.
fn program(compiler: &str, standard: &str, source: &Path, flags: &[&str]) -> PathBuf {
    let library = library().parent().expect("the library lies in a folder");
    let kind = if flags.is_empty() { "plain" } else { "checked" };
    let name = source.file_name().and_then(|name| name.to_str()).expect("a source has a name");
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let program = folder.join(format!("{name}.{kind}"));
    let mut command = Command::new(compiler);
    command.arg(standard).args(STRICT).args(flags).arg("-I").arg(here().join("include")).arg(source);
    command.arg("-o").arg(&program).arg("-L").arg(library).args(["-lunisono", "-pthread"]);
    command.arg(format!("-Wl,-rpath,{}", library.display()));
    let compiled = command.output().unwrap_or_else(|error| {
        panic!("no {compiler}: {error}; these tests need a C and a C++ compiler: apt-get install gcc g++")
    });
    assert!(compiled.status.success(), "{command:?}\n{}", String::from_utf8_lossy(&compiled.stderr));
    program
}

/// One of this folder's programs, with the compiler's checks.
fn checked(name: &str) -> PathBuf {
    program("cc", "-std=gnu11", &here().join("tests/c").join(name), &CHECKED)
}

fn example(name: &str) -> PathBuf {
    here().join("../../examples/c").join(name)
}

/// A command without what the surroundings say of ranks.
fn command(program: &Path) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("UNISONO_")) {
            command.env_remove(name);
        }
    }
    command
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Run a program to its end.
fn run(program: &Path) -> String {
    let output = command(program).output().expect("the program starts");
    assert!(output.status.success(), "{}: {}\n{}", program.display(), output.status, text(&output));
    text(&output)
}

/// Run a program as two ranks, and give the ends of both.
fn run_ranks(program: &Path, argument: Option<&str>) -> [Output; 2] {
    // A meeting of its own: tests run side by side.
    let meeting = format!("{}-{}-{}", std::process::id(), program.display(), argument.unwrap_or_default());
    [0, 1]
        .map(|rank| {
            let mut command = command(program);
            command.args(argument).env("RANK", rank.to_string()).env("WORLD_SIZE", "2");
            command.env("LOCAL_WORLD_SIZE", "2").env("MASTER_ADDR", "127.0.0.1").env("MASTER_PORT", "29511");
            command.env("UNISONO_RUN_ID", &meeting).env("UNISONO_RENDEZVOUS_TIMEOUT", "60");
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts")
        })
        .map(|child| child.wait_with_output().expect("the program ends"))
}

fn both_end_well(program: &Path, argument: Option<&str>) -> [String; 2] {
    run_ranks(program, argument).map(|output| {
        assert!(output.status.success(), "{argument:?}: {}\n{}", output.status, text(&output));
        text(&output)
    })
}

#[test]
fn the_example_in_c_adds_up_on_two_ranks() {
    let said = both_end_well(&program("cc", "-std=c11", &example("all_reduce.c"), &[]), None);
    for (rank, said) in said.iter().enumerate() {
        assert_eq!(said, &format!("rank {rank} of 2: the sum is 3, everywhere 3\n"));
    }
}

#[test]
fn the_example_in_cpp_passes_messages() {
    let said = run(&program("c++", "-std=c++17", &example("queue.cpp"), &[]));
    assert_eq!(said, "message 0: compute step 0\nmessage 1: compute step 1\nmessage 2: compute step 2\n");
}

#[test]
fn the_static_library_is_the_same() {
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("all_reduce.static");
    let mut command = Command::new("cc");
    command.args(["-std=c11", "-I"]).arg(here().join("include")).arg(example("all_reduce.c"));
    command.arg(library().with_extension("a")).args(["-lpthread", "-ldl", "-lm", "-o"]).arg(&program);
    let compiled = command.output().expect("cc starts");
    assert!(compiled.status.success(), "{command:?}\n{}", String::from_utf8_lossy(&compiled.stderr));
    let said = both_end_well(&program, None);
    assert!(said.iter().all(|said| said.contains("the sum is 3")), "{said:?}");
}

#[test]
fn both_headers_are_c11_and_cpp_without_a_warning() {
    for (compiler, standard, kind) in
        [("cc", "-std=c11", "c"), ("c++", "-std=c++11", "cpp"), ("c++", "-std=c++20", "20.cpp")]
    {
        let source = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("headers.{kind}"));
        std::fs::write(
            &source,
            "#include \"unisono_shm.h\"\nint main(void) { return unisono_shm_finalize(); }\n",
        )
        .expect("a source can be written");
        run(&program(compiler, standard, &source, &["-Wstrict-aliasing", "-Wshadow", "-Wconversion"]));
    }
}

#[test]
fn every_collective_gives_what_the_header_says() {
    assert!(run(&checked("collectives.c")).contains(DONE));
}

#[test]
fn numbers_and_nulls_that_make_no_sense_are_refused() {
    assert!(run(&checked("refusals.c")).contains(DONE));
}

#[test]
fn a_queue_works_between_processes_and_says_who_died() {
    assert!(run(&checked("queue.c")).contains(DONE));
}

#[test]
fn ranks_meet_by_a_broadcast_of_the_programs_own() {
    assert!(run(&checked("exchange.c")).contains(DONE));
}

#[test]
fn sglangs_names_do_what_they_do_there() {
    let said = both_end_well(&checked("shm.c"), None);
    assert!(said.iter().all(|said| said.contains(DONE)));
}

#[test]
fn a_killed_rank_is_named_to_the_survivor() {
    let [survivor, killed] = run_ranks(&checked("errors.c"), Some("killed"));
    assert!(survivor.status.success() && text(&survivor).contains(DONE), "{}", text(&survivor));
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&killed.status), Some(9), "{}", text(&killed));
}

#[test]
fn every_other_end_has_its_status_and_names_the_rank() {
    let program = checked("errors.c");
    for walk in ["mismatch", "timeout", "left", "aborted", "forked", "interrupted"] {
        let said = both_end_well(&program, Some(walk));
        assert!(said.iter().all(|said| said.contains(DONE)), "{walk}: {said:?}");
    }
}

/// Whoever links it gets these names and no others: nothing of it can be taken for a function of the program's.
#[test]
fn the_library_exports_the_headers_functions_and_nothing_else() {
    let listed =
        Command::new("nm").args(["--dynamic", "--defined-only", "--format=posix"]).arg(library()).output();
    let listed = listed.expect("no nm: apt-get install binutils");
    assert!(listed.status.success(), "{}", text(&listed));
    let listed = String::from_utf8(listed.stdout).expect("names are text");
    let mut exported: Vec<&str> = listed.lines().filter_map(|line| line.split(' ').next()).collect();
    exported.sort_unstable();
    let header = std::fs::read_to_string(here().join("include/unisono.h")).expect("the header is there");
    let mut declared: Vec<&str> = header
        .lines()
        .filter(|line| {
            !line.starts_with([' ', '/', '#', '}']) && line.contains('(') && !line.starts_with("typedef")
        })
        .filter_map(|line| line.split('(').next()?.split([' ', '*']).next_back())
        .collect();
    declared.sort_unstable();
    assert_eq!(exported, declared);
}
