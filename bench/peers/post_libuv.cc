// Tasks on libuv, as its users write it: a vector under a mutex, and a uv_async_t that wakes the
// loop for the first of them. post_libuv rate THREADS, or post_libuv delay. See support/posts.h.

#include <uv.h>

#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "support/posts.h"

namespace {

std::mutex mutex;
std::vector<std::function<void()>> waiting;  // guarded by the mutex
std::vector<std::function<void()>> running;  // the loop's
uv_async_t wake;

void RunWaiting(uv_async_t*) {
  {
    const std::lock_guard lock(mutex);
    running.swap(waiting);
  }
  for (const auto& task : running) task();
  running.clear();
}

}  // namespace

int main(int argc, char** argv) {
  uv_loop_t* const loop = uv_default_loop();
  uv_async_init(loop, &wake, RunWaiting);
  std::jthread thread([&] { uv_run(loop, UV_RUN_DEFAULT); });
  const auto post = [](std::function<void()> task) {
    bool first;
    {
      const std::lock_guard lock(mutex);
      first = waiting.empty();
      waiting.push_back(std::move(task));
    }
    if (first) uv_async_send(&wake);
  };
  bench::MeasureAsTold(std::vector<std::string>(argv + 1, argv + argc), post);
  post([] { uv_stop(uv_default_loop()); });
}
