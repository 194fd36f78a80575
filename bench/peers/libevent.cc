// The framed echo on libevent's bufferevents, as one who knows it and cares for speed would write
// it: frames are moved, not copied, from the input to the output buffer.

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

void Read(bufferevent* connection, void*) {
  evbuffer* input = bufferevent_get_input(connection);
  evbuffer* output = bufferevent_get_output(connection);
  // The whole frames at the front, in one move.
  std::size_t done = 0;
  const std::size_t n = evbuffer_get_length(input);
  evbuffer_ptr position;
  evbuffer_ptr_set(input, &position, 0, EVBUFFER_PTR_SET);
  std::uint32_t length;
  while (n - done >= sizeof length) {
    evbuffer_copyout_from(input, &position, &length, sizeof length);
    const std::size_t frame = sizeof length + std::size_t{ntohl(length)};
    if (n - done < frame) break;
    done += frame;
    if (evbuffer_ptr_set(input, &position, frame, EVBUFFER_PTR_ADD) != 0) break;
  }
  if (done > 0) evbuffer_remove_buffer(input, output, done);
}

void End(bufferevent* connection, short, void*) { bufferevent_free(connection); }

void Accept(evconnlistener*, evutil_socket_t fd, sockaddr*, int, void* base) {
  const int one = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  bufferevent* connection =
      bufferevent_socket_new(static_cast<event_base*>(base), fd, BEV_OPT_CLOSE_ON_FREE);
  bufferevent_set_max_single_read(connection, kAtOnce);
  bufferevent_set_max_single_write(connection, kAtOnce);
  bufferevent_setcb(connection, Read, nullptr, End, nullptr);
  bufferevent_enable(connection, EV_READ | EV_WRITE);
}

}  // namespace

int main(int argc, char** argv) {
  std::signal(SIGPIPE, SIG_IGN);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<std::uint16_t>(argc > 1 ? std::atoi(argv[1]) : 0));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  event_base* base = event_base_new();
  evconnlistener* listener =
      evconnlistener_new_bind(base, Accept, base, LEV_OPT_CLOSE_ON_FREE | LEV_OPT_REUSEABLE, 4096,
                              reinterpret_cast<sockaddr*>(&address), sizeof address);
  socklen_t size = sizeof address;
  if (listener == nullptr || getsockname(evconnlistener_get_fd(listener),
                                         reinterpret_cast<sockaddr*>(&address), &size) != 0) {
    std::fprintf(stderr, "libevent: cannot listen\n");
    return 1;
  }
  std::printf("echoes frames on 127.0.0.1:%d\n", ntohs(address.sin_port));
  std::fflush(stdout);
  return event_base_dispatch(base);
}
