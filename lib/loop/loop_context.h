#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "base/cache_line.h"
#include "buffer/block_pool.h"
#include "loop/stops.h"
#include "loop/task_queue.h"
#include "loop/timer_list.h"
#include "loop/totals.h"
#include "reactor/event_loop.h"
#include "reactor/mailbox.h"
#include "sys/sync.h"

namespace xtcp::internal {

class Group;

// What any thread may use of a loop:
//
//   any thread ──► tasks, timers ──► mailbox ──► the loop
//   the loop ────► times, connections, pool ──► any thread
//
// It lives for as long as somebody holds a handle, a connection or a timer of the loop, which is
// longer than the loop and its group.
//
// Its parts begin at a cache line where others write the next one: every send reads the stops,
// posters write the mailbox, the loop writes its counts in each iteration. No two loops share one.
struct alignas(kCacheLine) LoopContext {
  LoopContext(std::weak_ptr<Group> of, std::size_t place) : group(std::move(of)), index(place) {}

  const std::weak_ptr<Group> group;
  const std::size_t index;

  // The group's stops: each service on the loop is stopped as by a stop of its own. Relaxed: a
  // thread that must see them is ordered after them by other means.
  sys::Atomic<Stops> group_stops{Stops::kNone};

  alignas(kCacheLine) Mailbox mailbox;
  TaskQueue tasks{mailbox};
  TimerList timers{mailbox};
  alignas(kCacheLine) BlockPool pool;

  alignas(kCacheLine) LoopTimes times;

  // The number of connections that live on the loop. Single writer: the loop.
  sys::Atomic<std::size_t> connections{0};

  // What all dialled connections of the loop count together. Nobody asks for it, so that they need
  // none of their own.
  LoopTotals dialled_totals;
};

}  // namespace xtcp::internal
