# xtcp. `make help` lists the goals. CXX, AR, CPPFLAGS, CXXFLAGS, LDFLAGS and LDLIBS, from the
# environment or the command line, are taken as they are given: our own flags come first, so yours
# win. A change of flags rebuilds nothing, so `make clean` first, or give each set of flags its own
# BUILD. This file says what can be made; the files in mk/ say how.
#
# `make deps demo` works on a machine that has only git and make. So nothing is run while this is
# read but a shell and what every system has beside it.

# --- What you may set ----------------------------------------------------------------------------

# Where everything goes that is made. It may be outside of this folder, which is never written to.
BUILD ?= build
# STRICT=1 is for our own developers and CI: a warning is an error, and so is a lint check that
# cannot run. V=1 shows the commands.
STRICT ?=
V ?=
# How many jobs: all processors, or what a Debian package builder is allowed. -jN on the command
# line is stronger than this.
JOBS ?= $(or $(patsubst parallel=%,%,$(filter parallel=%,$(DEB_BUILD_OPTIONS))),$(shell nproc))

ifeq ($(wildcard include/xtcp/xtcp.h),)
$(error Run make in the folder of this Makefile, or with -C. BUILD=FOLDER says where to build)
endif

export BUILD CXX STRICT
MAKEFLAGS += --no-builtin-rules
ifeq ($(MAKELEVEL),0)
MAKEFLAGS += -j$(JOBS)
endif
.SUFFIXES:
.DELETE_ON_ERROR:
.DEFAULT_GOAL := all

# With one of these among the goals, whatever runs a tool waits for it.
DEPS_FIRST := $(filter deps bench-deps cross-deps,$(MAKECMDGOALS))

Q := $(if $(V),,@)
say = $(if $(V),,@printf '  %-5s %s\n' '$1' '$2')

# --- What can be made ----------------------------------------------------------------------------

.PHONY: all
all: $(addprefix $(BUILD)/release/,libxtcp.a libxtcp_pic.a libxtcp.so) ## the library: archives and shared, in build/release

.PHONY: deps bench-deps
deps: ## install what the other goals need that you name: `make deps test` (as root, Debian and Ubuntu)
	@tools/deps.sh $(filter-out deps,$(MAKECMDGOALS))
bench-deps: ## install what bench-peers and bench-report can use beside that
	@tools/deps.sh bench-peers

.PHONY: test test-quick test-plain test-asan test-tsan lint check
test: programs-plain programs-asan programs-tsan programs-demo programs-bench all ## build and run all tests in all variants, and the lint checks
	@$(RUN_TESTS) tsan asan lint plain
test-quick test-plain check: programs-plain ## the archive that ships, without lint: the inner loop
	@$(RUN_TESTS) plain
test-asan: programs-asan ## one variant: address and undefined-behaviour sanitizers
	@$(RUN_TESTS) asan
test-tsan: programs-tsan ## one variant: thread sanitizer
	@$(RUN_TESTS) tsan
lint: all programs-demo $(BUILD)/plain/test/integration ## the lint checks alone; STRICT=1: none may be skipped
	@$(RUN_TESTS) lint

.PHONY: demo
demo: programs-demo ## build the demo programs, run the chat
	@$(BUILD)/release/demo/protobuf_chat

.PHONY: bench bench-peers bench-report
bench: programs-bench ## build the benchmarks, run them: one minute
	@bench/run.sh echo threads growth micro
bench-peers: programs-bench programs-peers ## beside the floor, and asio, libuv, libevent if installed: three minutes
	@bench/run.sh peers
bench-report: programs-bench programs-peers ## both, and docs/benchmarks.md with its plots made anew: four minutes
	@bench/report.sh

.PHONY: soak
soak: $(BUILD)/plain/test/stress ## 20,000 rounds of random stops: some minutes
	@XTCP_ROUNDS=20000 $(BUILD)/plain/test/stress 'random stops*'

.PHONY: fuzz
fuzz: $(BUILD)/asan/test/fuzz ## a million inputs for each fuzz target: some minutes
	@XTCP_FUZZ_RUNS=1000000 $(BUILD)/asan/test/fuzz

.PHONY: format format-check tidy
format: | $(DEPS_FIRST) ## format the sources with clang-format 14
	@test/lint/check_format.sh --fix
format-check: | $(DEPS_FIRST) ## say what is not formatted
	@test/lint/check_format.sh
tidy: | $(DEPS_FIRST) ## thread-safety analysis, and clang-tidy (.clang-tidy says which checks)
	@test/lint/check_clang.sh
	@printf '%s\n' $(LIB_SRCS) | xargs -P $(JOBS) -n 1 sh -c \
	  'clang-tidy --quiet --warnings-as-errors="*" "$$1" -- -std=c++20 -Iinclude -Ilib' tidy

.PHONY: compile_commands.json
compile_commands.json: ## for editors and clang tools: how each source is compiled
	@MAKEFLAGS= $(MAKE) -Bn V=1 all programs-plain programs-demo programs-bench | tools/compile_commands.sh >$@

.PHONY: clean help
clean: ## remove what was built
	rm -rf '$(BUILD)'
help: ## this list
	@sed -nE 's/^([a-z][-a-z_. ]*):.* ## (.*)/\1\t\2/p' Makefile mk/*.mk | \
	  while IFS="$$(printf '\t')" read -r goals text; do printf 'make %-22s %s\n' "$${goals%% *}" "$$text"; done
	@echo 'BUILD=FOLDER, PREFIX, DESTDIR, LIBDIR, INCLUDEDIR, CXX, AR and the usual FLAGS are honoured; V=1 shows commands'

.PHONY: FORCE
FORCE:

# --- How -----------------------------------------------------------------------------------------

include mk/flags.mk
include mk/library.mk
include mk/demo.mk
include mk/bench.mk
include mk/test.mk
include mk/lint.mk
include mk/install.mk
include mk/docs.mk
include mk/cross.mk
