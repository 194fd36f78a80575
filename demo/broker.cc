// Publish and subscribe, by lines. Try it with: nc 127.0.0.1 7000
//
//   SUB topic        answered by OK; from then on MSG topic text comes for each PUB of it
//   UNSUB topic      answered by OK
//   PUB topic text   answered by OK n, the number of those that it was sent to
//   PONG             the answer to PING, which comes when a client was silent for half a minute (or
//                    for the seconds of a second argument); who is silent once more so long is cut
//
// There is one loop, so what belongs to the broker needs no lock.

#include <xtcp/daemon.h>
#include <xtcp/xtcp.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <iostream>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <system_error>

using namespace std::chrono_literals;

namespace {

// Takes the first word, and the space after it, from the front of `*text`.
std::string_view TakeWord(std::string_view* text) {
  const std::string_view word = text->substr(0, text->find(' '));
  text->remove_prefix(std::min(word.size() + 1, text->size()));
  return word;
}

// What a client keeps in its UserData.
struct Client {
  std::set<std::string, std::less<>> topics;
  bool was_asked = false;  // a PING is on its way
};
Client& ClientOf(const xtcp::ConnPtr& conn) { return *conn->Data<Client>(); }

class Broker : public xtcp::Handler {
 public:
  explicit Broker(std::chrono::milliseconds keep_alive) : keep_alive_(keep_alive) {}

  void OnEvent(xtcp::EventType event, const xtcp::ConnPtr& conn, xtcp::PacketPtr packet) override {
    if (event == xtcp::EventType::kClosed) {
      for (const std::string& topic : ClientOf(conn).topics) Forget(topic, conn);
      return;
    }
    if (event == xtcp::EventType::kAccept) conn->EmplaceData<Client>();
    conn->SetTimer(keep_alive_);
    ClientOf(conn).was_asked = false;
    if (event == xtcp::EventType::kRecv)
      Obey(conn, static_cast<const xtcp::BytesPacket&>(*packet).text());
  }

  void OnTimer(const xtcp::ConnPtr& conn) override {
    if (ClientOf(conn).was_asked) {
      conn->Stop(xtcp::StopMode::kImmediately);
      return;
    }
    ClientOf(conn).was_asked = true;
    conn->SetTimer(keep_alive_);
    Say(conn, "PING\n");
  }

 private:
  static constexpr std::size_t kTopicsMax = 100;  // of one client

  void Obey(const xtcp::ConnPtr& conn, std::string_view line) {
    const std::string_view command = TakeWord(&line), topic = TakeWord(&line);
    if (command == "PONG") return;
    if (topic.empty()) return Say(conn, "ERR no such command\n");
    if (command == "PUB") return Publish(conn, std::string(topic), line);
    auto& topics = ClientOf(conn).topics;
    if (command == "SUB") {
      if (topics.size() == kTopicsMax) return Say(conn, "ERR too many topics\n");
      subscribers_[*topics.emplace(topic).first].insert(conn);
    } else if (command == "UNSUB") {
      if (topics.erase(std::string(topic)) != 0) Forget(std::string(topic), conn);
    } else {
      return Say(conn, "ERR no such command\n");
    }
    Say(conn, "OK\n");
  }

  void Publish(const xtcp::ConnPtr& from, const std::string& topic, std::string_view text) {
    const auto found = subscribers_.find(topic);
    const std::size_t count = found == subscribers_.end() ? 0 : found->second.size();
    if (count != 0) {
      const std::string message = "MSG " + topic + ' ' + std::string(text) + '\n';
      for (const xtcp::ConnPtr& conn : found->second) Say(conn, message);
    }
    Say(from, "OK " + std::to_string(count) + '\n');
  }

  // Who does not read what it has asked for must not cost us memory without bound. Its kClosed
  // comes after this callback, so nobody leaves the list that `Publish` walks.
  static void Say(const xtcp::ConnPtr& conn, std::string_view text) {
    if (conn->Send(text)) conn->Stop(xtcp::StopMode::kImmediately);
  }

  void Forget(const std::string& topic, const xtcp::ConnPtr& conn) {
    const auto found = subscribers_.find(topic);
    if (found->second.erase(conn) != 0 && found->second.empty()) subscribers_.erase(found);
  }

  const std::chrono::milliseconds keep_alive_;
  std::map<std::string, std::set<xtcp::ConnPtr>> subscribers_;  // by topic; none is empty
};

}  // namespace

int main(int argc, char** argv) {
  const std::chrono::duration<double> keep_alive(argc == 3 ? std::atof(argv[2]) : 30);
  if (argc < 2 || argc > 3 || keep_alive < 1ms) {
    std::cerr << "usage: broker HOST:PORT [KEEP_ALIVE_SECONDS]\n";
    return 2;
  }
  xtcp::Options options{.handler = std::make_shared<Broker>(
                            std::chrono::duration_cast<std::chrono::milliseconds>(keep_alive)),
                        .protocol = std::make_shared<xtcp::LineProtocol>()};
  xtcp::Server server(options.Hardened());
  std::error_code error = server.Listen(argv[1]);
  if (!error) {
    std::cout << "listens on " << server.Addresses().front().ToString() << std::endl;
    error = xtcp::ServeUntilSignal(server);
  }
  if (error) std::cerr << argv[1] << ": " << error.message() << '\n';
  return error ? 1 : 0;
}
