//! Rebuilds the guest of the `js` runtime, the committed `crates/isolation/guest/quickjs.wasm`.
//!
//! QuickJS-NG and a wasi-libc come from the crate rquickjs-sys (its C sources; it is not built as a crate), the glue
//! and the prelude from `crates/isolation/guest`. Debian's clang and wasm-ld make a module of them, which is then run
//! up to the point where all globals are there; its memory at that point is what is committed. The same inputs
//! give the same bytes, so `--check` can compare.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use sha2::{Digest, Sha256};
use wasmtime_wizer::{InstanceState, SnapshotVal, ValType, Wizer};

/// The crate with the C sources, and the checksum of exactly that release on crates.io.
const PACKAGE: (&str, &str) = ("rquickjs-sys", "0.14.0");
const CHECKSUM: &str = "cee271d0eeba64f0915b846cb7ae02e16faf3dfdffdca91731101d9d30fe3423";

/// The C stack in linear memory, in bytes.
const STACK: u32 = 2 << 20;

/// What scripts may use of it; the rest is for what native code does beyond its last check.
const SCRIPT_STACK: u32 = STACK - (256 << 10);

/// QuickJS keeps small blocks in pages by their size, so that even a tiny script writes to some of each. The glue's heap
/// keeps the first blocks of a call together (see heap.c); this lets it say when.
const ARENAS: (&str, &str) = (
    "#define JS_ARENA_LARGE_BLOCKS_ONLY 0\n",
    "extern bool heap_compact;\n#define JS_ARENA_LARGE_BLOCKS_ONLY heap_compact\n",
);

