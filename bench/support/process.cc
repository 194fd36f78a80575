#include "support/process.h"

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <exception>
#include <fstream>
#include <iostream>
#include <sstream>
#include <stdexcept>
#include <thread>

namespace bench {
namespace {

constexpr int kDeadlineMs = 30'000;

double ReadClock(clockid_t clock) {
  timespec now{};
  clock_gettime(clock, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) / 1e9;
}

int Cpu(int index) {
  cpu_set_t allowed;
  if (sched_getaffinity(0, sizeof allowed, &allowed) != 0) return Child::kAnyCpu;
  index = std::min(index, CPU_COUNT(&allowed) - 1);
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (CPU_ISSET(cpu, &allowed) && index-- == 0) return cpu;
  }
  return Child::kAnyCpu;
}

void Exec(const std::vector<std::string>& command) {
  std::vector<char*> arguments;
  for (const std::string& word : command) arguments.push_back(const_cast<char*>(word.c_str()));
  arguments.push_back(nullptr);
  execvp(arguments[0], arguments.data());
  throw std::runtime_error("cannot run " + command[0]);
}

}  // namespace

Child::Child(const std::vector<std::string>& command, int cpu) : name_(command[0]) {
  Start(cpu, [&] { Exec(command); });
}

Child::Child(const std::function<void()>& body, int cpu) : name_("a measurement") {
  Start(cpu, body);
}

void Child::Start(int cpu, const std::function<void()>& body) {
  int in[2], out[2];
  if (pipe2(in, O_CLOEXEC) != 0) throw std::runtime_error("no pipe");
  if (pipe2(out, O_CLOEXEC) != 0) throw std::runtime_error("no pipe");
  std::cout.flush();  // or the child would print it again
  const pid_t parent = getpid();
  pid_ = fork();
  if (pid_ != 0) {
    close(in[0]);
    close(out[1]);
    input_ = in[1];
    output_ = out[0];
    if (pid_ < 0) throw std::runtime_error("no process");
    return;
  }

  // The child. It must not return into the parent's code.
  int status = 1;
  try {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(1);  // it died before the line above
    dup2(in[0], STDIN_FILENO);
    dup2(out[1], STDOUT_FILENO);
    for (const int fd : {in[0], in[1], out[0], out[1]}) close(fd);
    if (cpu != kAnyCpu) {
      cpu_set_t set;
      CPU_ZERO(&set);
      CPU_SET(static_cast<unsigned>(cpu), &set);
      sched_setaffinity(0, sizeof set, &set);
    }
    body();
    status = 0;
  } catch (const std::exception& failure) {
    std::cerr << failure.what() << std::endl;
  }
  std::cout.flush();
  _exit(status);
}

Child::~Child() {
  if (pid_ > 0) {
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
  }
  if (input_ >= 0) close(input_);
  if (output_ >= 0) close(output_);
}

// Reads more of its output. False at the end.
bool Child::Fill() {
  pollfd readable{output_, POLLIN, 0};
  if (poll(&readable, 1, kDeadlineMs) != 1) throw std::runtime_error(name_ + " says nothing");
  char buffer[4096];
  const ssize_t got = read(output_, buffer, sizeof buffer);
  if (got <= 0) return false;
  unread_.append(buffer, static_cast<std::size_t>(got));
  return true;
}

std::string Child::ReadLine() {
  std::size_t end;
  while ((end = unread_.find('\n')) == std::string::npos) {
    if (!Fill()) throw std::runtime_error(name_ + " ended too early");
  }
  const std::string line = unread_.substr(0, end);
  unread_.erase(0, end + 1);
  return line;
}

void Child::WriteLine(const std::string& line) {
  const std::string text = line + "\n";
  if (write(input_, text.data(), text.size()) != static_cast<ssize_t>(text.size())) {
    throw std::runtime_error(name_ + " does not listen");
  }
}

Figures Child::ReadFigures() {
  while (Fill()) {
  }
  int status = 0;
  waitpid(pid_, &status, 0);
  pid_ = -1;
  if (status != 0) throw std::runtime_error(name_ + " failed");
  Figures figures;
  std::istringstream lines(unread_);
  std::string name;
  double value;
  while (lines >> name >> value) figures[name] = value;
  return figures;
}

Figures Run(const std::vector<std::string>& command, int cpu) {
  return Child(command, cpu).ReadFigures();
}

Figures Run(const std::function<void()>& body) { return Child(body).ReadFigures(); }

void Print(const std::string& name, double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.9g", value);
  std::cout << name << ' ' << text << std::endl;
}

std::string Sibling(const std::string& name) {
  char self[4096];
  const ssize_t size = readlink("/proc/self/exe", self, sizeof self);
  if (size <= 0) throw std::runtime_error("/proc is not there");
  const std::string path(self, static_cast<std::size_t>(size));
  return path.substr(0, path.rfind('/') + 1) + name;
}

int ServerCpu() { return Cpu(0); }
int LoadCpu() { return Cpu(1); }

int PortOf(Child& server) {
  const std::string line = server.ReadLine();
  const std::string host = "127.0.0.1:";
  const std::size_t at = line.find(host);
  const int port = at == std::string::npos ? 0 : std::atoi(line.c_str() + at + host.size());
  if (port == 0) throw std::runtime_error("tells no port: " + line);
  return port;
}

double PrivateBytes(pid_t pid) {
  std::ifstream lines("/proc/" + std::to_string(pid) + "/smaps_rollup");
  std::string word;
  double kilobytes = -1;
  while (lines >> word) {
    if (word == "Private_Dirty:" && lines >> kilobytes) return kilobytes * 1024;
  }
  throw std::runtime_error("no memory figures of a process");
}

void RaiseDescriptorLimit() {
  rlimit limit{};
  getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = std::max<rlim_t>(limit.rlim_cur, std::min<rlim_t>(limit.rlim_max, 20'000));
  setrlimit(RLIMIT_NOFILE, &limit);
}

double Seconds() { return ReadClock(CLOCK_MONOTONIC); }
double CpuSeconds() { return ReadClock(CLOCK_PROCESS_CPUTIME_ID); }

void WaitUntil(const std::function<bool()>& condition) {
  const double deadline = Seconds() + kDeadlineMs / 1e3;
  while (!condition()) {
    if (Seconds() > deadline) throw std::runtime_error("waited in vain");
    Sleep(0.001);
  }
}

void Sleep(double seconds) { std::this_thread::sleep_for(std::chrono::duration<double>(seconds)); }

}  // namespace bench
