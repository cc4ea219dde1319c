#!/bin/bash
# kernel_symbols.sh NM LEVEL OBJECT...: objects compiled for one instruction-set level define no symbol outside the namespace
# moe::cpu::LEVEL. A weak function of the standard library compiled for AVX-512 could replace the plain one for the whole
# program and stop it on an older machine.
set -euo pipefail
nm=$1 level=$2
shift 2
[ $# -gt 0 ] || { echo "no objects given" >&2; exit 1; }
# Global (upper case) and weak or unique (u, v, w) symbols; local ones cannot be mixed up.
leaks=$("$nm" -C --defined-only --format=bsd "$@" | LC_ALL=C awk -v own="moe::cpu::$level::" '
  $2 ~ /^[A-Zuvw]$/ && index($0, own) == 0 { sub(/^[0-9a-f]+ /, ""); print }')
if [ -n "$leaks" ]; then
  echo "symbols outside moe::cpu::$level:" >&2
  echo "$leaks" >&2
  exit 1
fi
echo "$# objects define symbols of moe::cpu::$level only"
