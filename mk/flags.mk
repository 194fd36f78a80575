# The flags of each kind of source. Those of the user, CPPFLAGS, CXXFLAGS and LDFLAGS, come after
# ours.

USER_CXXFLAGS = $(CPPFLAGS) $(CXXFLAGS)
USER_LDFLAGS = $(CXXFLAGS) $(LDFLAGS)

STD = -std=c++20 -pthread
# -Wno-error=cpp: the C library warns about _FORTIFY_SOURCE where CXXFLAGS has -O0.
WARNINGS = -Wall -Wextra -Wpedantic -Wconversion -Wshadow -Wsuggest-override \
  $(if $(STRICT),-Werror -Wno-error=cpp)

# Control-flow protection has another name on each processor that has it. Expanded by the shell of
# the recipe: the compiler may not be there yet when this is read.
BRANCHES = $$(tools/branch_protection.sh $(CXX))
PROTECTION = -fstack-protector-strong $(BRANCHES) -D_GLIBCXX_ASSERTIONS
# A level that the user asks for is the only one, since two are a warning.
FORTIFY = $(if $(findstring _FORTIFY_SOURCE,$(USER_CXXFLAGS)),,-U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=3)
LINK = -pthread -pie -Wl,-z,relro,-z,now,-z,noexecstack -Wl,--as-needed
# What is built does not tell in which folder: two builds are the same, bit for bit.
ANYWHERE = -ffile-prefix-map='$(CURDIR)'=.

# The archive that ships. The test variant `plain` is linked with it.
CODE_release = -O2 -g $(FORTIFY)
# -O1 halves the compile time of -O2, and the checks cost more than the optimizer wins. Not null: when
# a thread ends by force, `catch (const ForcedUnwind&)` binds to nothing. A null pointer that is used is
# seen by the address sanitizer, and check_clang.sh looks for the others.
CODE_asan = -O1 -g -fno-omit-frame-pointer -DXTCP_DEBUG_CHECKS $(HELD) \
  -fsanitize=address,undefined -fno-sanitize=null -fno-sanitize-recover=all
# Atomics and locks at which the program `schedules` can hold a thread.
HELD = -Itest '-DXTCP_SYNC_HEADER="support/sync.h"'
CODE_tsan = -O1 -g -fno-omit-frame-pointer -DXTCP_DEBUG_CHECKS -fsanitize=thread

LIB_FLAGS = $(STD) $(WARNINGS) $(PROTECTION) $(ANYWHERE) -fvisibility=hidden \
  -fvisibility-inlines-hidden -Iinclude -Ilib
# Demo programs are compiled as an application would be.
APP_FLAGS = $(STD) $(WARNINGS) $(PROTECTION) $(ANYWHERE) -fPIE -Iinclude
# What is compared has the flags of the yardstick: all servers alike, -O2 and no protections. The
# load and the peers do not see the library's headers.
BENCH_FLAGS = $(STD) $(WARNINGS) -O2 -g -fPIE -Ibench

# Test code has to compile fast more than run fast, and its arithmetic is not what is tested:
# undefined behaviour is looked for in the library only.
TEST_FLAGS = $(STD) -O0 -g1 -fPIE -Wall -Wextra -Wpedantic -Wshadow $(if $(STRICT),-Werror) \
  -D_GLIBCXX_ASSERTIONS -Iinclude -Ilib -Itest -I. -Idemo
TEST_CODE_plain =
# What headers check, test code checks as well.
TEST_CODE_asan = -DXTCP_DEBUG_CHECKS -fno-omit-frame-pointer $(HELD) -fsanitize=address
TEST_CODE_tsan = -DXTCP_DEBUG_CHECKS -fno-omit-frame-pointer -fsanitize=thread
LINK_plain =
LINK_asan = -fsanitize=address,undefined
LINK_tsan = -fsanitize=thread

# Expanded by the shell of the recipe that needs them, never by make.
SPDLOG_CFLAGS = $$(pkg-config --cflags spdlog)
SPDLOG_LIBS = $$(pkg-config --libs spdlog)
PROTOBUF_CFLAGS = $$(pkg-config --cflags protobuf)
PROTOBUF_LIBS = $$(pkg-config --libs protobuf)
# Catch2 3, or Catch2 2, which has no pkg-config file for its main function.
CATCH_LIBS = $$(pkg-config --libs catch2-with-main 2>/dev/null || echo -lCatch2WithMain)

DEPEND = -MMD -MP -MF $(@:%=%.d)
