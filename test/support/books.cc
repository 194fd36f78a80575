#include "support/books.h"

#include <map>
#include <mutex>
#include <utility>

#include "support/violations.h"

namespace xtcp::test {
namespace {

struct Entry {
  Books books;
  int times = 0;
};

struct Store {
  std::mutex mutex;
  std::map<std::pair<std::string, std::string>, Entry> entries;
};

Store& TheStore() {
  static Store store;
  return store;
}

// All clients of a Unix socket read alike, "unix:".
bool HasName(const std::string& end) { return !end.empty() && !end.starts_with("unix:"); }

void Compare(const Books& writer, const Books& reader) {
  const auto complain = [&](const char* text) {
    AddViolation(std::string(text) + ": " + writer.own + " wrote " +
                 std::to_string(writer.written) + " (" + std::to_string(writer.unacked) +
                 " unacknowledged), " + reader.own + " got " + std::to_string(reader.received));
  };
  if (reader.received > writer.written) complain("B1: a peer got more than was written");
  if (reader.saw_end && reader.received + writer.unacked < writer.written) {
    complain("B1: bytes are neither at the peer nor unacknowledged");
  }
}

}  // namespace

void EnterBooks(Books books) {
  if (!HasName(books.own) || !HasName(books.peer)) return;
  Store& store = TheStore();
  std::lock_guard lock(store.mutex);
  Entry& entry = store.entries[{books.own, books.peer}];
  ++entry.times;
  entry.books = std::move(books);
}

std::size_t CompareBooks() {
  Store& store = TheStore();
  decltype(store.entries) entries;
  {
    std::lock_guard lock(store.mutex);
    entries.swap(store.entries);
  }
  std::size_t pairs = 0;
  for (const auto& [ends, writer] : entries) {
    if (!writer.books.wrote_by_library || writer.times > 1) continue;
    const auto reader = entries.find({ends.second, ends.first});
    if (reader == entries.end() || reader->second.times > 1) continue;
    Compare(writer.books, reader->second.books);
    ++pairs;
  }
  return pairs;
}

}  // namespace xtcp::test
