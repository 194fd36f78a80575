#pragma once

#include <xtcp/bytes.h>
#include <xtcp/export.h>

#include <cstddef>
#include <memory>
#include <new>
#include <span>
#include <string>
#include <system_error>
#include <vector>

namespace xtcp {

// One message of the user's protocol. Derive from it; the library only carries it from `Unpack` to
// `Handler::OnEvent`, and from `SendPacket` to `PackTo`.
class XTCP_API Packet {
 public:
  virtual ~Packet() = default;

  // Returns a short text for logs; "packet" unless overridden.
  virtual std::string ToString() const;

  // Packets are allocated at the rate of the traffic, so small ones are recycled through a free
  // list of their thread. In a program that runs under valgrind's memcheck, or with a sanitizer,
  // they are not, so that a packet used after its end is found. A derived class may have its own
  // operators instead.
  static void* operator new(std::size_t size) { return Memory::Take(size); }
  static void operator delete(void* packet, std::size_t size) noexcept {
    Memory::Give(packet, size);
  }

  // The other forms, all of which the two above would hide. An alignment that the allocator does
  // not give anyway (`alignas` of more than 16) leaves the list alone.
  static void* operator new(std::size_t, void* place) noexcept { return place; }
  static void operator delete(void*, void*) noexcept {}
  static void* operator new(std::size_t size, const std::nothrow_t&) noexcept;
  static void operator delete(void* packet, const std::nothrow_t&) noexcept;
  static void* operator new(std::size_t size, std::align_val_t alignment);
  static void operator delete(void* packet, std::align_val_t alignment) noexcept;
  static void* operator new(std::size_t size, std::align_val_t alignment,
                            const std::nothrow_t&) noexcept;
  static void operator delete(void* packet, std::align_val_t alignment,
                              const std::nothrow_t&) noexcept;

 private:
  // The memory that packets leave to those to come: a list for each size on each thread. It is in
  // the header so that the compiler, which knows the size of a packet, knows the list.
  class Memory {
   public:
    static void* Take(std::size_t size) {
      if (size > kLargest) return ::operator new(size);
      List& list = lists_[IndexOf(size)];
      Free* const first = list.first;
      if (first == nullptr) return ::operator new(RoundUp(size));
      ++list.room;
      list.first = first->next;
      return first;
    }
    static void Give(void* packet, std::size_t size) noexcept {
      if (packet != nullptr && size <= kLargest) {
        List& list = lists_[IndexOf(size)];
        if (list.room > 0) {
          --list.room;
          list.first = ::new (packet) Free{list.first};
          return;
        }
      }
      GiveSlowly(packet);
    }

   private:
    struct Free {
      Free* next;
    };
    struct List {
      Free* first;
      int room;  // how many more may join
    };
    struct Cleaner;

    static constexpr std::size_t kStep = 16;      // sizes that share a list
    static constexpr std::size_t kLargest = 256;  // larger packets are left to the allocator

    static constexpr std::size_t IndexOf(std::size_t size) { return (size - 1) / kStep; }
    static constexpr std::size_t RoundUp(std::size_t size) { return (IndexOf(size) + 1) * kStep; }
    XTCP_API static void GiveSlowly(void* packet) noexcept;

    // Trivial, so that using it costs no check whether it was constructed; there is no room until
    // the thread has arranged that it is cleaned.
    XTCP_API static constinit thread_local List lists_[kLargest / kStep];
  };
};

// The way in which a packet is held, by one owner at a time.
using PacketPtr = std::unique_ptr<Packet>;

// The answer of `Protocol::Unpack`.
struct UnpackResult {
  PacketPtr packet{};       // the packet, if there is one
  std::size_t size = 0;     // bytes of the view that this answer consumes
  std::error_code error{};  // what is wrong with them, given to `Handler::OnUnpackError`

