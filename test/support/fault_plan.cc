#include "support/fault_plan.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <functional>
#include <mutex>
#include <vector>

#include "support/random.h"

namespace xtcp::test {
namespace {

constexpr std::size_t kSites = static_cast<std::size_t>(Site::kCount);

// --- What tests ask for --------------------------------------------------------------------------

struct PlannedFault {
  Fault fault;
  std::size_t matches = 0;
};

// The counters are relaxed: they must not order anything, or they would hide races of the library.
std::array<std::atomic<std::uint64_t>, kSites> calls;
std::atomic<bool> planned{false};
std::atomic<std::size_t> injected_count{0};

std::mutex plan_mutex;
std::vector<PlannedFault> plan;  // guarded by plan_mutex

bool Matches(const Fault& fault, Site site, int fd, int operation) {
  return fault.site == site && (fault.fd == Fault::kAny || fault.fd == fd) &&
         (fault.operation == Fault::kAny || fault.operation == operation);
}

Verdict AskPlan(Site site, int fd, int operation, std::function<void(int)>* act) {
  std::lock_guard lock(plan_mutex);
  for (PlannedFault& entry : plan) {
    const Fault& fault = entry.fault;
    if (!Matches(fault, site, fd, operation)) continue;
    const std::size_t n = ++entry.matches;
    if (n < fault.first || n - fault.first >= fault.times) continue;
    injected_count.fetch_add(1, std::memory_order_relaxed);
    *act = fault.act;
    return {fault.error, fault.after_call, fault.max_bytes, fault.fake};
  }
  return {};
}

// --- Seeded faults -------------------------------------------------------------------------------

// What a seed decides for one call; each question uses its own bits.
class Dice {
 public:
  Dice() : bits_(Mix(Seed() ^ Mix(counter_.fetch_add(1, std::memory_order_relaxed)))) {}

  bool OneIn(std::size_t n) { return Below(n) == 0; }
  std::size_t Below(std::size_t n) {
    bits_ = Mix(bits_);
    return static_cast<std::size_t>(bits_ % n);
  }

 private:
  static inline std::atomic<std::uint64_t> counter_{0};
  std::uint64_t bits_;
};

// Whether the last call on a descriptor was told that memory is short: twice in a row may mean that
// it is over, so the seeded faults do not say it twice.
std::array<std::atomic<bool>, kDescriptors> was_short;

bool MayBeShort(int fd) {
  const auto i = static_cast<std::size_t>(fd);
  return i < kDescriptors && !was_short[i].exchange(true, std::memory_order_relaxed);
}

void NotShort(int fd) {
  const auto i = static_cast<std::size_t>(fd);
  if (i < kDescriptors) was_short[i].store(false, std::memory_order_relaxed);
}

Verdict DrawTransfer(int fd, std::size_t size) {
  Dice dice;
  if (dice.OneIn(24)) return {EINTR};
  if (dice.OneIn(24)) return {EAGAIN};
  if (!ClockIsVirtual() && dice.OneIn(3000) && MayBeShort(fd))
    return {dice.OneIn(2) ? ENOBUFS : ENOMEM};
  NotShort(fd);
  if (size > 1 && dice.OneIn(12)) {
    // Mostly a few bytes: those are the cuts that hurt.
    const std::size_t most = dice.OneIn(2) ? std::min<std::size_t>(size, 16) : size;
    return {0, false, 1 + dice.Below(most)};
  }
  return {};
}

Verdict DrawAccept() {
  Dice dice;
  if (dice.OneIn(16)) return {EAGAIN};
  if (dice.OneIn(16)) return {EINTR};
  if (dice.OneIn(32)) return {ECONNABORTED};
  if (dice.OneIn(32)) return {EPROTO};
  if (dice.OneIn(32)) return {ECONNRESET};
  // It is over when time has passed, which a test's clock may not let it do.
  if (!ClockIsVirtual() && dice.OneIn(500)) return {EMFILE};
  return {};
}

Verdict Draw(Site site, int fd, std::size_t size) {
  switch (site) {
    case Site::kRecv:
    case Site::kSend:
    case Site::kSendMsg:
      return DrawTransfer(fd, size);
    case Site::kAccept4:
      return DrawAccept();
    case Site::kEpollWait:
      return Dice().OneIn(16) ? Verdict{EINTR} : Verdict{};
    case Site::kConnect: {
      // The kernel goes on connecting. Whoever connects again gets EALREADY.
      Dice dice;
      if (dice.OneIn(2)) return {dice.OneIn(2) ? EINTR : EINPROGRESS, true};
      return {};
    }
    case Site::kWrite: {
      // EAGAIN says that the eventfd's count is at its limit, so it wakes the loop.
      Dice dice;
      if (dice.OneIn(16)) return {EINTR};
      if (dice.OneIn(16)) return {EAGAIN, true};
      return {};
    }
    case Site::kClose: {
      Dice dice;
      if (dice.OneIn(16)) return {dice.OneIn(2) ? EINTR : EIO, true};
      return {};
    }
    default:
      return {};
  }
}

}  // namespace

Verdict Judge(Site site, int fd, int operation, std::size_t size) {
  calls[static_cast<std::size_t>(site)].fetch_add(1, std::memory_order_relaxed);
  if (!planned.load(std::memory_order_acquire)) return Draw(site, fd, size);
  std::function<void(int)> act;
  const Verdict verdict = AskPlan(site, fd, operation, &act);
  if (act) act(fd);  // with no lock held: it may come back here
  return verdict;
}

void ForgetShortage(int fd) { NotShort(fd); }

FaultPlan::FaultPlan() {
  Clear();
  injected_count = 0;
  planned.store(true, std::memory_order_release);
}

FaultPlan::~FaultPlan() {
  planned.store(false, std::memory_order_release);
  Clear();
}

void FaultPlan::Add(const Fault& fault) {
  std::lock_guard lock(plan_mutex);
  plan.push_back({fault, 0});
}

void FaultPlan::Clear() {
  std::lock_guard lock(plan_mutex);
  plan.clear();
}

std::size_t FaultPlan::injected() const { return injected_count.load(); }

std::uint64_t CallsOf(Site site) {
  return calls[static_cast<std::size_t>(site)].load(std::memory_order_relaxed);
}

}  // namespace xtcp::test
