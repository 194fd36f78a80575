#pragma once

#include <fcntl.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "support/deadline.h"
#include "support/violations.h"

namespace xtcp::test {

// A program of demo/ that runs. Its standard input and output are ours, and every wait has a
// deadline. It ends with the object, and with the test program.
//
// Thread safety: the test's thread.
class Program {
 public:
  Program(const std::string& name, std::vector<std::string> arguments) {
    int in[2], out[2];
    if (::pipe2(in, O_CLOEXEC) != 0 || ::pipe2(out, O_CLOEXEC) != 0) Die("no pipe");
    const std::string path = PathOf(name);
    std::vector<char*> words{const_cast<char*>(path.c_str())};
    for (std::string& argument : arguments) words.push_back(argument.data());
    words.push_back(nullptr);
    pid_ = ::fork();
    if (pid_ == 0) {  // only what is safe in a signal handler, until the other program begins
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);
      ::dup2(in[0], STDIN_FILENO);
      ::dup2(out[1], STDOUT_FILENO);
      ::execv(path.c_str(), words.data());
      ::_exit(127);
    }
    if (pid_ < 0) Die("no process");
    ::close(in[0]);
    ::close(out[1]);
    input_ = in[1];
    output_ = out[0];
  }
  ~Program() {
    if (pid_ > 0) ::kill(pid_, SIGKILL);
    if (pid_ > 0) ::waitpid(pid_, nullptr, 0);
    CloseInput();
    ::close(output_);
  }
  Program(const Program&) = delete;
  Program& operator=(const Program&) = delete;

  // The next line of its output without its end; "" when none came.
  std::string ReadLine() {
    std::size_t end;
    while ((end = unread_.find('\n')) == std::string::npos) {
      pollfd readable{output_, POLLIN, 0};
      char buffer[4096];
      const bool came = ::poll(&readable, 1, kDeadlineMs) == 1;
      const ssize_t got = came ? ::read(output_, buffer, sizeof buffer) : 0;
      if (got <= 0) return "";
      unread_.append(buffer, static_cast<std::size_t>(got));
    }
    std::string line = unread_.substr(0, end);
    unread_.erase(0, end + 1);
    return line;
  }

  // The address with which a server ends its first line.
  std::string ReadAddress() {
    const std::string line = ReadLine();
    return line.substr(line.rfind(' ') + 1);
  }

  // A pipe takes so little at once without anybody who reads.
  bool Write(std::string_view text) {
    return ::write(input_, text.data(), text.size()) == static_cast<ssize_t>(text.size());
  }
  void CloseInput() {
    if (input_ >= 0) ::close(std::exchange(input_, -1));
  }

  void Signal(int signal) { ::kill(pid_, signal); }

  pid_t pid() const { return pid_; }  // until it has ended

  // Its exit status; none if it goes on, or was killed.
  std::optional<int> WaitForExit() {
    int status = 0;
    if (!WaitUntil([&] { return ::waitpid(pid_, &status, WNOHANG) == pid_; })) return {};
    pid_ = -1;
    if (!WIFEXITED(status)) return {};
    return WEXITSTATUS(status);
  }

 private:
  static constexpr int kDeadlineMs = std::chrono::milliseconds(kDeadline).count();

  // All variants of the tests run the programs that users get: build/VARIANT/test/demo runs those of
  // build/release/demo.
  static std::string PathOf(const std::string& name) {
    const auto self = std::filesystem::read_symlink("/proc/self/exe");
    return self.parent_path().parent_path().parent_path() / "release" / "demo" / name;
  }

  pid_t pid_ = -1;
  int input_ = -1;
  int output_ = -1;
  std::string unread_;
};

}  // namespace xtcp::test
