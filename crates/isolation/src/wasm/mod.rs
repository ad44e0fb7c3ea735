//! WebAssembly: the runtimes `js` and `wasm` on Wasmtime.
