#!/bin/bash
# run.sh SOURCE_ROOT BUILD_FOLDER: builds and runs the Go program against the shared library, without network. 77 = no compiler.
set -euo pipefail
root=$1 build=$2
command -v go >/dev/null || { echo "left out: there is no go (Debian package golang-go)"; exit 77; }
export GOPROXY=off GOTOOLCHAIN=local GOCACHE=$build/foreign/go-cache CGO_ENABLED=1
export CGO_CFLAGS="-I$root/include" CGO_LDFLAGS="-L$build -lmoe -Wl,-rpath,$build"
mkdir -p "$build/foreign"
cd "$root/tests/foreign/go"
go build -o "$build/foreign/go-program" .
"$build/foreign/go-program" "$root/tests/golden/gguf/qwen3-F32.gguf"
