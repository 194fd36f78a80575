#pragma once

#include <xtcp/xtcp.h>

#include <catch2/catch.hpp>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "support/raw_peer.h"
#include "support/test_group.h"
#include "support/test_server.h"

namespace xtcp::test {

// One connection and its peer, of each kind: accepted or dialled on a group that others could share,
// or accepted by a server with loops of its own.
enum class Kind { kAccepted, kDialled, kOwnServer };

struct OneOf {
  explicit OneOf(Kind kind, Options options = {}, std::shared_ptr<EventRecorder> with = nullptr,
                 int receive_buffer = 0)
      : events(with != nullptr ? std::move(with) : std::make_shared<EventRecorder>()) {
    if (kind != Kind::kOwnServer) group.emplace(2);
    if (kind == Kind::kDialled) {
      listener.emplace();
      dialled = NewConn(WithDefaults(std::move(options), events), group->loop(1));
      REQUIRE_FALSE(dialled->Dial(listener->address()));
      peer = listener->Accept();
      REQUIRE(events->WaitForConnected(1));
    } else {
      if (kind == Kind::kAccepted) {
        server = StartServer(**group, events, std::move(options));
        peer = RawPeer(AddressOf(*server), receive_buffer);
      } else {
        own = std::make_unique<TestServer>(events, std::move(options));
        peer = RawPeer(own->address(), receive_buffer);
      }
      REQUIRE(events->WaitForAccepted(1));
    }
    conn = events->conn();
  }

  // Every test ends with this.
  void Finish() {
    if (group.has_value()) REQUIRE(group->Finish() == "");
    if (own != nullptr) {
      REQUIRE(own->Finish() == "");
    } else {
      REQUIRE(events->Verify() == "");
    }
  }

  std::shared_ptr<EventRecorder> events;
  std::optional<RawListener> listener;
  std::optional<TestGroup> group;
  std::unique_ptr<Server> server;
  std::unique_ptr<TestServer> own;
  ConnPtr dialled;
  ConnPtr conn;
  RawPeer peer;
};

}  // namespace xtcp::test
