#include <xtcp/bytes.h>

#include <cstdint>
#include <string>
#include <vector>

#include "fuzz/targets.h"
#include "support/test_protocol.h"

namespace xtcp::test {
namespace {

// What a Writer has taken, and a Reader must give back.
struct Written {
  std::uint8_t kind;
  std::uint64_t value = 0;
  std::string bytes{};
};

std::size_t WidthOf(std::uint8_t kind) { return kind == 0 ? 1 : kind < 3 ? 2 : kind < 5 ? 4 : 8; }

bool Put(Writer& out, const Written& w) {
  switch (w.kind) {
    case 0:
      return out.U8(static_cast<std::uint8_t>(w.value));
    case 1:
      return out.U16Be(static_cast<std::uint16_t>(w.value));
    case 2:
      return out.U16Le(static_cast<std::uint16_t>(w.value));
    case 3:
      return out.U32Be(static_cast<std::uint32_t>(w.value));
    case 4:
      return out.U32Le(static_cast<std::uint32_t>(w.value));
    case 5:
      return out.U64Be(w.value);
    case 6:
      return out.U64Le(w.value);
    default:
      return out.Write(w.bytes);
  }
}

std::uint64_t Get(Reader& in, std::uint8_t kind) {
  switch (kind) {
    case 0:
      return in.U8();
    case 1:
      return in.U16Be();
    case 2:
      return in.U16Le();
    case 3:
      return in.U32Be();
    case 4:
      return in.U32Le();
    case 5:
      return in.U64Be();
    default:
      return in.U64Le();
  }
}

}  // namespace

// The room, and then values with their kinds; what fits is read again, and what does not leaves no
// trace.
void FuzzBytes(FuzzInput input) {
  FuzzReader reader(input);
  const std::size_t room = reader.U8();
  constexpr std::byte kUntouched{0xa5};
  std::vector<std::byte> memory(room + 8, kUntouched);
  Writer out{std::span(memory).first(room)};
  std::vector<Written> taken;
  std::size_t used = 0;
  bool failed = false;
  while (!reader.empty()) {
    Written w{static_cast<std::uint8_t>(reader.U8() % 8)};
    const FuzzInput raw = reader.Bytes(w.kind == 7 ? reader.U8() % 40 : WidthOf(w.kind));
    for (const std::uint8_t byte : raw) w.value = w.value << 8 | byte;
    w.bytes.assign(raw.begin(), raw.end());
    const std::size_t size = w.kind == 7 ? raw.size() : WidthOf(w.kind);
    failed = failed || size > room - used;
    FUZZ_CHECK(Put(out, w) == !failed);
    if (!failed) {
      used += size;
      taken.push_back(w);
    }
    FUZZ_CHECK(out.written() == used);
    FUZZ_CHECK(out.failed() == failed);
    FUZZ_CHECK(out.remaining() == room - used);
  }
  for (std::size_t i = used; i < memory.size(); ++i) FUZZ_CHECK(memory[i] == kUntouched);

  Reader in(std::span<const std::byte>(memory).first(used));
  for (const Written& w : taken) {
    if (w.kind == 7) {
      FUZZ_CHECK(in.Text(w.bytes.size()) == w.bytes);
    } else {
      FUZZ_CHECK(Get(in, w.kind) == w.value);
    }
  }
  FUZZ_CHECK(!in.failed());
  FUZZ_CHECK(in.remaining() == 0);
  FUZZ_CHECK(in.U64Be() == 0);
  FUZZ_CHECK(in.failed());
  FUZZ_CHECK(in.Bytes(1).empty());
  FUZZ_CHECK(in.consumed() == used);
}

}  // namespace xtcp::test
