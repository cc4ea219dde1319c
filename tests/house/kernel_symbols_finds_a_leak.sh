#!/bin/bash
# kernel_symbols_finds_a_leak.sh CXX NM: a kernel file that instantiates a template of the standard library is noticed.
set -euo pipefail
cxx=$1 nm=$2
here=$(dirname "$(readlink -f "$0")")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat >"$work/good.cpp" <<'CODE'
namespace moe::cpu::avx2 { float twice(float x) { return x + x; } }
CODE
cat >"$work/bad.cpp" <<'CODE'
#include <vector>
namespace moe::cpu::avx2 { void grow(std::vector<float> &list) { list.push_back(1.0f); } }
CODE
for kind in good bad; do "$cxx" -std=c++20 -O0 -c "$work/$kind.cpp" -o "$work/$kind.o"; done
"$here/kernel_symbols.sh" "$nm" avx2 "$work/good.o"
if "$here/kernel_symbols.sh" "$nm" avx2 "$work/bad.o" 2>"$work/message"; then
  echo "the leak was not found" >&2
  exit 1
fi
grep -q 'std::vector<float' "$work/message"
