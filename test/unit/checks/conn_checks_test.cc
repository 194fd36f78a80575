// Each debug check of conn and server is seen to fire. Only a debug build has them.
#ifdef XTCP_DEBUG_CHECKS

#include <sys/eventfd.h>
#include <sys/socket.h>

#include <array>
#include <catch2/catch.hpp>
#include <chrono>
#include <memory>
#include <utility>

#include "conn/conn_impl.h"
#include "conn/deadlines.h"
#include "conn/dialer.h"
#include "conn/inbound.h"
#include "conn/intake.h"
#include "conn/outbound.h"
#include "conn/send_budget.h"
#include "conn/service_loop.h"
#include "conn/task_chain.h"
#include "server/acceptor.h"
#include "server/server_loop.h"
#include "unit/checks/fires.h"
#include "unit/reactor/test_channel.h"

namespace xtcp::internal {

struct EnterPhase {
  using Type = void (ConnImpl::*)(Phase);
  friend Type Get(EnterPhase);
};
template struct Private<EnterPhase, &ConnImpl::EnterPhase>;

struct BeginTurn {
  using Type = Turn& (ConnImpl::*)();
  friend Type Get(BeginTurn);
};
template struct Private<BeginTurn, &ConnImpl::BeginTurn>;

struct FinishTurn {
  using Type = void (ConnImpl::*)(Turn&);
  friend Type Get(FinishTurn);
};
template struct Private<FinishTurn, &ConnImpl::FinishTurn>;

struct CloseConn {
  using Type = void (ConnImpl::*)(Turn&, CloseReason, std::error_code);
  friend Type Get(CloseConn);
};
template struct Private<CloseConn, &ConnImpl::Close>;

namespace {

using Time = std::chrono::nanoseconds;

constexpr std::array<std::byte, 8> kBytes{};

struct NoHandler : Handler {
  void OnEvent(EventType, const ConnPtr&, PacketPtr) override {}
};

// It always needs more.
struct NoProtocol : Protocol {
  std::size_t PackSize(const Packet&) const override { return 0; }
  std::error_code PackTo(const Packet&, Writer&) const override { return {}; }
  UnpackResult Unpack(std::span<const std::byte>) const override { return {}; }
};

struct NoServiceLoop final : ServiceLoop {
  using ServiceLoop::ServiceLoop;
  using ServiceLoop::SetHandles;
  void StopByGroup(Stops) override {}
  void Abort(std::error_code) override {}
  void ConnectionEnded(const StopReport&) override {}
  void ConnectionGone(ConnImpl&) override {}
};

struct NoOwner final : ServerLoop::Owner {
  void ConnectionRefused(std::error_code) override {}
  void ConnectionEnded(const StopReport&) override {}
  void GroupStops(Stops) override {}
  void LoopBegins(ServerLoop&) override {}
  void LoopStops(ServerLoop&) override {}
  bool Drains() const override { return false; }
  void LoopDrains(ServerLoop&) override {}
  void LoopFailed(std::error_code) override {}
  void LoopEnded() override {}
};

struct NoDialerOwner final : Dialer::Owner {
  bool DialIsStopped() const override { return true; }
  void DialSucceeded(ConnectedSocket, int) override {}
  void DialFailed(std::error_code) override {}
  void DialerGone() override {}
};

struct NoSink final : AcceptSink {
  bool MayAccept(bool) const override { return false; }
  bool MayAdmit() override { return false; }
  void Accepted(ConnectedSocket, EventLoop&) override {}
  void SetUpFailed(std::error_code) override {}
  void AcceptFailed() override {}
  void ListenerDied(std::error_code) override {}
  void ListenerDrained() override {}
};

struct TestConn final : ConnImpl {
  using Channel::fd_;
  using ConnImpl::ConnImpl;
};

// A loop with a service, and the parts of a connection beside it.
struct Parts {
  Parts() {
    static_cast<void>(core.Open());
    intake.Open({}, Time{1}, false);
    ::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, sockets.data());
  }

  Turn& Begin() {
    core.turn().Begin(this, none, sockets[0], service.service());
    return core.turn();
  }
  void SendElsewhere() {
    static_cast<void>(
        outbound.SendElsewhere(kBytes, service.service(), intake, *context, deadlines));
  }
  // Gathers bytes that are charged, as far as the turn knows.
  static void Gather(Turn& turn) {
    turn.SetCharged(kBytes.size());
    turn.Gather(kBytes.size());
  }

  // Calls `function` on the loop's thread.
  void Run(const std::function<void()>& function) {
    TestChannel channel;
    channel.on_posted = function;
    static_cast<void>(channel.ClaimPost());
    core.Push(&channel);
    bool quits = false;
    static_cast<void>(core.RunOnce(Time{0}, &quits));
  }

