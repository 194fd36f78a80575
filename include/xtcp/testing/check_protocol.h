#pragma once

#include <xtcp/export.h>
#include <xtcp/protocol.h>

#include <functional>
#include <string>
#include <vector>

namespace xtcp {

// Returns whether two packets mean the same.
using SamePackets = std::function<bool(const Packet&, const Packet&)>;

// What the samples of `CheckProtocol` are.
enum class Samples {
  kWholePackets,  // each is one valid packet, or several
  kParts,     // the same, but where a packet ends depends on how the stream is cut (RawProtocol)
  kAnyBytes,  // anything: each is only cut, so that a fuzzer's input can be one
};

// Tests a protocol, or its decoders, on streams of bytes, and returns what is wrong with it as
// texts: nothing, if all is well. It needs no test framework.
//
// Each sample is unpacked in one piece; then cut in two at all places, byte by byte, and in steps,
// with different bytes around the view; truncated at all places; with single bits and bytes
// changed; with bytes after it; and with another sample after it. (Of a long sample, at some of all
// places.) What is found:
//
//   an answer that `Unpack` must not give, or an exception
//   packets that depend on how the stream is cut, on what follows them, or on an earlier stream
//   a view read beyond its end: the address sanitizer finds that too, since views are cut exactly
//   a whole packet for which more bytes are asked
//   a `need` larger than what it takes
//   `PackSize` and `PackTo` that disagree; what was packed, and unpacks to something else
//
// `same` compares packets; without it, two are the same if they are packed to the same bytes, or
// cannot be packed and have the same text. A packet that is not for sending (`PackSize` 0) is not
// packed. Each pass over a stream has a new decoder.
//
// As the body of a fuzz target:
//
//   if (!CheckProtocol(protocol, {input}, same, Samples::kAnyBytes).empty()) std::abort();
XTCP_API XTCP_CONTAINERS std::vector<std::string> CheckProtocol(
    const Protocol& protocol, const std::vector<std::string>& samples,
    const SamePackets& same = nullptr, Samples kind = Samples::kWholePackets);

}  // namespace xtcp