  // With the answer "more bytes are needed" this is their number, counted from the beginning of the
  // view: `Unpack` is not called again until that many wait. With 0, or a number that is not larger
  // than the view, it is called again with the next bytes.
  std::size_t need = 0;
};

// How packets look on the wire. What is not overridden is refused: a protocol that only unpacks
// need not pack, and the other way round.
//
// Thread safety: one object serves all connections and all threads at the same time, so it is
// stateless. What has to remember something from one packet to the next is a `Decoder`.
// Lifetime: shared by `Options` and by every connection made from them.
class XTCP_API Protocol {
 public:
  virtual ~Protocol();

  // Returns the exact number of bytes that `PackTo` will write, or 0 for a packet that cannot be
  // packed.
  virtual std::size_t PackSize(const Packet& packet) const;

  // Writes the packet. `writer` has room for exactly what `PackSize` said. An error, an exception,
  // or another number of bytes is the result of `SendPacket`; then nothing is queued and the
  // connection goes on. After a `PackSize` of 0 it is called with no room at all, to say why. It
  // runs on the thread that calls `SendPacket`, with no lock of the library held.
  virtual std::error_code PackTo(const Packet& packet, Writer& writer) const;

  // Takes the first packet from `buf`, which holds the bytes that wait and is never empty. It holds
  // at most as many as a packet may have (`Options::max_packet_size`, and `first_packet_size`
  // before the first packet); what lies after them comes next.
  //
  //   packet  size  error   meaning
  //   null    0     none    more bytes are needed
  //   null    n     none    n bytes are skipped (padding, keep-alives)
  //   null    n     set     a bad packet of n bytes: OnUnpackError gets them, and unpacking goes on
  //                         after them
  //   null    0     set     no way to resynchronise: OnUnpackError gets all that waits, then the
  //                         connection ends (CloseReason::kProtocolError)
  //   set     n     none    one packet
  //
  // Anything else, or n beyond the view, ends the connection (kProtocolError), and so does an
  // exception (kException). "More bytes are needed" with `Options::max_packet_size` bytes waiting
  // ends it with kPacketTooLarge. Loop thread only.
  //
  // The view is valid during the call, and for a packet that keeps a part of it until `OnEvent`
  // returns; a packet that leaves `OnEvent` must own its bytes.
  //
  // A protocol that knows from a length field how long its packet is says so in `need`. Otherwise a
  // long packet from a peer that trickles is looked at again with every few bytes. (One that has
  // searched all of the view for a delimiter cannot know, since the next byte may be it; if it asks
  // for more, a peer may wait in vain for its answer.) If the stream ends first, `Unpack` gets what
  // there is once more, if there are bytes that it has not seen. A `need` beyond the limit ends the
  // connection at once (kPacketTooLarge). Nothing is reserved because of `need`.
  virtual UnpackResult Unpack(std::span<const std::byte> buf) const;

  // The state of one connection's input, for protocols in which the meaning of bytes depends on
  // those before: it is asked instead of the protocol. A message may so be several packets, such as
  // a head, the parts of a body, and an end (which carries a mark of its own, since a packet of no
  // bytes breaks the rules). A packet is delivered before the bytes after it are unpacked: what
  // `OnEvent` does to the decoder (`Conn::decoder`), or sends, is done by then.
  //
  // Thread safety: it is used on its connection's loop thread only.
  // Lifetime: it belongs to its connection, and is destroyed when `kClosed` has returned.
  class XTCP_API Decoder {
   public:
    virtual ~Decoder();

    // Takes the first packet from `buf`, as `Protocol::Unpack` does; an exception has the same
    // effect.
    virtual UnpackResult Unpack(std::span<const std::byte> buf) = 0;
  };

  // Makes the decoder of one connection, before its first bytes are unpacked or when
  // `Conn::decoder` is first asked for; null, unless overridden, means that there is none. What it
  // throws has the effect of an exception from `Unpack`. Loop thread only.
  virtual std::unique_ptr<Decoder> NewDecoder() const;

  // Packs into `*out`, which is replaced; it is for packing once and sending to many. With an
  // error, the same that `SendPacket` would return (`Errc::kBadPacket`, `Errc::kNoMemory`, or the
  // packer's own), `*out` is empty. The library does not call it. Any thread.
  XTCP_CONTAINERS std::error_code Pack(const Packet& packet, std::vector<std::byte>* out) const;
};

}  // namespace xtcp
