#!/bin/bash
# run.sh CMAKE BUILD_FOLDER CC: installs the build into a fresh prefix and builds and runs version.c against it, shared and
# static, through pkg-config and through find_package.
set -euo pipefail
cmake=$1 build=$2 cc=$3
here=$(dirname "$(readlink -f "$0")")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$cmake" --install "$build" --prefix "$work/prefix" >"$work/log" || { cat "$work/log"; exit 1; }

pc=$(find "$work/prefix" -name moe.pc)
export PKG_CONFIG_PATH=$(dirname "$pc")
config() { pkg-config "$@" moe; }
libdir=$(config --variable=libdir)
read -ra flags <<<"$(config --cflags --libs)"
"$cc" -std=c99 -Wall -Wextra -Werror "$here/version.c" "${flags[@]}" -o "$work/shared"
shared=$(LD_LIBRARY_PATH=$libdir "$work/shared")
read -ra flags <<<"$(config --cflags --libs --static)"
"$cc" -std=c99 "$here/version.c" "${flags[@]/-lmoe/$libdir/libmoe.a}" -o "$work/static"
static=$("$work/static")

"$cmake" -S "$here" -B "$work/outside" -G Ninja -DCMAKE_PREFIX_PATH="$work/prefix" -DCMAKE_C_COMPILER="$cc" >"$work/log" &&
  "$cmake" --build "$work/outside" >>"$work/log" || { cat "$work/log"; exit 1; }
[ "$shared" = "$static" ] && [ "$("$work/outside/shared")" = "$shared" ] && [ "$("$work/outside/static")" = "$shared" ]

for app in moe-train moe-eval; do
  if [ -e "$build/bin/$app" ]; then "$work/prefix/bin/$app" --help >/dev/null; fi
done
echo "version $shared through pkg-config and find_package, shared and static"
