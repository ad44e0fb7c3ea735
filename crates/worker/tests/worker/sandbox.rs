//! The launcher of sandboxes as a program, for the tests of this crate: the `lyra` binary has it as a hidden command.

fn main() -> std::process::ExitCode {
    lyra_isolation::process::launch::serve()
}
