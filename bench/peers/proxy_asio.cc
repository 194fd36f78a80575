// The proxy on standalone asio, as one who knows it would write it: for each direction a buffer,
// which is read into, and written from before the next read.

#include <arpa/inet.h>

#include <asio.hpp>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <utility>
#include <vector>

namespace {

using asio::ip::tcp;

class Session : public std::enable_shared_from_this<Session> {
 public:
  explicit Session(tcp::socket client)
      : client_(std::move(client)), target_(client_.get_executor()) {}

  void Begin(const tcp::endpoint& target) {
    target_.async_connect(target, [this, self = shared_from_this()](const asio::error_code& error) {
      if (error) return Close();
      asio::error_code ignored;
      target_.set_option(tcp::no_delay(true), ignored);
      Pass(client_, target_, to_target_);
      Pass(target_, client_, to_client_);
    });
  }

 private:
  using Buffer = std::vector<char>;

  void Pass(tcp::socket& from, tcp::socket& to, Buffer& buffer) {
    from.async_read_some(asio::buffer(buffer), [&, this, self = shared_from_this()](
                                                   const asio::error_code& error, std::size_t got) {
      if (error) return Close();
      asio::async_write(to, asio::buffer(buffer.data(), got),
                        [&, this, self](const asio::error_code& failed, std::size_t) {
                          if (failed) return Close();
                          Pass(from, to, buffer);
                        });
    });
  }
  void Close() {
    asio::error_code ignored;
    client_.close(ignored);
    target_.close(ignored);
  }

  tcp::socket client_, target_;
  Buffer to_target_ = Buffer(64 << 10), to_client_ = Buffer(64 << 10);
};

void Accept(tcp::acceptor& acceptor, const tcp::endpoint& target) {
  acceptor.async_accept([&](const asio::error_code& error, tcp::socket socket) {
    if (!error) {
      asio::error_code ignored;
      socket.set_option(tcp::no_delay(true), ignored);
      std::make_shared<Session>(std::move(socket))->Begin(target);
    }
    Accept(acceptor, target);
  });
}

std::uint16_t PortOf(const char* text) { return static_cast<std::uint16_t>(std::atoi(text)); }

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  const auto loopback = asio::ip::address_v4::loopback();
  const tcp::endpoint target(loopback, PortOf(argv[1]));
  asio::io_context context(1);
  tcp::acceptor acceptor(context, {loopback, PortOf(argv[2])});
  std::printf("passes on what comes to 127.0.0.1:%d\n", acceptor.local_endpoint().port());
  std::fflush(stdout);
  Accept(acceptor, target);
  context.run();
}
