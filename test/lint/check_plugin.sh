#!/bin/bash
# A plug-in that runs a server is loaded, run and unloaded 100 times: with libxtcp_pic.a inside it, and
# with the shared library. It leaves no descriptor, thread or mapping behind.
export LC_ALL=C
cd "$(dirname "$0")/../.." || exit 1
library=$(cd "${BUILD:-build}/release" && pwd) || exit 1
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

compile() { ${CXX:-g++} -std=c++20 -O1 -pthread -Wall -Wextra -Werror -Iinclude "$@" 2>&1; }
compile -fPIC -c test/install/consumer/echo_itself.cc -o "$folder/plugin.o" &&
  compile -shared "$folder/plugin.o" "$library/libxtcp_pic.a" -o "$folder/archive.so" &&
  compile -shared "$folder/plugin.o" "$library/libxtcp.so" -Wl,-rpath,"$library" -o "$folder/shared.so" &&
  compile test/install/load_plugin.cc -ldl -o "$folder/load_plugin" || exit 1

bad=0
for plugin in archive shared; do
  timeout 60 "$folder/load_plugin" "$folder/$plugin.so" 100 || { echo "the plug-in with $plugin"; bad=1; }
done
# What it exports is its own: with what has XTCP_API, nothing of the library's inside.
inside=$(nm -DC --defined-only "$folder/archive.so" | grep -E ' (vtable for |typeinfo (name )?for )?xtcp::(internal|sys|Server::Impl)')
[ -z "$inside" ] || { echo "exported from the plug-in: $inside"; bad=1; }
exit $bad
