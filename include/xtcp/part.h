#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string_view>
#include <utility>

namespace xtcp {

// A part of what `Conn::SendParts` sends: bytes, and what keeps them alive.
struct Part {
  // The bytes. They must not change while anything holds the owner.
  std::span<const std::byte> bytes{};

  // Keeps the bytes alive. Without an owner they are copied during the call.
  std::shared_ptr<const void> owner{};

  // Makes a part of no bytes.
  Part() = default;

  // Makes a part of bytes that are copied.
  Part(std::span<const std::byte> copied) : bytes(copied) {}  // NOLINT: bytes are a part

  // Makes a part of text that is copied.
  Part(std::string_view copied)  // NOLINT
      : bytes(std::as_bytes(std::span(copied.data(), copied.size()))) {}
  Part(const char* copied) : Part(std::string_view(copied)) {}  // NOLINT

  // Makes a part of bytes that `by` keeps alive.
  Part(std::span<const std::byte> shared, std::shared_ptr<const void> by)
      : bytes(shared), owner(std::move(by)) {}

  // Makes a part of all of a vector, a string or an array, which is shared. Null gives no bytes.
  template <typename Container>
  requires requires(const Container& c) { std::as_bytes(std::span(c.data(), c.size())); }
  Part(std::shared_ptr<Container> shared)  // NOLINT
      : bytes(shared == nullptr ? std::span<const std::byte>{}
                                : std::as_bytes(std::span(shared->data(), shared->size()))),
        owner(std::move(shared)) {}
};

}  // namespace xtcp
