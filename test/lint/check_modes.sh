#!/bin/bash
# In which modes of the compiler user code may be compiled. C++17 gets one clear #error. With
# -D_GLIBCXX_DEBUG the release archive works, and what passes a container of the standard library,
# which has another layout then, does not link ([seen-19] of the faults found by use).
export LC_ALL=C
cd "$(dirname "$0")/../.." || exit 1
archive=${BUILD:-build}/release/libxtcp.a
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
bad=0
complain() {
  echo "$1"
  bad=1
}

program='
#include <xtcp/xtcp.h>
struct Bytes : xtcp::Protocol {
  std::size_t PackSize(const xtcp::Packet&) const override { return 0; }
  std::error_code PackTo(const xtcp::Packet&, xtcp::Writer&) const override { return {}; }
  xtcp::UnpackResult Unpack(std::span<const std::byte> all) const override {
    return {std::make_unique<xtcp::Packet>(), all.size(), {}};
  }
};
struct Ignore : xtcp::Handler {
  void OnEvent(xtcp::EventType, const xtcp::ConnPtr&, xtcp::PacketPtr) override {}
};
int main() {
  const auto protocol = std::make_shared<Bytes>();
  xtcp::Server server({std::make_shared<Ignore>(), protocol});
  const bool good = !server.Listen("127.0.0.1:0") && !server.Stop(xtcp::StopMode::kImmediately).error;
#ifdef ADDRESSES
  if (server.Addresses().size() != 1) return 1;
#elif defined PACK
  std::vector<std::byte> out;
  if (protocol->Pack(xtcp::Packet(), &out)) return 1;
#endif
  return good && !server.Serve() && xtcp::Version().size() >= 5 ? 0 : 1;
}'
build() {  # flags...
  ${CXX:-g++} -pthread -Wall -Wextra -Iinclude "$@" -x c++ - -x none "$archive" -o "$folder/program" \
    <<<"$program" 2>"$folder/errors"
}

# --- C++17. --------------------------------------------------------------------------------------

build -std=c++17 && complain "it compiles as C++17"
first=$(grep -m 1 'error:' "$folder/errors")
case $first in
  *'xtcp needs C++20: compile with -std=c++20 or later'*) ;;
  *) complain "C++17: the first error is '$first'" ;;
esac
[ "$(grep -c 'error:.*xtcp needs' "$folder/errors")" = 1 ] || complain "C++17: more than one #error"

# --- _GLIBCXX_DEBUG. -----------------------------------------------------------------------------

for mode in '' -D_GLIBCXX_DEBUG; do
  if build -std=c++20 $mode; then
    "$folder/program" || complain "the program fails with '$mode'"
  else
    complain "with '$mode': $(cat "$folder/errors")"
  fi
done
for call in ADDRESSES PACK; do
  build -std=c++20 -D$call -D_GLIBCXX_DEBUG && complain "$call links, and would read garbage"
  grep -q 'undefined reference to .*glibcxx_debug' "$folder/errors" ||
    complain "$call: $(cat "$folder/errors")"
done
# And so does every other: what names such a container is marked, or its struct is.
unmarked=$(awk '
    /^(struct|class) / { marked = /XTCP_CONTAINERS/ }
    /^}/ { marked = 0 }
    /XTCP_CONTAINERS/ { declaration = 1 }  # to its end
    /std::(vector|deque|list|forward_list|(unordered_)?(multi)?(map|set)|bitset)</ && !declaration && !marked {
      print FILENAME ":" FNR ": " $0
    }
    /;/ { declaration = 0 }' include/xtcp/*.h include/xtcp/*/*.h)
[ -z "$unmarked" ] || complain "without XTCP_CONTAINERS: $unmarked"

exit $bad
