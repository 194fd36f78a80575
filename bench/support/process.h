#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

namespace bench {

// What a program has measured: one number a name.
using Figures = std::map<std::string, double>;

// A process that we started. Its standard input and output are ours.
//
// However the parent ends, the child does too: the destructor kills it, and the kernel does when
// the thread that made it dies. Every wait has a deadline; what goes wrong is a std::runtime_error.
class Child {
 public:
  // Runs a program. On processor `cpu` only, unless that is kAnyCpu.
  static constexpr int kAnyCpu = -1;
  explicit Child(const std::vector<std::string>& command, int cpu = kAnyCpu);

  // Runs `body` in a copy of this process, which must not have threads: fresh memory for each
  // measurement. `body` prints its figures, a line "name value" each; see `Print`.
  explicit Child(const std::function<void()>& body, int cpu = kAnyCpu);

  ~Child();
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;

  pid_t pid() const { return pid_; }

  std::string ReadLine();
  void WriteLine(const std::string& line);

  // The figures it prints until its end, which must be a good one.
  Figures ReadFigures();

 private:
  void Start(int cpu, const std::function<void()>& body);
  bool Fill();

  const std::string name_;
  pid_t pid_ = -1;
  int input_ = -1;
  int output_ = -1;
  std::string unread_;
};

// Runs it to its end.
Figures Run(const std::vector<std::string>& command, int cpu = Child::kAnyCpu);
Figures Run(const std::function<void()>& body);

// One line for `ReadFigures`.
void Print(const std::string& name, double value);

// The program `name` that was built beside this one: "load/load".
std::string Sibling(const std::string& name);

// The first and the second processor that we may use, the same one if there is only one. A server
// runs on the first, its load on the second.
int ServerCpu();
int LoadCpu();

// The port that a server's first line tells: "... 127.0.0.1:PORT ...".
int PortOf(Child& server);

// Memory that only this process holds and has written to, in bytes. The kernel's own memory for
// sockets is in no process's account.
double PrivateBytes(pid_t pid);

// Descriptors for 10,000 connections, for us and our children.
void RaiseDescriptorLimit();

double Seconds();     // of the monotonic clock
double CpuSeconds();  // of this process

// Looks every millisecond; throws when it does not come true.
void WaitUntil(const std::function<bool()>& condition);
void Sleep(double seconds);

}  // namespace bench