/// QuickJS measures the C stack in linear memory only, of which many functions use next to nothing while they fill the
/// stack that the machine code runs on. So its check asks the host, too: always where C code recurses, and every few
/// frames where a script does.
const CHECK: (&str, &str) = (
    "    sp = js_get_stack_pointer() - alloca_size;
    return unlikely(sp < rt->stack_limit);
",
    "    sp = js_get_stack_pointer() - alloca_size;
    if (unlikely(sp < rt->stack_limit))
        return true;
    extern __attribute__((import_module(\"lyra\"), import_name(\"stack_full\"))) int lyra_stack_full(void);
    return (alloca_size == 0 || alloca_size == 1000 || (sp & 2047) < 512) && lyra_stack_full();
",
);

/// Linear memory of a new instance, in bytes: what it has beyond the image is heap that needs no growing.
const MEMORY: u32 = 4 << 20;

const ENGINE: [&str; 3] = ["libregexp.c", "libunicode.c", "dtoa.c"];
const GLUE: [&str; 7] = ["heap.c", "runtime.c", "timers.c", "out.c", "run.c", "host.c", "call.c"];

const FLAGS: &[&str] = &[
    "--target=wasm32-unknown-unknown",
    "-nostdlib",
    "-nostdinc",
    "-O2",
    "-std=gnu11",
    "-mbulk-memory",
    "-mnontrapping-fptoint",
    "-msign-ext",
    "-mmutable-globals",
    "-fno-strict-aliasing",
    "-DNDEBUG",
    "-D_GNU_SOURCE",
    "-DEMSCRIPTEN=1",
    "-DFE_DOWNWARD=0",
    "-DFE_UPWARD=0",
];

/// Builds the guest and writes it, or (`check`) compares it with the committed one.
pub fn run(check: bool) -> Result<()> {
    let folder = crate::repository().join("crates/isolation/guest");
    let work = tempfile::tempdir()?;
    let module = compile(&folder, &sources(work.path())?, work.path())?;
    let image = snapshot(&module)?;
    let digest = hex::encode(Sha256::digest(&image));
    let (file, sum) = (folder.join("quickjs.wasm"), folder.join("quickjs.wasm.sha256"));
    let line = format!("{digest}  quickjs.wasm\n");
    if check {
        let committed = std::fs::read(&file).context("reading the committed guest")?;
        ensure!(committed == image, "quickjs.wasm is not what its sources give; run `cargo xtask guest`");
        ensure!(std::fs::read_to_string(&sum)? == line, "quickjs.wasm.sha256 does not match");
        println!("quickjs.wasm is what its sources give ({digest})");
    } else {
        std::fs::write(&file, &image)?;
        std::fs::write(&sum, line)?;
        println!("{} bytes, {digest}", image.len());
    }
    Ok(())
}

/// Downloads the crate with the C sources, checks it, and returns its folder.
fn sources(work: &Path) -> Result<PathBuf> {
    let (name, version) = PACKAGE;
    let project = work.join("fetch");
    std::fs::create_dir_all(project.join("src"))?;
    std::fs::write(project.join("src/lib.rs"), "")?;
    let manifest = project.join("Cargo.toml");
    std::fs::write(
        &manifest,
        format!(
            "[package]\nname = \"fetch\"\nedition = \"2024\"\n[dependencies]\n{name} = \"={version}\"\n[workspace]\n"
        ),
    )?;
    let metadata = cargo_metadata::MetadataCommand::new().manifest_path(&manifest).exec()?;
    let package =
        metadata.packages.iter().find(|package| *package.name == name).context("the crate was not fetched")?;
    let lock = std::fs::read_to_string(project.join("Cargo.lock"))?;
    let entry = lock.split("[[package]]").find(|entry| entry.contains(&format!("name = \"{name}\"")));
    let entry = entry.context("the crate is not in the lock file")?;
    ensure!(
        entry.contains(&format!("checksum = \"{CHECKSUM}\"")),
        "{name} {version} is not the release expected: {entry}"
    );
    Ok(package.manifest_path.parent().context("a manifest is in a folder")?.into())
}

/// Compiles and links; returns the module before its initialisation.
fn compile(guest: &Path, sources: &Path, work: &Path) -> Result<Vec<u8>> {
    let resources = output(Command::new("clang-19").arg("-print-resource-dir"))?;
    let resources = Path::new(resources.trim());
    let libc = sources.join("vendor/wasi-libc");
    let (include, builtins) = (resources.join("include"), resources.join("lib/wasi/libclang_rt.builtins-wasm32.a"));

    let prelude = work.join("prelude.c");
    std::fs::write(&prelude, as_array(&std::fs::read(guest.join("prelude.js"))?))?;
    let engine = ENGINE.iter().map(|file| (sources.join("quickjs").join(file), false));
    let patched = work.join("quickjs.c");
    let mut quickjs = std::fs::read_to_string(sources.join("quickjs/quickjs.c"))?;
    for (from, to) in [ARENAS, CHECK] {
        ensure!(quickjs.matches(from).count() == 1, "QuickJS has not what is to be replaced: {from}");
        quickjs = quickjs.replace(from, to);
    }
    std::fs::write(&patched, quickjs)?;
    let glue = GLUE.iter().map(|file| (guest.join(file), true));
    let rest = [(patched, false), (sources.join("wasm-shim/shim.c"), false), (prelude, true)];

    let mut objects = Vec::new();
    let mut compilers = Vec::new();
    for (source, ours) in engine.chain(glue).chain(rest) {
        let object = work.join(format!("{}.o", objects.len()));
        let mut clang = Command::new("clang-19");
        clang.args(FLAGS).arg("-isystem").arg(&include).arg("-isystem").arg(libc.join("include"));
        clang.arg("-I").arg(sources.join("quickjs")).arg(format!("-DSCRIPT_STACK={SCRIPT_STACK}"));
        if ours {
            clang.args(["-Wall", "-Wextra", "-Werror", "-Wno-unused-parameter", "-Wno-sign-compare"]);
        } else {
            clang.arg("-w");
        }
        clang.arg("-c").arg(&source).arg("-o").arg(&object);
        compilers.push((source, clang.spawn().context(MISSING)?));
        objects.push(object);
    }
    for (source, mut compiler) in compilers {
        ensure!(compiler.wait()?.success(), "{} does not compile", source.display());
    }

    let module = work.join("guest.wasm");
    let mut linker = Command::new("wasm-ld-19");
    linker.args(["--no-entry", "--stack-first", "--gc-sections", "-O2", "-s", "--export=__stack_pointer"]);
    linker.arg("-z").arg(format!("stack-size={STACK}")).arg(format!("--initial-memory={MEMORY}"));
    linker.args(&objects).arg(libc.join("lib/libc.a")).arg(builtins).arg("-o").arg(&module);
    output(&mut linker)?;
    Ok(std::fs::read(&module)?)
}

const MISSING: &str =
    "clang-19 can't be run; install it with: apt-get install clang-19 lld-19 libclang-rt-19-dev-wasm32";

fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("{command:?}: {MISSING}"))?;
    if !output.status.success() {
        bail!("{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8(output.stdout)?)
}

/// A C file that holds `text`, followed by a NUL.
fn as_array(text: &[u8]) -> String {
    let bytes: Vec<String> = text.iter().chain(&[0]).map(u8::to_string).collect();
    format!(
        "const unsigned prelude_length = {};\nconst char prelude_source[] = {{ {} }};\n",
        text.len(),
        bytes.join(",")
    )
}

/// Runs the module's initialisation and returns a module that starts from there.
fn snapshot(module: &[u8]) -> Result<Vec<u8>> {
    let wizer = Wizer::new();
    let (context, instrumented) = wizer.instrument(module)?;
    let engine = wasmtime::Engine::default();
    let compiled = wasmtime::Module::new(&engine, &instrumented)?;
    let mut linker = wasmtime::Linker::new(&engine);
    // A clock that stands still: the image must not depend on when it was made.
    linker.func_wrap("env", "__rquickjs_host_now_us", || 0f64)?;
    linker.func_wrap("lyra", "stack_full", || 0i32)?;
    linker.define_unknown_imports_as_traps(&compiled)?;
    let mut store = wasmtime::Store::new(&engine, ());
    let instance = linker.instantiate(&mut store, &compiled)?;
    let initialize = instance.get_typed_func::<(), ()>(&mut store, wizer.get_init_func())?;
    initialize
        .call(&mut store, ())
        .map_err(anyhow::Error::from)
        .context("initialising the guest (an error in the prelude?)")?;
    let mut state = Initialised { store, instance };
    Ok(futures::executor::block_on(wizer.snapshot(&context, &mut state))?)
}

struct Initialised {
    store: wasmtime::Store<()>,
    instance: wasmtime::Instance,
}

impl InstanceState for Initialised {
    async fn global_get(&mut self, name: &str, _: ValType) -> SnapshotVal {
        let global = self.instance.get_global(&mut self.store, name).expect("wizer exported it");
        match global.get(&mut self.store) {
            wasmtime::Val::I32(value) => SnapshotVal::I32(value),
            wasmtime::Val::I64(value) => SnapshotVal::I64(value),
            other => unreachable!("clang makes no globals of the type of {other:?}"),
        }
    }

    async fn memory_contents(&mut self, name: &str, contents: impl FnOnce(&[u8]) + Send) {
        let memory = self.instance.get_memory(&mut self.store, name).expect("wizer exported it");
        contents(memory.data(&self.store));
    }
}
