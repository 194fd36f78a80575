// Sends from other threads on libuv, as its users write them: a vector for each connection under a
// mutex, and a uv_async_t that has the loop write what is there: at once as far as it can, and the
// rest by a request. See support/sends.h.

#include <uv.h>

#include <condition_variable>
#include <cstddef>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "support/sends.h"

namespace {

std::mutex told_mutex;
struct Connection;
std::vector<Connection*> told;   // guarded by told_mutex
std::vector<Connection*> ready;  // the loop's
uv_async_t wake;
std::size_t unfinished = 0;  // connections that are to be closed when all is written
bool finishes = false;       // the loop's
uv_async_t finish;

struct Connection {
  uv_tcp_t socket;
  std::mutex mutex;
  std::condition_variable room;
  std::vector<char> waiting;  // these three are guarded by the mutex
  std::size_t queued = 0;
  bool is_told = false;
  std::vector<char> writing;  // the loop's
  bool requested = false;     // the rest of it
  uv_write_t request;

  uv_stream_t* stream() { return reinterpret_cast<uv_stream_t*>(&socket); }

  void NoteWritten(std::size_t bytes) {
    {
      const std::lock_guard lock(mutex);
      queued -= bytes;
    }
    room.notify_all();
  }

  void Flush() {
    while (!requested) {
      writing.clear();
      {
        const std::lock_guard lock(mutex);
        is_told = false;
        if (waiting.empty()) break;
        writing.swap(waiting);
      }
      uv_buf_t buffer = uv_buf_init(writing.data(), static_cast<unsigned>(writing.size()));
      const int n = uv_try_write(stream(), &buffer, 1);
      const std::size_t taken = n < 0 ? 0 : static_cast<std::size_t>(n);
      if (taken > 0) NoteWritten(taken);
      if (taken == writing.size()) continue;
      buffer = uv_buf_init(writing.data() + taken, static_cast<unsigned>(writing.size() - taken));
      requested = true;
      request.data = this;
      rest = writing.size() - taken;
      uv_write(&request, stream(), &buffer, 1, [](uv_write_t* done, int) {
        auto* const self = static_cast<Connection*>(done->data);
        self->requested = false;
        self->NoteWritten(self->rest);
        self->Flush();
      });
    }
    if (finishes && !requested && !std::exchange(closed, true)) {
      uv_close(reinterpret_cast<uv_handle_t*>(&socket), nullptr);
      if (--unfinished == 0) uv_stop(uv_default_loop());
    }
  }
  std::size_t rest = 0;
  bool closed = false;
};

std::vector<std::unique_ptr<Connection>> connections;

void FlushTold(uv_async_t*) {
  {
    const std::lock_guard lock(told_mutex);
    ready.swap(told);
  }
  for (Connection* connection : ready) connection->Flush();
  ready.clear();
}

void FlushAll(uv_async_t*) {
  finishes = true;
  for (const auto& connection : connections) connection->Flush();
}

void Send(Connection* connection, bench::MessageBytes bytes) {
  const char* const begin = reinterpret_cast<const char*>(bytes.data());
  {
    std::unique_lock lock(connection->mutex);
    connection->room.wait(lock,
                          [&] { return connection->queued + bytes.size() <= bench::kSendLimit; });
    connection->waiting.insert(connection->waiting.end(), begin, begin + bytes.size());
    connection->queued += bytes.size();
    if (std::exchange(connection->is_told, true)) return;
  }
  {
    const std::lock_guard lock(told_mutex);
    told.push_back(connection);
    if (told.size() > 1) return;
  }
  uv_async_send(&wake);
}

}  // namespace

int main(int, char** argv) {
  const std::size_t producers = std::strtoul(argv[1], nullptr, 10);
  unfinished = std::strtoul(argv[2], nullptr, 10);
  const std::size_t count = unfinished;
  uv_loop_t* const loop = uv_default_loop();
  uv_async_init(loop, &wake, FlushTold);
  uv_async_init(loop, &finish, FlushAll);
  const int listener = bench::ListenAndSayWhere();
  for (std::size_t i = 0; i < count; ++i) {
    connections.push_back(std::make_unique<Connection>());
    uv_tcp_init(loop, &connections.back()->socket);
    uv_tcp_open(&connections.back()->socket, bench::AcceptOne(listener));
  }
  std::thread running([&] { uv_run(loop, UV_RUN_DEFAULT); });
  bench::MeasureSends(
      producers, count,
      [&](std::size_t index, bench::MessageBytes bytes) { Send(connections[index].get(), bytes); },
      [&] {
        uv_async_send(&finish);
        running.join();
      });
}
