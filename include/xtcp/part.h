#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string_view>
#include <utility>

namespace xtcp {

// A part of what `Conn::SendParts` sends: bytes, and who keeps them alive. Without an owner they are
// copied during the call.
struct Part {
  std::span<const std::byte> bytes{};
  std::shared_ptr<const void> owner{};

  Part() = default;

  // Bytes or text that are copied.
  Part(std::span<const std::byte> copied) : bytes(copied) {}  // NOLINT: bytes are a part
  Part(std::string_view copied)                               // NOLINT
      : bytes(std::as_bytes(std::span(copied.data(), copied.size()))) {}
  Part(const char* copied) : Part(std::string_view(copied)) {}  // NOLINT

  // Bytes that `owner` keeps.
  Part(std::span<const std::byte> shared, std::shared_ptr<const void> by)
      : bytes(shared), owner(std::move(by)) {}

  // All of a vector, a string or an array, which is shared. Null is no bytes.
  template <typename Container>
  requires requires(const Container& c) { std::as_bytes(std::span(c.data(), c.size())); }
  Part(std::shared_ptr<Container> shared)  // NOLINT
      : bytes(shared == nullptr ? std::span<const std::byte>{}
                                : std::as_bytes(std::span(shared->data(), shared->size()))),
        owner(std::move(shared)) {}
};

}  // namespace xtcp
