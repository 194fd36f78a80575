#pragma once

#include <xtcp/conn.h>

#include <cstddef>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

namespace xtcp::internal {

// A visit to all connections of a server (`Server::ForEach`), with a stage for each of its loops.
// All of its memory is had when it is made. The stages that are under way keep it alive.
struct ServerVisit {
  using Call = std::function<void(const ConnPtr&)>;
  struct Stage {
    std::shared_ptr<ServerVisit> keep;
    Stage* next = nullptr;  // in the queue of a loop
  };

  // Throws std::bad_alloc.
  ServerVisit(Call with, std::size_t loops) : call(std::move(with)), stages(loops) {}

  const Call call;
  std::vector<Stage> stages;
};

}  // namespace xtcp::internal
