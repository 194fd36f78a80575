#include "support/explorer.h"

#include <algorithm>
#include <condition_variable>
#include <cstdio>
#include <mutex>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "support/alloc_hook.h"
#include "support/deadline.h"
#include "support/held_thread.h"
#include "support/violations.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

namespace xtcp::test {
namespace {

// A place where more than one thread could go on, and which one did.
struct Choice {
  std::size_t taken = 0;
  std::size_t count = 0;
};

// So many steps are no short threads, but threads that run for ever.
constexpr std::size_t kMostSteps = 100'000;

// A thread that runs one body after the other: to start one for each schedule would take longer than
// the schedule.
class Worker {
 public:
  Worker() : thread_([this] { Work(); }) {}
  ~Worker() {
    Start({});
    thread_.join();
  }
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;

  // The body before has ended. An empty one ends the thread.
  void Start(std::function<void()> body) {
    std::lock_guard lock(mutex_);
    body_ = std::move(body);
    there_is_one_ = true;
    changed_.notify_one();
  }

 private:
  void Work() {
    for (;;) {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [this] { return std::exchange(there_is_one_, false); });
      const std::function<void()> body = std::move(body_);
      lock.unlock();
      if (!body) return;
      body();
    }
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::function<void()> body_;
  bool there_is_one_ = false;
  std::thread thread_;
};

using Workers = std::vector<std::unique_ptr<Worker>>;

}  // namespace

class Schedule::Engine {
 public:
  Engine(Workers& workers, std::vector<Choice>& trail, std::size_t preemptions)
      : workers_(workers), trail_(trail), preemptions_left_(preemptions) {
    current_ = this;
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_set_death_callback([] {
      if (current_ != nullptr) std::fputs(current_->Trace().c_str(), stderr);
    });
#endif
  }
  ~Engine() {
    Finish();
    current_ = nullptr;
  }

  void Add(std::string name, std::function<void()> body);
  void RunUntilQuiet(bool explore);
  void Finish();

  bool Ended(std::string_view name) const;
  bool AllEnded() const;
  std::size_t now() const;
  std::string Trace() const;

 private:
  struct Thread final : HeldThread {
    void Step(const char* what) override { engine->Step(*this, what, {}, false); }
    void StepWhen(const char* what, const std::function<bool()>& when) override {
      engine->Step(*this, what, when, false);
    }
    bool SleepAt(const void* address) override { return engine->SleepAt(*this, address); }
    void WakeAt(const void* address, bool all) override { engine->WakeAt(address, all); }
    void Yield() override { engine->Step(*this, "yield", {}, true); }
    void Run(const std::function<void()>& body);

    Engine* engine = nullptr;
    std::string name;
    std::function<bool()> possible;  // what it waits for; empty: nothing
    const void* sleeps_at = nullptr;
    const char* operation = "begin";
    bool ended = false;
    bool turn = false;
    std::condition_variable turn_changed;
  };
  static inline Engine* current_ = nullptr;  // its steps are half of a sanitizer's report

  void Step(Thread& thread, const char* operation, const std::function<bool()>& possible,
            bool yields);
  bool SleepAt(Thread& thread, const void* address);
  void WakeAt(const void* address, bool all);
  void Await(Thread& thread, std::unique_lock<std::mutex>& lock);
  Thread* Next(Thread* running, bool yields);
  std::size_t Choose(std::size_t count, bool preempts);
  void GiveTurn(Thread* thread);

