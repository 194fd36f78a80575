// The framed echo on standalone asio, as one who knows it and cares for speed would write it: one
// read at a time into the connection's buffer, and what one read gave leaves in one write.

#include <arpa/inet.h>

#include <asio.hpp>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <utility>
#include <vector>

namespace {

using asio::ip::tcp;

class Session : public std::enable_shared_from_this<Session> {
 public:
  explicit Session(tcp::socket socket) : socket_(std::move(socket)) {}

  void Read() {
    if (input_.size() - filled_ < kRoom) input_.resize(2 * input_.size());
    socket_.async_read_some(
        asio::buffer(input_.data() + filled_, input_.size() - filled_),
        [this, self = shared_from_this()](const asio::error_code& error, std::size_t got) {
          if (error) return;
          filled_ += got;
          TakeFrames();
          Write();
          Read();
        });
  }

 private:
  static constexpr std::size_t kRoom = 4 << 10;

  void TakeFrames() {
    std::size_t done = 0;
    std::uint32_t length;
    while (filled_ - done >= sizeof length) {
      std::memcpy(&length, input_.data() + done, sizeof length);
      const std::size_t frame = sizeof length + std::size_t{ntohl(length)};
      if (filled_ - done < frame) break;
      const char* bytes = input_.data() + done;
      next_output_.insert(next_output_.end(), bytes, bytes + frame);
      done += frame;
    }
    filled_ -= done;
    if (done > 0) std::memmove(input_.data(), input_.data() + done, filled_);
  }

  void Write() {
    if (writing_ || next_output_.empty()) return;
    writing_ = true;
    output_.swap(next_output_);
    next_output_.clear();
    asio::async_write(
        socket_, asio::buffer(output_),
        [this, self = shared_from_this()](const asio::error_code& error, std::size_t) {
          writing_ = false;
          if (!error) Write();
        });
  }

  tcp::socket socket_;
  std::vector<char> input_ = std::vector<char>(64 << 10);
  std::size_t filled_ = 0;
  std::vector<char> output_;       // is being written
  std::vector<char> next_output_;  // gathers meanwhile
  bool writing_ = false;
};

void Accept(tcp::acceptor& acceptor) {
  acceptor.async_accept([&acceptor](const asio::error_code& error, tcp::socket socket) {
    if (!error) {
      asio::error_code ignored;
      socket.set_option(tcp::no_delay(true), ignored);
      std::make_shared<Session>(std::move(socket))->Read();
    }
    Accept(acceptor);
  });
}

}  // namespace

int main(int argc, char** argv) {
  const auto port = static_cast<std::uint16_t>(argc > 1 ? std::atoi(argv[1]) : 0);
  asio::io_context context(1);
  tcp::acceptor acceptor(context, {asio::ip::address_v4::loopback(), port});
  std::printf("echoes frames on 127.0.0.1:%d\n", acceptor.local_endpoint().port());
  std::fflush(stdout);
  Accept(acceptor);
  context.run();
}
