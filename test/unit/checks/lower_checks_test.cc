// Each debug check of base, buffer, reactor and loop is seen to fire. Only a debug build has them.
#ifdef XTCP_DEBUG_CHECKS

#include <sys/eventfd.h>

#include <array>
#include <catch2/catch.hpp>
#include <chrono>
#include <memory>

#include "base/gate.h"
#include "base/mutex.h"
#include "buffer/block_pool.h"
#include "buffer/inbound_buffer.h"
#include "buffer/outbound_buffer.h"
#include "buffer/scratch.h"
#include "loop/group.h"
#include "loop/loop_core.h"
#include "loop/timer_list.h"
#include "loop/turn.h"
#include "reactor/event_loop.h"
#include "reactor/timer_queue.h"
#include "unit/checks/fires.h"
#include "unit/reactor/test_channel.h"

namespace xtcp::internal {

struct UnlinkMember {
  using Type = void (Group::*)(Member&);
  friend Type Get(UnlinkMember);
};
template struct Private<UnlinkMember, &Group::Unlink>;

struct ArmTimer {
  using Type = void (TimerList::*)(TimerNode&);
  friend Type Get(ArmTimer);
};
template struct Private<ArmTimer, &TimerList::Arm>;

struct UnlinkTimer {
  using Type = std::shared_ptr<TimerNode> (TimerList::*)(TimerNode&);
  friend Type Get(UnlinkTimer);
};
template struct Private<UnlinkTimer, &TimerList::Unlink>;

namespace {

using Time = std::chrono::nanoseconds;

constexpr std::array<std::byte, 8> kBytes{};

// A loop that is open and does not run.
struct OpenLoop {
  OpenLoop() { static_cast<void>(loop.Open()); }

  // Calls `function` on the loop's thread.
  void Run(const std::function<void()>& function) {
    TestChannel channel;
    channel.on_posted = function;
    static_cast<void>(channel.ClaimPost());
    mailbox.Push(&channel);
    static_cast<void>(loop.RunOnce(Time{0}));
  }

