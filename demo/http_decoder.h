#pragma once

// HTTP/1.1 requests (RFC 9110, RFC 9112), for a server. A request comes as several packets, so that
// a body of any length takes no more memory than one read:
//
//   POST /x HTTP/1.1 …      head, then the parts of the body as they arrive; the last one says so
//   GET /x HTTP/1.1 …       a head, which is the last packet, too
//
// What two servers in a row could understand in two ways is an error (RFC 9112, 11.2), and so is
// what the RFC allows to repair. After an error nobody knows where the next request begins, so the
// connection has to end.

#include <xtcp/xtcp.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <system_error>

namespace demo {

// The errors of the decoder are the statuses with which to answer: 400, 413, 414, 417, 431, 501,
// 505.
const std::error_category& HttpErrorCategory() noexcept;

// The head of a request. Its texts are in the receive buffer.
struct HttpHead {
  std::string_view method;
  std::string_view target;                // "/path?query", or "*"
  int minor_version = 1;                  // of HTTP/1
  bool keep_alive = true;                 // the client wants to ask again
  bool expects_continue = false;          // it waits for a "100 Continue" with the body
  bool chunked = false;                   // a body of unknown length comes,
  std::optional<std::uint64_t> length{};  // or one of this length

  bool has_body() const { return chunked || length.value_or(0) > 0; }
};

// A head, a part of the body, or nothing but the mark that a chunked body is complete.
struct HttpPacket : xtcp::Packet {
  std::optional<HttpHead> head{};
  std::string_view part{};  // of the body, not owned; not empty where there is no head and no end
  bool last = false;        // the request is complete
};

// Takes requests from one connection.
class HttpDecoder : public xtcp::Protocol::Decoder {
 public:
  // The longest head, and the longest trailer section: Options::first_packet_size and
  // max_packet_size must not be less.
  static constexpr std::size_t kHeadBytesMax = 16 << 10;

  // A body of more than `body_max` bytes is refused (413).
  explicit HttpDecoder(std::uint64_t body_max) : body_max_(body_max) {}

  xtcp::UnpackResult Unpack(std::span<const std::byte> buf) override;

 private:
  // What comes next.
  enum class State { kHead, kCounted, kChunkSize, kChunk, kChunkEnd, kTrailer };

  xtcp::UnpackResult TakeHead(std::string_view text);
  xtcp::UnpackResult TakePart(std::string_view text);
  xtcp::UnpackResult TakeChunkSize(std::string_view text);
  xtcp::UnpackResult TakeChunkEnd(std::string_view text);
  xtcp::UnpackResult TakeTrailer(std::string_view text);

  const std::uint64_t body_max_;
  State state_ = State::kHead;
  std::size_t lines_ = 0;    // bytes of whole lines that were seen of a head or a trailer section
  std::uint64_t left_ = 0;   // of the counted body, or of the chunk
  std::uint64_t total_ = 0;  // of all chunks
};

// Only unpacks: answers are text.
class HttpProtocol : public xtcp::Protocol {
 public:
  explicit HttpProtocol(std::uint64_t body_max) : body_max_(body_max) {}
  std::unique_ptr<Decoder> NewDecoder() const override {
    return std::make_unique<HttpDecoder>(body_max_);
  }

 private:
  const std::uint64_t body_max_;
};

}  // namespace demo
