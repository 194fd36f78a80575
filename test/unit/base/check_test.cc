#include "base/check.h"

#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <catch2/catch.hpp>
#include <csignal>
#include <string>

TEST_CASE("a check that holds does nothing, and evaluates its condition once", "[M30]") {
  int evaluated = 0;
  XTCP_CHECK(++evaluated == 1, "broken");
  CHECK(evaluated == 1);
}

TEST_CASE("a debug check is evaluated only in builds that ask for it") {
  int evaluated = 0;
  XTCP_DCHECK(++evaluated == 1, "broken");
#ifdef XTCP_DEBUG_CHECKS
  CHECK(evaluated == 1);
#else
  CHECK(evaluated == 0);
#endif
}

TEST_CASE("a check that fails prints its text and aborts", "[M30]") {
  std::array<int, 2> pipe_fds{};
  REQUIRE(::pipe(pipe_fds.data()) == 0);
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    ::signal(SIGABRT, SIG_DFL);
    ::dup2(pipe_fds[1], STDERR_FILENO);
    XTCP_CHECK(pipe_fds[0] < 0, "the ring is torn");
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
  REQUIRE(::waitpid(child, &status, 0) == child);
  CHECK(WIFSIGNALED(status));
  CHECK(WTERMSIG(status) == SIGABRT);
  CHECK(output.find("check_test.cc:") != std::string::npos);
  CHECK(output.find("the ring is torn") != std::string::npos);
}
