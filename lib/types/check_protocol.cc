#include <xtcp/bytes.h>
#include <xtcp/testing/check_protocol.h>

#include <algorithm>
#include <cstring>
#include <exception>
#include <memory>
#include <set>
#include <span>
#include <string_view>
#include <utility>

#include "base/thread_end.h"

namespace xtcp {
namespace {

using Bytes = std::vector<std::byte>;
using Cuts = std::vector<std::size_t>;  // where each read ends; the last one at the stream's end

// ---- What comes out of a stream.

enum class Kind { kPacket, kSkipped, kBad, kNoWayOn };

struct Event {
  Kind kind = Kind::kSkipped;
  std::size_t begin = 0;
  std::size_t size = 0;
  std::error_code error{};
  std::shared_ptr<const Bytes> memory{};  // what the packet may be a view of
  PacketPtr packet{};
};

using Events = std::vector<Event>;

// What lies around the view that Unpack gets, and is not its business.
enum class Around { kZeros, kOnes, kRest, kNothing };

// ---- The places at which a stream is cut.

// All places inside a stream, or about `most` of them: those at its ends, and some between.
Cuts Places(std::size_t size, std::size_t most) {
  Cuts places;
  const std::size_t ends = most / 4;
  const std::size_t step = size <= most ? 1 : size / (most / 2) + 1;
  for (std::size_t at = 1; at < size; ++at) {
    if (at <= ends || size - at <= ends || at % step == 0) places.push_back(at);
  }
  return places;
}

Cuts EveryPlace(std::size_t size, std::size_t most) {
  Cuts cuts = Places(size, most);
  cuts.push_back(size);
  return cuts;
}

Cuts Steps(std::size_t size, std::size_t step) {
  Cuts cuts;
  for (std::size_t at = step; at < size; at += step) cuts.push_back(at);
  cuts.push_back(size);
  return cuts;
}

std::string Number(std::size_t n) { return std::to_string(n); }

// ---- The check.

class Checker {
 public:
  Checker(const Protocol& protocol, const SamePackets& same, Samples kind)
      : protocol_(protocol), same_(same), kind_(kind) {}

  void Check(const std::vector<std::string>& samples);
  std::vector<std::string> violations() && { return std::move(violations_); }

 private:
  // Adds a violation, the first time that this rule is broken.
  void Report(const std::string& rule, const std::string& details = {});

  // Hands the stream to Unpack as the library would, and returns what comes out. With `waits` it is
  // not called before there are as many bytes as `need` said.
  Events Run(std::string_view stream, const Cuts& cuts, Around around, bool waits);
  bool Take(UnpackResult result, std::size_t view, Event* event);

  // Runs it with different surroundings, and compares what comes out with `expected`.
  void CheckCuts(std::string_view stream, const Cuts& cuts, const Events& expected);
  void CheckAllCuts(std::string_view stream, const Events& expected, std::size_t most);
  void CheckTruncated(std::string_view stream, const Events& expected);
  void CheckChanged(std::string_view stream);
  void CheckLengthened(std::string_view stream, const Events& expected);
  void CheckJoined(std::string_view first, const Events& of_first, std::string_view second,
                   const Events& of_second);
  void CheckPacked(const Events& events);

  bool IsLikeSkipped(const Event& event) const {
    return event.kind == Kind::kSkipped ||
           (event.kind == Kind::kPacket && kind_ == Samples::kParts);
  }
  // Returns whether the first of `a` and `b` are the same; with `all`, whether they all are.
  bool Same(const Events& a, const Events& b, bool all);
  bool SamePacket(const Packet& a, const Packet& b);
  bool Pack(const Packet& packet, Bytes* out);

