// The proxy on libevent's bufferevents, as one who knows it would write it: what was read is moved
// to the other end's output, not copied, and nothing is read while that has much to write.

#include <arpa/inet.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <event2/listener.h>
#include <netinet/tcp.h>

#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>

namespace {

constexpr std::size_t kAtOnce = 256 << 10;  // bytes of one read or write
constexpr std::size_t kQueued = 1 << 20;    // bytes that may wait for an end
sockaddr_in target{};

// Each end has the other one as its argument.
bufferevent* OtherOf(void* argument) { return static_cast<bufferevent*>(argument); }

void Read(bufferevent* from, void* argument) {
  bufferevent* const to = OtherOf(argument);
  evbuffer* const output = bufferevent_get_output(to);
  evbuffer_add_buffer(output, bufferevent_get_input(from));
  if (evbuffer_get_length(output) > kQueued) bufferevent_disable(from, EV_READ);
}

// What was queued is written, but for half of what may wait.
void Written(bufferevent*, void* argument) {
  bufferevent* const from = OtherOf(argument);
  if ((bufferevent_get_enabled(from) & EV_READ) == 0) bufferevent_enable(from, EV_READ);
}

void Happens(bufferevent* end, short what, void* argument) {
  bufferevent* const other = OtherOf(argument);
  if ((what & BEV_EVENT_CONNECTED) != 0) {
    const int one = 1;
    setsockopt(bufferevent_getfd(end), IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    bufferevent_enable(other, EV_READ);
    return;
  }
  bufferevent_free(end);
  bufferevent_free(other);
}

void SetUp(bufferevent* end, bufferevent* other) {
  bufferevent_set_max_single_read(end, kAtOnce);
  bufferevent_set_max_single_write(end, kAtOnce);
  bufferevent_setwatermark(end, EV_WRITE, kQueued / 2, 0);
  bufferevent_setcb(end, Read, Written, Happens, other);
}

void Accept(evconnlistener*, evutil_socket_t fd, sockaddr*, int, void* argument) {
  auto* const base = static_cast<event_base*>(argument);
  const int one = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  bufferevent* const client = bufferevent_socket_new(base, fd, BEV_OPT_CLOSE_ON_FREE);
  bufferevent* const dialled = bufferevent_socket_new(base, -1, BEV_OPT_CLOSE_ON_FREE);
  SetUp(client, dialled);
  SetUp(dialled, client);
  bufferevent_enable(client, EV_WRITE);
  bufferevent_disable(client, EV_READ);
  bufferevent_enable(dialled, EV_READ | EV_WRITE);
  bufferevent_socket_connect(dialled, reinterpret_cast<sockaddr*>(&target), sizeof target);
}

sockaddr_in Loopback(const char* port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<std::uint16_t>(std::atoi(port)));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return address;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  std::signal(SIGPIPE, SIG_IGN);
  target = Loopback(argv[1]);
  sockaddr_in address = Loopback(argv[2]);
  event_base* base = event_base_new();
  evconnlistener* listener =
      evconnlistener_new_bind(base, Accept, base, LEV_OPT_CLOSE_ON_FREE | LEV_OPT_REUSEABLE, 4096,
                              reinterpret_cast<sockaddr*>(&address), sizeof address);
  socklen_t size = sizeof address;
  if (listener == nullptr || getsockname(evconnlistener_get_fd(listener),
                                         reinterpret_cast<sockaddr*>(&address), &size) != 0) {
    std::fprintf(stderr, "proxy_libevent: cannot listen\n");
    return 1;
  }
  std::printf("passes on what comes to 127.0.0.1:%d\n", ntohs(address.sin_port));
  std::fflush(stdout);
  return event_base_dispatch(base);
}
