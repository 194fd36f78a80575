// A small part of Redis, in memory: what redis-cli and redis-benchmark need to talk to it.
//
//   redis_server 127.0.0.1:6379
//   redis-benchmark -t set,get,incr,mset -P 16
//
// There is one loop, so the values need no lock. A value is shared with the queues of those who
// have asked for it and never changes; SET puts another one in its place. SIGTERM or Ctrl-C stops
// it gracefully.

#include <xtcp/daemon.h>
#include <xtcp/xtcp.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <iostream>
#include <limits>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <unordered_map>
#include <vector>

#include "redis_protocol.h"

namespace {

using Words = std::span<const std::string_view>;  // of a command, its name included
using Value = std::shared_ptr<const std::string>;

bool SameIgnoringCase(std::string_view a, std::string_view b) {
  const auto lower = [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; };
  return std::ranges::equal(a, b, {}, lower, lower);
}

// What a client has sent, to be shown in a line.
std::string Shown(std::string_view text) {
  constexpr std::size_t kBytesMax = 128;
  std::string shown(text.substr(0, kBytesMax));
  std::ranges::replace_if(
      shown, [](unsigned char c) { return c < 0x20 || c == 0x7f; }, ' ');
  return shown;
}

// Finds a key without making a std::string of it.
struct Hash : std::hash<std::string_view> {
  using is_transparent = void;
};

class Store {
 public:
  // Null: there is none.
  Value Get(std::string_view key) const {
    const auto found = values_.find(key);
    return found == values_.end() ? nullptr : found->second;
  }

  // False: there is no room.
  bool Set(std::string_view key, std::string_view text) {
    const auto found = values_.find(key);
    const std::size_t before = found == values_.end() ? 0 : SizeOf(*found);
    const std::size_t after = kOverhead + key.size() + text.size();
    if (bytes_ - before + after > kBytesMax) return false;
    auto value = std::make_shared<const std::string>(text);
    if (found != values_.end()) {
      found->second = std::move(value);
    } else {
      values_.emplace(key, std::move(value));
    }
    bytes_ += after - before;
    return true;
  }

  bool Delete(std::string_view key) {
    const auto found = values_.find(key);
    if (found == values_.end()) return false;
    bytes_ -= SizeOf(*found);
    values_.erase(found);
    return true;
  }

 private:
  static constexpr std::size_t kBytesMax = std::size_t{1} << 30;
  static constexpr std::size_t kOverhead = 128;  // of a pair, about

  static std::size_t SizeOf(const std::pair<const std::string, Value>& pair) {
    return kOverhead + pair.first.size() + pair.second->size();
  }

  std::unordered_map<std::string, Value, Hash, std::equal_to<>> values_;
  std::size_t bytes_ = 0;
};

class Redis : public xtcp::Handler {
 public:
  void OnEvent(xtcp::EventType event, const xtcp::ConnPtr& conn, xtcp::PacketPtr packet) override {
    if (event != xtcp::EventType::kRecv) return;
    const Words words = static_cast<const demo::RedisCommand&>(*packet).words;
    for (const Command& command : kCommands) {
      if (!SameIgnoringCase(command.name, words[0])) continue;
      if (words.size() < command.least || words.size() > command.most || OddPair(command, words))
        return Fail(conn,
                    "wrong number of arguments for '" + std::string(command.name) + "' command");
      return (this->*command.run)(conn, words);
    }
    std::string text = "unknown command '" + Shown(words[0]) + "', with args beginning with: ";
    for (const std::string_view word : words.subspan(1, std::min<std::size_t>(words.size() - 1, 8)))
      text += '\'' + Shown(word) + "' ";
    Fail(conn, text);
  }

  void OnUnpackError(const xtcp::ConnPtr& conn, std::span<const std::byte>,
                     std::error_code error) override {
    Fail(conn, error.message());
    conn->Stop(xtcp::StopMode::kGracefullyButNotWait);
  }

 private:
  static constexpr std::size_t kAny = std::numeric_limits<std::size_t>::max();
  struct Command {
    std::string_view name;
    std::size_t least, most;  // words, with the name
    void (Redis::*run)(const xtcp::ConnPtr&, Words);
    bool pairs = false;  // after the name
  };
  static const std::array<Command, 12> kCommands;

  static bool OddPair(const Command& command, Words words) {
    return command.pairs && words.size() % 2 == 0;
  }