  Options options{std::make_shared<NoHandler>(), std::make_shared<NoProtocol>()};
  LoopCore core{std::make_shared<LoopContext>(std::weak_ptr<Group>(), 0)};
  Ref<ConnContext> context =
      Ref<ConnContext>::Make(core.shared_context(), options.protocol, options.send_buffer_limit);
  LoopTotals totals;
  NoServiceLoop service{core, options, context, totals};
  Inbound inbound;
  Outbound outbound;
  Deadlines deadlines;
  Intake intake{SendState::kNew};
  TestConn conn{context, SendState::kNew};
  ConnPtr none;
  std::array<int, 2> sockets{};
};

const std::vector<Broken> kParts{
    {"more is given back than was charged", [] { SendBudget().Release(1); }},
    {"a task is taken from an empty chain", [] { TaskChain().TakeFirst(); }},
    {"a closed connection has no deadlines",
     [] { static_cast<void>(Deadlines().Next({}, Phase::kClosed, false)); }},
    {"a packet begins while nothing is read",
     [] {
       Deadlines deadlines;
       deadlines.StopInputClock(Time{1});
       deadlines.BeginPacket(Time{2});
     }},
    {"the input clock is stopped twice",
     [] {
       Deadlines deadlines;
       deadlines.StopInputClock(Time{1});
       deadlines.StopInputClock(Time{2});
     }},
    {"the input clock is started twice", [] { Deadlines().StartInputClock(Time{1}); }},
    {"the clock of packets is stopped twice",
     [] {
       Deadlines deadlines;
       deadlines.StopPacketClock(Time{1});
       deadlines.StopPacketClock(Time{2});
     }},
    {"the clock of packets is started twice", [] { Deadlines().StartPacketClock(Time{1}); }},
    {"a connection's send state makes a move that it may not",
     [] { Intake(SendState::kOpen).Enter(SendState::kOpen, SendState::kDialing); }},
    {"threads that wait for a connection are released twice",
     [] {
       Intake intake(SendState::kOpen);
       intake.ReleaseWaiters();
       intake.ReleaseWaiters();
     }},
    {"input is read while the kernel has no memory for it",
     [] {
       Parts parts;
       Turn& turn = parts.Begin();
       turn.Rest();
       parts.inbound.ReadAndDeliver(turn, parts.intake, parts.deadlines);
     }},
    {"input is discarded while bytes wait to be unpacked",
     [] {
       Parts parts;
       Turn& turn = parts.Begin();
       static_cast<void>(::send(parts.sockets[1], kBytes.data(), kBytes.size(), 0));
       parts.inbound.ReadAndDeliver(turn, parts.intake, parts.deadlines);
       parts.inbound.Discard(turn);
     }},
    {"bytes are queued that nobody has charged",
     [] {
       Parts parts;
       Turn& turn = parts.Begin();
       Parts::Gather(turn);
       turn.Rest();
       parts.outbound.Flush(turn, parts.intake, parts.deadlines);
     }},
    {"bytes have gathered while older ones were queued",
     [] {
       Parts parts;
       parts.SendElsewhere();
       Turn& turn = parts.Begin();
       Parts::Gather(turn);
       turn.Rest();
       parts.outbound.Flush(turn, parts.intake, parts.deadlines);
     }},
    {"what has gathered is written before what was queued",
     [] {
       Parts parts;
       parts.SendElsewhere();
       Turn& turn = parts.Begin();
       Parts::Gather(turn);
       parts.outbound.Flush(turn, parts.intake, parts.deadlines);
     }},
    {"more has gathered than was charged",
     [] {
       Parts parts;
       Turn& turn = parts.Begin();
       turn.SetCharged(Turn::kGatherSize);
       turn.Gather(200 << 10);
       static_cast<void>(
           parts.outbound.SendInTurn(kBytes, turn, parts.intake, *parts.context, parts.deadlines));
     }},
    {"more was written than was accepted",
     [] {
       Parts parts;
       parts.SendElsewhere();
       Add(parts.outbound.account().written_bytes, kBytes.size());
       parts.outbound.Flush(parts.Begin(), parts.intake, parts.deadlines);
     }},
};

const std::vector<Broken> kLife{
    {"a connection's phase makes a move that it may not",
     [] {
       Parts parts;
       (parts.conn.*Get(EnterPhase{}))(Phase::kLingering);
     }},
    {"a turn begins on another thread",
     [] {
       Parts parts;
       (parts.conn.*Get(BeginTurn{}))();
     }},
    {"a service has no handles of its connections",
     [] {
       Parts parts;
       static_cast<void>(parts.service.PtrOf(0));
     }},
    {"a turn is finished by another connection",
     [] {
       Parts parts;
       (parts.conn.*Get(FinishTurn{}))(parts.Begin());
     }},
    {"a connection is closed in the turn of another one",
     [] {
       Parts parts;
       (parts.conn.*Get(CloseConn{}))(parts.Begin(), CloseReason::kException, {});
     }},
    {"a connection is destroyed with its socket",
     [] {
       Parts parts;
       parts.conn.fd_ = UniqueFd(parts.sockets[0]);
     }},
    {"a dial begins without an address",
     [] {
       Parts parts;
       NoDialerOwner owner;
       Dialer(owner, parts.core.loop(), parts.options).Begin({});
     }},
    {"a dial begins twice",
     [] {
       Parts parts;
       NoDialerOwner owner;
       Dialer dialer(owner, parts.core.loop(), parts.options);
       dialer.Begin(std::vector<SocketAddress>(1));
       dialer.Begin(std::vector<SocketAddress>(1));
     }},
    {"a listener is started twice",
     [] {
       Parts parts;
       NoSink sink;
       AcceptPause pause;
       Acceptor acceptor(UniqueFd(::eventfd(0, EFD_CLOEXEC)), SocketAddress(), SocketFile(),
                         nullptr, false);
       static_cast<void>(acceptor.Start(parts.core.loop(), sink, pause));
       static_cast<void>(acceptor.Start(parts.core.loop(), sink, pause));
     }},
    {"a connection is not in its place",
     [] {
       Parts parts;
       NoOwner owner;
       ServerLoop loop(owner, parts.core, parts.options, parts.context);
       static_cast<ServiceLoop&>(loop).ConnectionGone(parts.conn);
     }},
};

}  // namespace

TEST_CASE("each debug check of a connection's parts fires") { CheckThatEachFires(kParts); }

TEST_CASE("each debug check of a connection's life, and of a server, fires") {
  CheckThatEachFires(kLife);
}

}  // namespace xtcp::internal

#endif  // XTCP_DEBUG_CHECKS