  const Protocol& protocol_;
  const SamePackets& same_;
  const Samples kind_;
  std::string where_;  // what is checked just now
  bool reads_beyond_ = false;
  std::set<std::string> reported_;
  std::vector<std::string> violations_;
};

void Checker::Report(const std::string& rule, const std::string& details) {
  if (!reported_.insert(rule).second) return;
  violations_.push_back(rule + " (" + where_ + (details.empty() ? "" : "; ") + details + ")");
}

// ---- Unpacking.

// A copy of the view, with what is around it.
std::shared_ptr<const Bytes> Surround(std::string_view stream, std::size_t begin, std::size_t size,
                                      Around around, std::span<const std::byte>* view) {
  constexpr std::size_t kMargin = 64;
  const std::size_t margin = around == Around::kNothing ? 0 : kMargin;
  const std::byte filler{around == Around::kOnes ? std::uint8_t{0xff} : std::uint8_t{0}};
  const auto memory = std::make_shared<Bytes>(size + 2 * margin, filler);
  std::memcpy(memory->data() + margin, stream.data() + begin, size);
  if (around == Around::kRest) {
    const std::size_t rest = std::min(stream.size() - begin - size, kMargin);
    std::memcpy(memory->data() + margin + size, stream.data() + begin + size, rest);
  }
  *view = std::span(*memory).subspan(margin, size);
  return memory;
}

Events Checker::Run(std::string_view stream, const Cuts& cuts, Around around, bool waits) {
  Events events;
  const std::unique_ptr<Protocol::Decoder> decoder = protocol_.NewDecoder();
  std::size_t begin = 0;
  std::size_t told = 0;  // the largest `need` since the last answer
  // Once that is known, there is no need to be killed for it.
  if (reads_beyond_ && around == Around::kNothing) around = Around::kZeros;
  for (const std::size_t end : cuts) {
    const bool last = end == cuts.back();
    while (begin < end && (last || !waits || end - begin >= told)) {
      Event event{.begin = begin};
      std::span<const std::byte> view;
      event.memory = Surround(stream, begin, end - begin, around, &view);
      UnpackResult result;
      try {
        result = decoder != nullptr ? decoder->Unpack(view) : protocol_.Unpack(view);
      } catch (const internal::ForcedUnwind&) {
        throw;
      } catch (const std::exception& exception) {
        Report("Unpack throws", exception.what());
        return events;
      } catch (...) {
        Report("Unpack throws");
        return events;
      }
      const bool more = result.packet == nullptr && result.size == 0 && !result.error;
      if (more) {
        told = std::max(told, result.need);
        break;
      }
      if (view.size() < told) {
        Report("`need` is larger than what it takes", "it said " + Number(told) + " at byte " +
                                                          Number(begin) + ", and answered with " +
                                                          Number(view.size()));
      }
      told = 0;
      if (!Take(std::move(result), view.size(), &event)) return events;
      begin += event.size;
      const bool over = event.kind == Kind::kNoWayOn;
      // How much is skipped at a time means nothing.
      if (!events.empty() && event.kind == events.back().kind && IsLikeSkipped(event)) {
        events.back().size += event.size;
      } else {
        events.push_back(std::move(event));
      }
      if (over) return events;
    }
  }
  return events;
}

// Notes an answer. Returns false if there must be no such answer.
bool Checker::Take(UnpackResult result, std::size_t view, Event* event) {
  event->size = result.size;
  event->error = result.error;
  if (result.size > view) {
    Report("more bytes are consumed than there are",
           Number(result.size) + " of " + Number(view) + " at byte " + Number(event->begin));
    return false;
  }
  if (result.packet == nullptr) {
    event->kind = !result.error ? Kind::kSkipped : result.size == 0 ? Kind::kNoWayOn : Kind::kBad;
    return true;
  }
  event->kind = Kind::kPacket;
  event->packet = std::move(result.packet);
  if (result.error) Report("a packet comes with an error", result.error.message());
  if (result.size == 0) Report("a packet consumes nothing", "at byte " + Number(event->begin));
  return !result.error && result.size > 0;
}

// ---- Comparing.

bool Checker::SamePacket(const Packet& a, const Packet& b) {
  if (same_ != nullptr) return same_(a, b);
  Bytes packed_a;
  Bytes packed_b;
  const bool can_a = Pack(a, &packed_a);
  const bool can_b = Pack(b, &packed_b);
  if (!can_a && !can_b) return a.ToString() == b.ToString();
  return can_a && can_b && packed_a == packed_b;
}

bool Checker::Same(const Events& a, const Events& b, bool all) {
  if (all && a.size() != b.size()) return false;
  const std::size_t count = std::min(a.size(), b.size());
  for (std::size_t i = 0; i < count; ++i) {
    if (a[i].kind != b[i].kind || a[i].begin != b[i].begin || a[i].error != b[i].error)
      return false;
    // Of what comes piece by piece the last piece may be missing.
    const bool cut = !all && i + 1 == count && IsLikeSkipped(a[i]);
    if (!cut && a[i].size != b[i].size) return false;
    if (a[i].kind != Kind::kPacket || kind_ == Samples::kParts) continue;
    if (!SamePacket(*a[i].packet, *b[i].packet)) return false;
  }
  return true;
}

// ---- What is done to a sample.

void Checker::CheckCuts(std::string_view stream, const Cuts& cuts, const Events& expected) {
  const Events events = Run(stream, cuts, Around::kZeros, false);
  for (const Around around : {Around::kOnes, Around::kRest}) {
    if (!Same(events, Run(stream, cuts, around, false), true)) {
      Report("what lies around the view changes the answer: it is read beyond its end");
      reads_beyond_ = true;
      return;
    }
  }
  if (!Same(expected, events, true)) Report("the answers depend on how the stream is cut");
  if (!Same(expected, Run(stream, cuts, Around::kNothing, true), true)) {
    Report("the answers depend on how the stream is cut, or on waiting for `need`");
  }
}

void Checker::CheckAllCuts(std::string_view stream, const Events& expected, std::size_t most) {
  const std::string where = where_;
  for (const std::size_t at : Places(stream.size(), most)) {
    where_ = where + ", cut at " + Number(at);
    CheckCuts(stream, {at, stream.size()}, expected);
  }
  where_ = where + ", byte by byte";
  CheckCuts(stream, EveryPlace(stream.size(), most), expected);
  for (const std::size_t step : {std::size_t{2}, std::size_t{3}, std::size_t{7}}) {
    where_ = where + ", in steps of " + Number(step);
    if (stream.size() / step < most) CheckCuts(stream, Steps(stream.size(), step), expected);
  }
  where_ = where;
}

void Checker::CheckTruncated(std::string_view stream, const Events& expected) {
  const std::string where = where_;
  for (const std::size_t at : Places(stream.size(), 256)) {
    where_ = where + ", the first " + Number(at) + " bytes";
    const std::string_view part = stream.substr(0, at);
    const Events events = Run(part, {at}, Around::kNothing, true);
    const bool more = events.size() > expected.size();
    if (more || !Same(events, expected, false)) {
      Report("what follows changes the answer for what came before");
    }
  }
  where_ = where;
}

void Checker::CheckChanged(std::string_view stream) {
  const std::string where = where_;
  std::string changed(stream);
  Cuts places = Places(stream.size(), 64);
  places.push_back(0);
  for (const std::size_t at : places) {
    for (const int bits : {0x01, 0x80, 0xff}) {
      changed[at] = static_cast<char>(stream[at] ^ bits);
      where_ = where + ", byte " + Number(at) + " changed to " +
               Number(static_cast<unsigned char>(changed[at]));
      const Events events = Run(changed, {changed.size()}, Around::kZeros, false);
      CheckCuts(changed, {changed.size()}, events);
      CheckCuts(changed, EveryPlace(changed.size(), 32), events);
    }
    changed[at] = stream[at];
  }
  where_ = where;
}

void Checker::CheckLengthened(std::string_view stream, const Events& expected) {
  const std::string where = where_;
  for (const char more : {'\0', '\xff', '\n', ' ', stream.front()}) {
    where_ = where + ", and a byte of " + Number(static_cast<unsigned char>(more));
    const std::string longer = std::string(stream) + more;
    const Events events = Run(longer, {longer.size()}, Around::kNothing, true);
    const bool less = events.size() < expected.size();
    if (less || !Same(events, expected, false)) {
      Report("what follows changes the answer for what came before");
    }
  }
  where_ = where;
}

// A decoder may take the second stream otherwise than at the beginning of a connection.
void Checker::CheckJoined(std::string_view first, const Events& of_first, std::string_view second,
                          const Events& of_second) {
  const std::string joined = std::string(first) + std::string(second);
  const Events events = Run(joined, {joined.size()}, Around::kNothing, true);
  CheckCuts(joined, {first.size(), joined.size()}, events);
  const bool goes_on = of_first.empty() || of_first.back().kind != Kind::kNoWayOn;
  if (events.size() < of_first.size() || !Same(events, of_first, false)) {
    Report("what follows changes the answer for what came before");
  } else if (goes_on && protocol_.NewDecoder() == nullptr && kind_ != Samples::kParts) {
    std::size_t packets = 0;
    for (const Events* list : {&of_first, &of_second}) {
      packets += static_cast<std::size_t>(std::count_if(
          list->begin(), list->end(), [](const Event& e) { return e.kind == Kind::kPacket; }));
    }
    for (const Event& event : events) packets -= event.kind == Kind::kPacket ? 1 : 0;
    if (packets != 0) Report("a stream after another one is not what it is alone");
  }
}

// ---- Packing.

// Returns whether the packet can be packed, and was.
bool Checker::Pack(const Packet& packet, Bytes* out) {
  try {
    const std::size_t size = protocol_.PackSize(packet);
    if (size == 0) return false;
    out->assign(size, std::byte{0});
    Writer writer(*out);
    const std::error_code error = protocol_.PackTo(packet, writer);
    if (error) {
      Report("PackSize has a size, and PackTo an error", error.message());
    } else if (writer.failed() || writer.written() != size) {
      Report("PackTo writes another number of bytes than PackSize says",
             writer.failed() ? "more than " + Number(size)
                             : Number(writer.written()) + " and " + Number(size));
    } else {
      return true;
    }
  } catch (const internal::ForcedUnwind&) {
    throw;
  } catch (const std::exception& exception) {
    Report("PackSize or PackTo throws", exception.what());
  } catch (...) {
    Report("PackSize or PackTo throws");
  }
  return false;
}

// All packets of a stream, in their order, because a decoder may want that.
void Checker::CheckPacked(const Events& events) {
  std::string stream;
  std::size_t packets = 0;
  for (const Event& event : events) {
    if (event.kind != Kind::kPacket) continue;
    Bytes packed;
    if (!Pack(*event.packet, &packed)) return;
    stream += AsText(packed);
    ++packets;
  }
  if (packets == 0) return;
  where_ += ", packed";
  const Events again = Run(stream, {stream.size()}, Around::kNothing, true);
  bool same = again.size() == packets;
  std::size_t i = 0;
  for (const Event& event : events) {
    if (!same || event.kind != Kind::kPacket) continue;
    const Event& other = again[i++];
    same = other.kind == Kind::kPacket && SamePacket(*event.packet, *other.packet);
  }
  if (!same) Report("what was packed does not unpack to the same");
}

// ---- All of it.

void Checker::Check(const std::vector<std::string>& samples) {
  std::vector<Events> all;
  for (std::size_t i = 0; i < samples.size(); ++i) {
    const std::string& sample = samples[i];
    where_ = "sample " + Number(i);
    const Cuts once{sample.size()};
    all.push_back(Run(sample, once, Around::kZeros, false));
    const Events& events = all.back();
    if (sample.empty()) continue;
    if (!Same(events, Run(sample, once, Around::kZeros, false), true)) {
      Report("the same stream has other answers the second time");
      continue;
    }
    CheckCuts(sample, once, events);
    CheckAllCuts(sample, events, 256);
    CheckTruncated(sample, events);
    if (kind_ == Samples::kAnyBytes) continue;
    std::size_t consumed = 0;
    for (const Event& event : events) {
      consumed += event.size;
      if (event.kind == Kind::kBad || event.kind == Kind::kNoWayOn) {
        Report("a valid packet is refused", event.error.message());
      }
    }
    if (consumed < sample.size()) {
      Report("more bytes are asked for where all are there",
             Number(sample.size() - consumed) + " are left");
    }
    CheckChanged(sample);
    CheckLengthened(sample, events);
    CheckPacked(events);
  }
  if (kind_ == Samples::kAnyBytes) return;
  constexpr std::size_t kMost = 16;  // of all pairs
  for (std::size_t i = 0; i < std::min(all.size(), kMost); ++i) {
    for (std::size_t k = 0; k < std::min(all.size(), kMost); ++k) {
      where_ = "sample " + Number(i) + " and then " + Number(k);
      if (!samples[i].empty()) CheckJoined(samples[i], all[i], samples[k], all[k]);
    }
  }
}

}  // namespace

std::vector<std::string> CheckProtocol(const Protocol& protocol,
                                       const std::vector<std::string>& samples,
                                       const SamePackets& same, Samples kind) {
  Checker checker(protocol, same, kind);
  checker.Check(samples);
  return std::move(checker).violations();
}

}  // namespace xtcp
