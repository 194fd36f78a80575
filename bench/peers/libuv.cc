// The framed echo on libuv, as one who knows it and cares for speed would write it: one read buffer
// for all connections, uv_try_write first, and uv_write for what does not fit.

#include <arpa/inet.h>
#include <uv.h>

#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

namespace {

constexpr std::size_t kReadBytes = 256 << 10;
char input[2 * kReadBytes];  // the tail of a frame, then what is read
std::vector<char> output;

struct Connection {
  uv_tcp_t tcp{};
  std::vector<char> tail;  // an unfinished frame
};

struct Write {
  uv_write_t request{};
  std::vector<char> bytes;
};

void Allocate(uv_handle_t* handle, std::size_t, uv_buf_t* buffer) {
  const std::vector<char>& tail = static_cast<Connection*>(handle->data)->tail;
  if (!tail.empty()) std::memcpy(input, tail.data(), tail.size());
  *buffer = uv_buf_init(input + tail.size(), kReadBytes);
}

void Close(Connection* connection) {
  auto* handle = reinterpret_cast<uv_handle_t*>(&connection->tcp);
  if (uv_is_closing(handle)) return;
  uv_close(handle, [](uv_handle_t* closed) { delete static_cast<Connection*>(closed->data); });
}

void Send(uv_stream_t* stream) {
  uv_buf_t buffer = uv_buf_init(output.data(), static_cast<unsigned>(output.size()));
  const int taken = uv_try_write(stream, &buffer, 1);
  const auto sent = static_cast<std::size_t>(taken > 0 ? taken : 0);
  if (sent == output.size()) return;
  auto* write = new Write;
  write->bytes.assign(output.data() + sent, output.data() + output.size());
  write->request.data = write;
  buffer = uv_buf_init(write->bytes.data(), static_cast<unsigned>(write->bytes.size()));
  uv_write(&write->request, stream, &buffer, 1,
           [](uv_write_t* done, int) { delete static_cast<Write*>(done->data); });
}

void Read(uv_stream_t* stream, ssize_t got, const uv_buf_t*) {
  auto* connection = static_cast<Connection*>(stream->data);
  if (got == 0) return;  // as EAGAIN
  if (got < 0) {
    Close(connection);
    return;
  }
  const std::size_t n = connection->tail.size() + static_cast<std::size_t>(got);
  output.clear();
  std::size_t done = 0;
  std::uint32_t length;
  while (n - done >= sizeof length) {
    std::memcpy(&length, input + done, sizeof length);
    const std::size_t frame = sizeof length + std::size_t{ntohl(length)};
    if (n - done < frame) break;
    output.insert(output.end(), input + done, input + done + frame);
    done += frame;
  }
  if (n - done > kReadBytes) {  // a frame that is larger than what we read
    Close(connection);
    return;
  }
  connection->tail.assign(input + done, input + n);
  if (!output.empty()) Send(stream);
}

void Accept(uv_stream_t* listener, int status) {
  if (status < 0) return;
  auto* connection = new Connection;
  uv_tcp_init(listener->loop, &connection->tcp);
  connection->tcp.data = connection;
  auto* stream = reinterpret_cast<uv_stream_t*>(&connection->tcp);
  if (uv_accept(listener, stream) != 0) {
    Close(connection);
    return;
  }
  uv_tcp_nodelay(&connection->tcp, 1);
  uv_read_start(stream, Allocate, Read);
}

}  // namespace

int main(int argc, char** argv) {
  std::signal(SIGPIPE, SIG_IGN);
  sockaddr_in address{};
  uv_ip4_addr("127.0.0.1", argc > 1 ? std::atoi(argv[1]) : 0, &address);
  uv_loop_t* loop = uv_default_loop();
  uv_tcp_t listener;
  uv_tcp_init(loop, &listener);
  int size = sizeof address;
  auto* any = reinterpret_cast<sockaddr*>(&address);
  if (uv_tcp_bind(&listener, any, 0) != 0 ||
      uv_listen(reinterpret_cast<uv_stream_t*>(&listener), 4096, Accept) != 0 ||
      uv_tcp_getsockname(&listener, any, &size) != 0) {
    std::fprintf(stderr, "libuv: cannot listen\n");
    return 1;
  }
  std::printf("echoes frames on 127.0.0.1:%d\n", ntohs(address.sin_port));
  std::fflush(stdout);
  return uv_run(loop, UV_RUN_DEFAULT);
}