  mutable std::mutex mutex_;
  std::condition_variable quiet_changed_;
  Workers& workers_;
  std::vector<Choice>& trail_;
  std::size_t depth_ = 0;  // in the trail
  std::size_t preemptions_left_;
  std::vector<std::unique_ptr<Thread>> threads_;
  std::vector<std::pair<const Thread*, const char*>> steps_;
  bool explore_ = false;
  bool quiet_ = true;
  bool free_ = false;
};

// --- The threads. --------------------------------------------------------------------------------

void Schedule::Engine::Add(std::string name, std::function<void()> body) {
  std::lock_guard lock(mutex_);
  threads_.push_back(std::make_unique<Thread>());
  Thread* const thread = threads_.back().get();
  thread->engine = this;
  thread->name = std::move(name);
  if (workers_.size() < threads_.size()) workers_.push_back(std::make_unique<Worker>());
  workers_[threads_.size() - 1]->Start([thread, body = std::move(body)] { thread->Run(body); });
}

void Schedule::Engine::Thread::Run(const std::function<void()>& body) {
  {
    std::unique_lock lock(engine->mutex_);
    engine->Await(*this, lock);
  }
  current_ = this;
  body();
  current_ = nullptr;
  std::lock_guard lock(engine->mutex_);
  ended = true;
  if (!engine->free_) engine->GiveTurn(engine->Next(nullptr, false));
  engine->quiet_changed_.notify_all();
}

void Schedule::Engine::Step(Thread& thread, const char* operation,
                            const std::function<bool()>& possible, bool yields) {
  const NoMemoryHere none_of_that(false);
  std::unique_lock lock(mutex_);
  if (free_) return;
  thread.operation = operation;
  thread.possible = possible;
  if (steps_.size() > kMostSteps) Die("a schedule does not end\n" + Trace());
  Thread* const next = Next(&thread, yields);
  if (next != &thread) {
    GiveTurn(next);
    Await(thread, lock);
  }
  thread.possible = nullptr;
  if (!free_) steps_.emplace_back(&thread, operation);
}

bool Schedule::Engine::SleepAt(Thread& thread, const void* address) {
  {
    std::lock_guard lock(mutex_);
    if (free_) return false;
    thread.sleeps_at = address;
  }
  Step(
      thread, "wake", [&thread] { return thread.sleeps_at == nullptr; }, false);
  std::lock_guard lock(mutex_);
  return !free_;
}

void Schedule::Engine::WakeAt(const void* address, bool all) {
  std::lock_guard lock(mutex_);
  for (const std::unique_ptr<Thread>& thread : threads_) {
    if (thread->sleeps_at != address) continue;
    thread->sleeps_at = nullptr;
    if (!all) return;
  }
}

void Schedule::Engine::Await(Thread& thread, std::unique_lock<std::mutex>& lock) {
  thread.turn_changed.wait(lock, [&] { return thread.turn || free_; });
  thread.turn = false;
}

// Null when none can go on.
void Schedule::Engine::GiveTurn(Thread* thread) {
  if (thread == nullptr) {
    quiet_ = true;
    quiet_changed_.notify_all();
  } else {
    thread->turn = true;
    thread->turn_changed.notify_one();
  }
}

// Who goes on after a step of `running`: it itself comes first among those that can.
Schedule::Engine::Thread* Schedule::Engine::Next(Thread* running, bool yields) {
  std::vector<Thread*> able;
  for (const std::unique_ptr<Thread>& thread : threads_) {
    if (!thread->ended && (!thread->possible || thread->possible())) able.push_back(thread.get());
  }
  if (able.empty()) return nullptr;
  const auto self = std::find(able.begin(), able.end(), running);
  bool preempts = false;
  if (self != able.end() && yields) {
    std::rotate(self, self + 1, able.end());
    if (able.size() > 1) able.pop_back();  // a thread that yields waits for what others do
  } else if (self != able.end()) {
    std::rotate(able.begin(), self, self + 1);
    preempts = true;
  }
  return able[explore_ && able.size() > 1 ? Choose(able.size(), preempts) : 0];
}

std::size_t Schedule::Engine::Choose(std::size_t count, bool preempts) {
  if (preempts && preemptions_left_ == 0) return 0;
  if (depth_ == trail_.size()) trail_.push_back({0, count});
  Choice& choice = trail_[depth_++];
  if (choice.count != count) Die("a schedule cannot be repeated\n" + Trace());
  if (preempts && choice.taken != 0) --preemptions_left_;
  return choice.taken;
}

// --- The test's thread. --------------------------------------------------------------------------

void Schedule::Engine::RunUntilQuiet(bool explore) {
  std::unique_lock lock(mutex_);
  explore_ = explore;
  quiet_ = false;
  GiveTurn(Next(nullptr, false));
  if (!WaitUntil(lock, quiet_changed_, [&] { return quiet_; })) {
    Die("a schedule does not end\n" + Trace());
  }
  explore_ = false;
}

void Schedule::Engine::Finish() {
  std::unique_lock lock(mutex_);
  free_ = true;
  for (const std::unique_ptr<Thread>& thread : threads_) thread->turn_changed.notify_one();
  const bool over = WaitUntil(lock, quiet_changed_, [&] {
    return std::all_of(threads_.begin(), threads_.end(),
                       [](const std::unique_ptr<Thread>& thread) { return thread->ended; });
  });
  if (!over) Die("threads hang after a schedule\n" + Trace());
}

bool Schedule::Engine::Ended(std::string_view name) const {
  std::lock_guard lock(mutex_);
  return std::any_of(threads_.begin(), threads_.end(), [&](const std::unique_ptr<Thread>& thread) {
    return thread->name == name && thread->ended;
  });
}

bool Schedule::Engine::AllEnded() const {
  std::lock_guard lock(mutex_);
  return std::all_of(threads_.begin(), threads_.end(),
                     [](const std::unique_ptr<Thread>& thread) { return thread->ended; });
}

std::size_t Schedule::Engine::now() const {
  std::lock_guard lock(mutex_);
  return steps_.size();
}

// The steps, a line for each turn of a thread, and where each thread is.
std::string Schedule::Engine::Trace() const {
  std::string text;
  const Thread* last = nullptr;
  for (const auto& [thread, operation] : steps_) {
    text += thread == last ? ", " : (last == nullptr ? "  " : "\n  ") + thread->name + ": ";
    text += operation;
    last = thread;
  }
  text += "\n";
  for (const std::unique_ptr<Thread>& thread : threads_) {
    text += "  " + thread->name + (thread->ended ? " has ended" : " is ahead of ") +
            (thread->ended ? "" : thread->operation) + "\n";
  }
  return text;
}

// --- What a test sees. ---------------------------------------------------------------------------

void Schedule::Add(std::string name, std::function<void()> body) {
  engine_.Add(std::move(name), std::move(body));
}
void Schedule::Run() { engine_.RunUntilQuiet(true); }
void Schedule::RunToEnd() {
  Run();
  if (!engine_.AllEnded()) Die("a thread waits for ever\n" + engine_.Trace());
}
void Schedule::Settle() { engine_.RunUntilQuiet(false); }
bool Schedule::Ended(const std::string& name) const { return engine_.Ended(name); }
std::size_t Schedule::now() const { return engine_.now(); }
void Schedule::Pause() {
  if (HeldThread* held = HeldThread::Current()) held->Step("pause");
}
void Schedule::Finish() { engine_.Finish(); }

Exploration Explore(const ExploreOptions& options,
                    const std::function<std::string(Schedule&)>& body) {
  Exploration result;
  Workers workers;
  std::vector<Choice> trail;
  do {
    Schedule::Engine engine(workers, trail, options.preemptions);
    Schedule schedule(engine);
    result.problem = body(schedule);
    ++result.schedules;
    if (!result.problem.empty()) {
      result.problem += "\nschedule " + std::to_string(result.schedules) + ":\n" + engine.Trace();
      return result;
    }
    if (result.schedules > options.most) {
      result.problem = "more than " + std::to_string(options.most) + " schedules";
      return result;
    }
    engine.Finish();
    // The next one in order of depth: the last choice that has another way.
    while (!trail.empty() && ++trail.back().taken == trail.back().count) trail.pop_back();
  } while (!trail.empty());
  return result;
}

}  // namespace xtcp::test