  Mailbox mailbox;
  LoopTimes times;
  EventLoop loop{mailbox, times};
};

struct NoService final : LoopService {
  void StopByGroup(Stops) override {}
  void Abort(std::error_code) override {}
};

struct NoMember final : Member {
  void GroupRuns() override {}
  void EndIdle() override {}
};

// A channel with a descriptor that a poller takes.
struct PolledChannel {
  PolledChannel() { channel.Take(UniqueFd(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC))); }
  TestChannel channel;
};

struct OneTurn {
  OneTurn() { turn.Allocate(); }
  void Begin() { turn.Begin(this, none, -1, service); }
  Turn turn;
  ConnPtr none;
  Service service;
};

const std::vector<Broken> kBaseAndBuffer{
    {"Gate::Leave without Enter", [] { Gate().Leave(); }},
    {"a mutex is unlocked that nobody has locked", [] { SmallMutex().Unlock(); }},
    {"a block is given back that was not taken",
     [] {
       BlockPool pool, other;
       pool.Give(other.Take(256), 256);
     }},
    {"a pool is destroyed while its blocks are in use",
     [] {
       BlockPool pool;
       static_cast<void>(pool.Take(256));
     }},
    {"a scratch is taken twice",
     [] {
       BlockPool pool;
       Scratch scratch(pool);
       static_cast<void>(scratch.Take(1 << 16));
       static_cast<void>(scratch.Take(1 << 16));
     }},
    {"more was read than there was room for", [] { InboundBuffer().Commit(1); }},
    {"more was consumed than there is",
     [] {
       BlockPool pool;
       InboundBuffer buffer;
       static_cast<void>(buffer.Append(kBytes, 256, pool));
       buffer.Consume(kBytes.size() + 1, pool);
     }},
    {"more was written than was queued",
     [] {
       BlockPool pool;
       OutboundBuffer buffer, released;
       static_cast<void>(buffer.Append(kBytes, pool));
       buffer.Consume(kBytes.size() + 1, pool, released);
     }},
    {"bytes are appended for which there is no room",
     [] {
       OutboundBuffer buffer;
       buffer.AppendInRoom(kBytes);
     }},
    {"a buffer is put after itself",
     [] {
       BlockPool pool;
       OutboundBuffer buffer;
       buffer.Splice(buffer, pool);
     }},
};

const std::vector<Broken> kReactor{
    {"there is no first timer", [] { static_cast<void>(TimerQueue().first()); }},
    {"a timer is armed without a reserved place",
     [] {
       TimerQueue timers;
       TestChannel channel;
       timers.Arm(&channel, Time{1});
     }},
    {"room for a timer is given back that nobody has", [] { OpenLoop().loop.RemoveTimer(); }},
    {"what belongs to a loop is used on another thread",
     [] {
       // The thread runs another loop meanwhile, which is as good as another thread.
       OpenLoop one, other;
       PolledChannel polled;
       one.Run([&] {
         other.Run([&] { static_cast<void>(one.loop.Watch(&polled.channel, EPOLLIN)); });
       });
     }},
    {"a loop runs on two threads, or within itself",
     [] {
       OpenLoop one;
       one.Run([&] { static_cast<void>(one.loop.RunOnce(Time{0})); });
     }},
    {"a channel is pushed locally on another thread",
     [] {
       OpenLoop one;
       TestChannel channel;
       one.loop.PushLocally(&channel);
     }},
    {"a channel is watched anew for events that it cannot note",
     [] {
       OpenLoop one;
       PolledChannel polled;
       static_cast<void>(one.loop.Watch(&polled.channel, EPOLLIN));
       static_cast<void>(one.loop.Rewatch(&polled.channel, EPOLLIN | EPOLLRDHUP));
     }},
    {"a channel is watched twice",
     [] {
       OpenLoop one;
       PolledChannel polled;
       static_cast<void>(one.loop.Watch(&polled.channel, EPOLLIN));
       static_cast<void>(one.loop.Watch(&polled.channel, EPOLLIN));
     }},
    {"a channel is retired while it is watched",
     [] {
       OpenLoop one;
       PolledChannel polled;
       static_cast<void>(one.loop.Watch(&polled.channel, EPOLLIN));
       one.loop.Retire(&polled.channel);
     }},
    {"a channel is retired with its timer armed",
     [] {
       OpenLoop one;
       TestChannel channel;
       one.loop.AddTimer();
       one.loop.Arm(&channel, Time{1});
       one.loop.Retire(&channel);
     }},
    {"a channel is retired while it is in the mailbox",
     [] {
       OpenLoop one;
       TestChannel channel;
       static_cast<void>(channel.ClaimPost());
       one.loop.Retire(&channel);
     }},
};

const std::vector<Broken> kLoop{
    {"a turn begins within another one",
     [] {
       OneTurn one;
       one.Begin();
       one.Begin();
     }},
    {"a turn begins with what another one has gathered",
     [] {
       OneTurn one;
       one.Begin();
       one.turn.SetCharged(8);
       one.turn.Gather(8);
       one.turn.Abandon();
       one.turn.SetCharged(8);
       one.turn.Gather(8);
       one.Begin();
     }},
    {"a turn begins without its buffers",
     [] {
       OneTurn one;
       one.turn.Free();
       one.Begin();
     }},
    {"a turn is left twice",
     [] {
       OneTurn one;
       one.Begin();
       one.turn.Leave();
       one.turn.Leave();
     }},
    {"a turn is left with what it has gathered",
     [] {
       OneTurn one;
       one.Begin();
       one.turn.SetCharged(8);
       one.turn.Gather(8);
       one.turn.Leave();
     }},
    {"bytes are gathered that nobody has charged",
     [] {
       OneTurn one;
       one.Begin();
       one.turn.Gather(8);
     }},
    {"a connection is to close in nobody's turn",
     [] { OneTurn().turn.Doom(CloseReason::kException); }},
    {"a service is attached to a loop twice",
     [] {
       LoopCore core(std::make_shared<LoopContext>(std::weak_ptr<Group>(), 0));
       NoService service;
       core.Attach(service);
       core.Attach(service);
     }},
    {"a loop is closed while services live on it",
     [] {
       LoopCore core(std::make_shared<LoopContext>(std::weak_ptr<Group>(), 0));
       NoService service;
       core.Attach(service);
       core.Close();
     }},
    {"a member is attached to its group twice",
     [] {
       const std::shared_ptr<Group> group = Group::Make(1);
       NoMember member;
       group->Attach(member);
       group->Attach(member);
     }},
    {"a member is taken out of a group in which it is not",
     [] {
       NoMember member;
       ((*Group::Make(1)).*Get(UnlinkMember{}))(member);
     }},
    {"more connections of a group have ended than had begun",
     [] { Group::Make(1)->ConnectionEnded({}); }},
    {"a timer is armed without a loop",
     [] {
       const auto context = std::make_shared<LoopContext>(std::weak_ptr<Group>(), 0);
       TimerNode node(
           context, [] {}, Time{1}, Time{0});
       (context->timers.*Get(ArmTimer{}))(node);
     }},
    {"a timer is finished twice",
     [] {
       const auto context = std::make_shared<LoopContext>(std::weak_ptr<Group>(), 0);
       TimerNode node(
           context, [] {}, Time{1}, Time{0});
       (context->timers.*Get(UnlinkTimer{}))(node);
       (context->timers.*Get(UnlinkTimer{}))(node);
     }},
};

}  // namespace

TEST_CASE("each debug check of base and buffer fires") { CheckThatEachFires(kBaseAndBuffer); }

TEST_CASE("each debug check of reactor fires") { CheckThatEachFires(kReactor); }

TEST_CASE("each debug check of loop fires") { CheckThatEachFires(kLoop); }

}  // namespace xtcp::internal

#endif  // XTCP_DEBUG_CHECKS
