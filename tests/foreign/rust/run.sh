#!/bin/bash
# run.sh SOURCE_ROOT BUILD_FOLDER: builds and runs the Rust program against the shared library. 77 = no compiler.
set -euo pipefail
root=$1 build=$2
command -v rustc >/dev/null || { echo "left out: there is no rustc (Debian package rustc)"; exit 77; }
mkdir -p "$build/foreign"
rustc --edition 2021 -D warnings -A dead_code -L "$build" -C link-arg=-Wl,-rpath,"$build" -o "$build/foreign/rust-program" "$root/tests/foreign/rust/main.rs"
"$build/foreign/rust-program" "$root/tests/golden/gguf/qwen3-F32.gguf"
