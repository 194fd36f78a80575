// The proxy on libuv, as one who knows it and cares for speed would write it: one read buffer for
// all connections, uv_try_write first, uv_write for what does not fit, and no reading from an end
// while the other one has a write on its way.

#include <arpa/inet.h>
#include <uv.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <vector>

namespace {

char input[256 << 10];
sockaddr_in target{};

struct End {
  uv_tcp_t tcp{};
  uv_connect_t connect{};
  uv_write_t write{};
  std::vector<char> waiting;  // of `write`
  End* other = nullptr;       // null when that one has closed
  bool closing = false;
  uv_stream_t* stream() { return reinterpret_cast<uv_stream_t*>(&tcp); }
};
End* EndOf(uv_stream_t* stream) { return static_cast<End*>(stream->data); }

void Allocate(uv_handle_t*, std::size_t, uv_buf_t* buffer) {
  *buffer = uv_buf_init(input, sizeof input);
}

void Close(End* end) {
  if (end == nullptr || end->closing) return;
  end->closing = true;
  if (end->other != nullptr) end->other->other = nullptr;
  uv_close(reinterpret_cast<uv_handle_t*>(&end->tcp),
           [](uv_handle_t* closed) { delete static_cast<End*>(closed->data); });
}
void CloseBoth(End* end) {
  End* const other = end->other;
  Close(end);
  Close(other);
}

void Read(uv_stream_t* stream, ssize_t got, const uv_buf_t*);

void Written(uv_write_t* write, int status) {
  auto* const to = static_cast<End*>(write->data);
  if (to->closing) return;
  if (status < 0) return CloseBoth(to);
  if (to->other != nullptr) uv_read_start(to->other->stream(), Allocate, Read);
}

void Read(uv_stream_t* stream, ssize_t got, const uv_buf_t*) {
  End* const from = EndOf(stream);
  End* const to = from->other;
  if (got == 0) return;  // as EAGAIN
  if (got < 0 || to == nullptr) return CloseBoth(from);
  uv_buf_t buffer = uv_buf_init(input, static_cast<unsigned>(got));
  const int taken = uv_try_write(to->stream(), &buffer, 1);
  const ssize_t sent = taken > 0 ? taken : 0;
  if (sent == got) return;
  to->waiting.assign(input + sent, input + got);
  to->write.data = to;
  buffer = uv_buf_init(to->waiting.data(), static_cast<unsigned>(to->waiting.size()));
  if (uv_write(&to->write, to->stream(), &buffer, 1, Written) != 0) return CloseBoth(from);
  uv_read_stop(stream);
}

End* MakeEnd(uv_loop_t* loop) {
  auto* const end = new End;
  uv_tcp_init(loop, &end->tcp);
  end->tcp.data = end;
  return end;
}

void Connected(uv_connect_t* connect, int status) {
  End* const end = EndOf(connect->handle);
  if (end->closing) return;
  if (status < 0 || end->other == nullptr) return CloseBoth(end);
  uv_tcp_nodelay(&end->tcp, 1);
  uv_read_start(end->stream(), Allocate, Read);
  uv_read_start(end->other->stream(), Allocate, Read);
}

void Accept(uv_stream_t* listener, int status) {
  if (status < 0) return;
  End* const client = MakeEnd(listener->loop);
  if (uv_accept(listener, client->stream()) != 0) return Close(client);
  uv_tcp_nodelay(&client->tcp, 1);
  End* const dialled = MakeEnd(listener->loop);
  client->other = dialled;
  dialled->other = client;
  if (uv_tcp_connect(&dialled->connect, &dialled->tcp, reinterpret_cast<sockaddr*>(&target),
                     Connected) != 0) {
    CloseBoth(client);
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  std::signal(SIGPIPE, SIG_IGN);
  sockaddr_in address{};
  uv_ip4_addr("127.0.0.1", std::atoi(argv[1]), &target);
  uv_ip4_addr("127.0.0.1", std::atoi(argv[2]), &address);
  uv_loop_t* loop = uv_default_loop();
  uv_tcp_t listener;
  uv_tcp_init(loop, &listener);
  int size = sizeof address;
  auto* any = reinterpret_cast<sockaddr*>(&address);
  if (uv_tcp_bind(&listener, any, 0) != 0 ||
      uv_listen(reinterpret_cast<uv_stream_t*>(&listener), 4096, Accept) != 0 ||
      uv_tcp_getsockname(&listener, any, &size) != 0) {
    std::fprintf(stderr, "proxy_libuv: cannot listen\n");
    return 1;
  }
  std::printf("passes on what comes to 127.0.0.1:%d\n", ntohs(address.sin_port));
  std::fflush(stdout);
  return uv_run(loop, UV_RUN_DEFAULT);
}
