#pragma once

#include <cstdint>
#include <functional>
#include <utility>

#include "reactor/channel.h"

namespace xtcp::internal {

// A channel whose reactions a test gives.
class TestChannel final : public Channel {
 public:
  std::function<void(std::uint32_t)> on_events;
  std::function<void()> on_timer;
  std::function<void()> on_posted;
  std::function<void()> on_retired;

  void Take(UniqueFd fd) { fd_ = std::move(fd); }
  UniqueFd& fd() { return fd_; }
  using Channel::ClaimPost;
  using Channel::posted;

  void HandleEvents(std::uint32_t events) override {
    if (on_events) on_events(events);
  }
  void HandleTimer() override {
    if (on_timer) on_timer();
  }
  void HandlePosted() override {
    if (on_posted) on_posted();
  }
  void HandleRetired() override {
    if (on_retired) on_retired();
  }
};

}  // namespace xtcp::internal
