#pragma once

#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <catch2/catch.hpp>
#include <csignal>
#include <functional>
#include <string>
#include <vector>

namespace xtcp::internal {

// A debug check, by its text, and what breaks it.
struct Broken {
  const char* text;
  std::function<void()> function;
};

// Calls `function` in a child process. Returns what the child wrote to its standard error, and "" if it
// did not abort.
inline std::string AbortsWith(const std::function<void()>& function) {
  std::array<int, 2> pipe_fds{};
  if (::pipe(pipe_fds.data()) != 0) return {};
  const pid_t child = ::fork();
  if (child == 0) {
    ::signal(SIGABRT, SIG_DFL);
    ::dup2(pipe_fds[1], STDERR_FILENO);
    function();
    ::_exit(0);
  }
  ::close(pipe_fds[1]);
  std::string output;
  std::array<char, 256> part{};
  for (ssize_t size; (size = ::read(pipe_fds[0], part.data(), part.size())) > 0;) {
    output.append(part.data(), static_cast<std::size_t>(size));
  }
  ::close(pipe_fds[0]);
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT ? output : "";
}

// Breaks one after the other, and checks that each ends its process with its text.
inline void CheckThatEachFires(const std::vector<Broken>& table) {
  for (const Broken& broken : table) {
    CAPTURE(broken.text);
    const std::string output = AbortsWith(broken.function);
    CHECK(output.find(broken.text) != std::string::npos);
  }
}

// Gives a test a private member function. An explicit instantiation may name what is private
// ([temp.spec.general] of the C++ standard):
//
//   struct Unlink { using Type = void (Group::*)(Member&); };
//   template struct Private<Unlink, &Group::Unlink>;
//   (group.*Get(Unlink{}))(member);
template <typename Tag, typename Tag::Type kMember>
struct Private {
  friend typename Tag::Type Get(Tag) { return kMember; }
};

}  // namespace xtcp::internal