  void Ping(const xtcp::ConnPtr& conn, Words words) {
    words.size() == 1 ? Send(conn, {"+PONG\r\n"}) : Echo(conn, words);
  }
  void Echo(const xtcp::ConnPtr& conn, Words words) {
    const std::string head = '$' + std::to_string(words[1].size()) + "\r\n";
    Send(conn, {std::string_view(head), words[1], "\r\n"});
  }
  void Get(const xtcp::ConnPtr& conn, Words words) {
    const Value value = store_.Get(words[1]);
    const std::string head = HeadOf(value);
    Send(conn, {std::string_view(head), value, value ? "\r\n" : ""});
  }
  void MultiGet(const xtcp::ConnPtr& conn, Words words) {
    std::vector<std::string> heads{'*' + std::to_string(words.size() - 1) + "\r\n"};
    heads.reserve(words.size());  // the parts are views of them
    std::vector<xtcp::Part> parts{std::string_view(heads[0])};
    for (const std::string_view key : words.subspan(1)) {
      const Value value = store_.Get(key);
      heads.push_back(HeadOf(value));
      parts.insert(parts.end(), {std::string_view(heads.back()), value, value ? "\r\n" : ""});
    }
    Send(conn, parts);
  }
  void Set(const xtcp::ConnPtr& conn, Words words) {
    for (std::size_t i = 1; i < words.size(); i += 2) {
      if (!store_.Set(words[i], words[i + 1])) return SayFull(conn);
    }
    Send(conn, {"+OK\r\n"});
  }
  void Delete(const xtcp::ConnPtr& conn, Words words) {
    SendNumber(conn, std::ranges::count_if(words.subspan(1),
                                           [this](auto key) { return store_.Delete(key); }));
  }
  void Increment(const xtcp::ConnPtr& conn, Words words) {
    const Value value = store_.Get(words[1]);
    xtcp::Reader digits(value ? std::string_view(*value) : "0");
    auto number = digits.Number<std::int64_t>();
    if (!digits.done()) return Fail(conn, "value is not an integer or out of range");
    if (number == std::numeric_limits<std::int64_t>::max())
      return Fail(conn, "increment or decrement would overflow");
    if (!store_.Set(words[1], std::to_string(++number))) return SayFull(conn);
    SendNumber(conn, number);
  }
  // It asks what there is to know about commands; that is nothing.
  void Describe(const xtcp::ConnPtr& conn, Words) { Send(conn, {"*0\r\n"}); }
  void Quit(const xtcp::ConnPtr& conn, Words) {
    Send(conn, {"+OK\r\n"});
    conn->Stop(xtcp::StopMode::kGracefullyButNotWait);
  }
  // A browser was led here, and what follows would be taken for commands.
  void Refuse(const xtcp::ConnPtr& conn, Words) { conn->Stop(xtcp::StopMode::kImmediately); }

  // What precedes a value.
  static std::string HeadOf(const Value& value) {
    return value ? '$' + std::to_string(value->size()) + "\r\n" : "$-1\r\n";
  }
  static void SendNumber(const xtcp::ConnPtr& conn, std::int64_t number) {
    const std::string text = ':' + std::to_string(number) + "\r\n";
    Send(conn, {std::string_view(text)});
  }
  static void Fail(const xtcp::ConnPtr& conn, const std::string& text) {
    const std::string line = "-ERR " + text + "\r\n";
    Send(conn, {std::string_view(line)});
  }
  static void SayFull(const xtcp::ConnPtr& conn) {
    Send(conn, {"-OOM command not allowed when used memory > 'maxmemory'.\r\n"});
  }

  // There is room for an answer (Options::pause_recv_above), unless it is larger than that.
  static void Send(const xtcp::ConnPtr& conn, std::initializer_list<xtcp::Part> parts) {
    Send(conn, std::span(parts.begin(), parts.size()));
  }
  static void Send(const xtcp::ConnPtr& conn, std::span<const xtcp::Part> parts) {
    const std::error_code error = conn->SendParts(parts);
    const bool large = error == xtcp::Errc::kFull || error == xtcp::Errc::kTooLarge;
    if (error && (!large || conn->Send("-ERR the answer is too large\r\n")))
      conn->Stop(xtcp::StopMode::kImmediately);
  }

  Store store_;
};

constexpr std::array<Redis::Command, 12> Redis::kCommands{{
    {"get", 2, 2, &Redis::Get},
    {"set", 3, 3, &Redis::Set},
    {"incr", 2, 2, &Redis::Increment},
    {"mget", 2, kAny, &Redis::MultiGet},
    {"mset", 3, kAny, &Redis::Set, true},
    {"del", 2, kAny, &Redis::Delete},
    {"ping", 1, 2, &Redis::Ping},
    {"echo", 2, 2, &Redis::Echo},
    {"command", 1, kAny, &Redis::Describe},
    {"quit", 1, kAny, &Redis::Quit},
    {"post", 1, kAny, &Redis::Refuse},
    {"host:", 1, kAny, &Redis::Refuse},
}};

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::cerr << "usage: redis_server HOST:PORT\n";
    return 2;
  }
  xtcp::Options options = xtcp::Options{.handler = std::make_shared<Redis>(),
                                        .protocol = std::make_shared<demo::RedisProtocol>()}
                              .Hardened();
  options.first_packet_size = 0;  // the first command may be long
  options.max_packet_size = demo::RedisDecoder::kCommandBytesMax;
  options.send_buffer_limit = 4 * demo::RedisDecoder::kCommandBytesMax;
  options.read_deadline = {};  // a client may be silent for days, if its system is there
  options.keep_alive = true;
  xtcp::Server server(options);
  std::error_code error = server.Listen(argv[1]);
  if (!error) {
    std::cout << "serves Redis clients on " << server.Addresses().front().ToString() << std::endl;
    error = xtcp::ServeUntilSignal(server);
  }
  if (error) std::cerr << argv[1] << ": " << error.message() << '\n';
  return error ? 1 : 0;
}
