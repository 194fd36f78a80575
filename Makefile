# xtcp. `make help` lists the targets. CXX, CPPFLAGS, CXXFLAGS, LDFLAGS and LDLIBS, from the
# environment or the command line, are added to ours; a change of flags rebuilds nothing, so
# `make clean` first. V=1 shows the commands.
#
# Nothing here runs an installed tool while the file is being read: `make deps demo` must work on a
# machine that has only git and make.

WERROR ?= -Werror
PREFIX ?= /usr/local

MAKEFLAGS += --no-builtin-rules
# All processors, unless this is a part of someone's larger build. A -j on the command line cannot
# be seen here and is overridden: JOBS=1 builds one after the other.
JOBS ?= $(shell nproc)
ifeq ($(MAKELEVEL),0)
MAKEFLAGS += -j$(JOBS)
endif
.SUFFIXES:
.DELETE_ON_ERROR:
.DEFAULT_GOAL := all

# With `deps` among the goals, whatever runs a tool waits for it.
DEPS_FIRST := $(filter deps bench-deps,$(MAKECMDGOALS))

# --- Flags ---------------------------------------------------------------------------------------

# -Wno-error=cpp: the C library warns about _FORTIFY_SOURCE where CXXFLAGS has -O0.
STD = -std=c++20 -pthread
WARNINGS = -Wall -Wextra -Wpedantic -Wconversion -Wshadow -Wsuggest-override $(WERROR) \
  -Wno-error=cpp
HARDENING = -fPIE -fstack-protector-strong -fcf-protection -D_GLIBCXX_ASSERTIONS
LINK = -pthread -pie -Wl,-z,relro,-z,now,-z,noexecstack -Wl,--as-needed

# The archive that ships. The test variant `plain` is linked with it.
CODE_release = -O2 -g -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=3
# -O1 halves the compile time of -O2, and the checks cost more than the optimizer wins.
CODE_asan = -O1 -g -fno-omit-frame-pointer -DXTCP_DEBUG_CHECKS \
  -fsanitize=address,undefined -fno-sanitize-recover=all
CODE_tsan = -O1 -g -fno-omit-frame-pointer -DXTCP_DEBUG_CHECKS -fsanitize=thread

LIB_FLAGS = $(STD) $(WARNINGS) $(HARDENING) -fvisibility=hidden -fvisibility-inlines-hidden \
  -Iinclude -Ilib
# Demo programs are compiled as an application would be.
APP_FLAGS = $(STD) $(WARNINGS) $(HARDENING) -Iinclude
# What is compared has the flags of the yardstick: all servers alike, -O2 and no protections. The
# load and the peers do not see the library's headers.
BENCH_FLAGS = $(STD) $(WARNINGS) -O2 -g -fPIE -Ibench

# Test code has to compile fast more than run fast, and its arithmetic is not what is tested:
# undefined behaviour is looked for in the library only.
TEST_FLAGS = $(STD) -O0 -g1 -fPIE -Wall -Wextra -Wpedantic -Wshadow $(WERROR) \
  -D_GLIBCXX_ASSERTIONS -Iinclude -Ilib -Itest -I. -Idemo
TEST_CODE_plain =
TEST_CODE_asan = -fno-omit-frame-pointer -fsanitize=address
TEST_CODE_tsan = -fno-omit-frame-pointer -fsanitize=thread
LINK_plain =
LINK_asan = -fsanitize=address,undefined
LINK_tsan = -fsanitize=thread

# Expanded by the shell of the recipe that needs them, never by make.
SPDLOG_CFLAGS = $$(pkg-config --cflags spdlog)
SPDLOG_LIBS = $$(pkg-config --libs spdlog)
PROTOBUF_CFLAGS = $$(pkg-config --cflags protobuf)
PROTOBUF_LIBS = $$(pkg-config --libs protobuf)

DEPEND = -MMD -MP -MF $(@:%=%.d)
USER_CXXFLAGS = $(CPPFLAGS) $(CXXFLAGS)

Q := $(if $(V),,@)
say = $(if $(V),,@printf '  %-5s %s\n' '$1' '$2')

# --- Sources -------------------------------------------------------------------------------------

find_sources = $(sort $(shell find $1 -name '$2' 2>/dev/null))

LIB_SRCS := $(call find_sources,lib,*.cc)

CONFIGS := release asan tsan
VARIANTS := plain asan tsan
CONFIG_plain := release
CONFIG_asan := asan
CONFIG_tsan := tsan

# Each folder of test/ that holds *_test.cc somewhere is one program.
TEST_SRCS := $(filter-out test/support/% test/lint/% test/fuzz/%,\
  $(call find_sources,test,*_test.cc))
TEST_PROGRAMS := $(sort $(foreach s,$(TEST_SRCS),$(word 2,$(subst /, ,$(s)))))
# This one defines the seam (lib/sys/syscalls.h) itself, so it goes only into `fault`, `limits`,
# `options` and `integration-fault`, a second program made of the objects of `integration`.
FAULT_SRC := $(wildcard test/support/fault_syscalls.cc)
SUPPORT_SRCS := $(filter-out $(FAULT_SRC),$(wildcard test/support/*.cc))
ifneq ($(FAULT_SRC),)
TEST_PROGRAMS := $(TEST_PROGRAMS) $(addsuffix -fault,$(filter integration,$(TEST_PROGRAMS)))
endif

# Of the demo, the protocol is no program: the chat and a test program link it.
DEMO_PARTS := $(wildcard demo/protobuf_protocol.cc)
DEMO_PROGRAMS := $(patsubst %.cc,build/release/%,$(filter-out $(DEMO_PARTS),$(wildcard demo/*.cc)))
GEN := build/release/demo/gen
# Each source in bench/ is a program, linked with what is in bench/support. The load and the servers
# to compare with are programs of one source that use nothing of the library.
BENCH_PROGRAMS := $(patsubst %.cc,build/release/%,$(wildcard bench/*.cc))
BENCH_SUPPORT := $(patsubst %.cc,build/release/obj/%.o,$(wildcard bench/support/*.cc))
BENCH_TOOLS := build/release/bench/load/load build/release/bench/peers/floor
BENCH_PEERS := $(filter-out %/floor,$(patsubst %.cc,build/release/%,$(wildcard bench/peers/*.cc)))
# $(call changed,file,list): FORCE unless the file holds this list. A source that was removed or
# renamed must leave the archive and the programs too.
differ = $(subst x$(strip $1),,x$(strip $2))$(subst x$(strip $2),,x$(strip $1))
changed = $(if $(call differ,$(file <$1),$2),FORCE)

# --- Targets -------------------------------------------------------------------------------------

.PHONY: all
all: build/release/libxtcp.a

.PHONY: help
help:
	@echo 'make               the library: build/release/libxtcp.a'
	@echo 'make deps          install what is missing to build and test (Debian packages)'
	@echo 'make test          build and run all tests in all variants, and the lint checks'
	@echo 'make test-quick    the same for the plain variant, without lint: the inner loop'
	@echo 'make test-plain    one variant: the archive that ships'
	@echo 'make test-asan     one variant: address and undefined-behaviour sanitizers'
	@echo 'make test-tsan     one variant: thread sanitizer'
	@echo 'make lint          the lint checks alone'
	@echo 'make demo          build the demo programs, run the chat'
	@echo 'make bench         build the benchmarks, run them: one minute'
	@echo 'make bench-peers   beside the floor, and asio, libuv, libevent if installed: three minutes'
	@echo 'make bench-report  both, and docs/benchmarks.md with its plots made anew: four minutes'
	@echo 'make bench-deps    install what bench-peers and bench-report can use (Debian packages)'
	@echo 'make soak          20,000 rounds of random stops: some minutes'
	@echo 'make format        format the sources with clang-format'
	@echo 'make format-check  say what is not formatted'
	@echo 'make tidy          thread-safety analysis, and clang-tidy if it is installed'
	@echo 'make install       headers, archive and xtcp.pc, to PREFIX (/usr/local) below DESTDIR'
	@echo 'make clean         remove build/'
	@echo 'CXX, CPPFLAGS, CXXFLAGS, LDFLAGS are honoured; WERROR= lets warnings pass; V=1 shows commands'

# What a program or header that we use comes from: path or command, then package.
NEEDS = g++:g++ clang++:clang clang-format-14:clang-format-14 ld:binutils nm:binutils \
  pkg-config:pkg-config protoc:protobuf-compiler strace:strace \
  /usr/include/catch2/catch.hpp:catch2 /usr/include/spdlog/spdlog.h:libspdlog-dev \
  /usr/include/google/protobuf/message.h:libprotobuf-dev
# None of these is needed to build or to test.
BENCH_NEEDS = gnuplot:gnuplot-nox valgrind:valgrind /usr/include/asio.hpp:libasio-dev \
  /usr/include/uv.h:libuv1-dev /usr/include/event2/event.h:libevent-dev

.PHONY: deps bench-deps
bench-deps: NEEDS = $(BENCH_NEEDS)
deps bench-deps:
	@missing=; \
	for need in $(NEEDS); do \
	  thing=$${need%%:*}; package=$${need##*:}; \
	  case $$thing in \
	    /*) test -e "$$thing" ;; \
	    *) command -v "$$thing" >/dev/null 2>&1 ;; \
	  esac && continue; \
	  case " $$missing " in *" $$package "*) ;; *) missing="$$missing $$package" ;; esac; \
	done; \
	test -n "$$missing" || exit 0; \
	install="apt-get install -y --no-install-recommends$$missing"; \
	if ! command -v apt-get >/dev/null 2>&1; then \
	  echo "deps: no apt-get here. These Debian packages, or what corresponds, are missing:$$missing" >&2; \
	  exit 1; \
	elif [ "$$(id -u)" != 0 ]; then \
	  echo 'deps: packages are missing. As root, run:' >&2; \
	  echo "  apt-get update && $$install" >&2; \
	  exit 1; \
	fi; \
	echo "deps: installing$$missing"; \
	export DEBIAN_FRONTEND=noninteractive; \
	log=$$(mktemp); \
	{ apt-get -o Acquire::Retries=3 update && $$install; } </dev/null >"$$log" 2>&1 \
	  || { cat "$$log" >&2; rm -f "$$log"; echo "deps: failed: $$install" >&2; exit 1; }; \
	rm -f "$$log"

.PHONY: test test-quick $(VARIANTS:%=test-%) lint
test: $(VARIANTS:%=programs-%) programs-demo programs-bench all
	@test/run.sh tsan asan plain lint

test-quick test-plain: programs-plain
	@test/run.sh plain

test-asan test-tsan: test-%: programs-%
	@test/run.sh $*

lint: all programs-demo build/plain/test/integration
	@test/run.sh lint

.PHONY: demo programs-demo
programs-demo: $(DEMO_PROGRAMS)
demo: programs-demo
	@build/release/demo/protobuf_chat

.PHONY: bench bench-peers bench-report programs-bench
programs-bench: $(BENCH_PROGRAMS) $(BENCH_TOOLS)
bench: programs-bench
	@CXX='$(CXX)' bench/run.sh echo threads growth micro
bench-peers: programs-bench $(BENCH_PEERS)
	@CXX='$(CXX)' bench/run.sh peers
bench-report: programs-bench $(BENCH_PEERS)
	@CXX='$(CXX)' bench/report.sh

.PHONY: soak
soak: build/plain/test/stop | $(DEPS_FIRST)
	@XTCP_ROUNDS=20000 build/plain/test/stop 'random stops*'

.PHONY: format format-check
format: | $(DEPS_FIRST)
	@test/lint/check_format.sh --fix
format-check: | $(DEPS_FIRST)
	@test/lint/check_format.sh

# What clang-tidy has to say about style is clang-format's and the reader's business. Off because
# clang-tidy 14 is wrong there: branch-clone about XTCP_DCHECK, valist about va_start.
TIDY_CHECKS = -*,bugprone-*,-bugprone-easily-swappable-parameters,-bugprone-branch-clone,$\
  clang-analyzer-*,-clang-analyzer-valist.*,concurrency-*,misc-unused-*,modernize-use-override,$\
  performance-*
.PHONY: tidy
tidy: | $(DEPS_FIRST)
	@test/lint/check_thread_safety.sh
	@if command -v clang-tidy >/dev/null 2>&1; then \
	  printf '%s\n' $(LIB_SRCS) | xargs -P $(JOBS) -n 1 sh -c 'clang-tidy --quiet \
	    --warnings-as-errors="*" --checks="$(TIDY_CHECKS)" "$$1" -- -std=c++20 -Iinclude -Ilib' tidy; \
	else \
	  echo 'tidy: clang-tidy is not installed, only the thread-safety analysis ran'; \
	fi

.PHONY: install
install: build/release/libxtcp.a
	install -d '$(DESTDIR)$(PREFIX)/include/xtcp' '$(DESTDIR)$(PREFIX)/lib/pkgconfig'
	install -m 644 include/xtcp/*.h '$(DESTDIR)$(PREFIX)/include/xtcp'
	install -m 644 build/release/libxtcp.a '$(DESTDIR)$(PREFIX)/lib'
	@version=$$(sed -n 's/^#define XTCP_VERSION_[A-Z]* //p' include/xtcp/xtcp.h | paste -sd.); \
	printf '%s\n' 'prefix=$(PREFIX)' 'includedir=$${prefix}/include' 'libdir=$${prefix}/lib' '' \
	  'Name: xtcp' 'Description: TCP server framework for Linux' "Version: $$version" \
	  'Cflags: -I$${includedir} -pthread' 'Libs: -L$${libdir} -lxtcp -pthread' \
	  >'$(DESTDIR)$(PREFIX)/lib/pkgconfig/xtcp.pc'

.PHONY: clean
clean:
	rm -rf build

.PHONY: FORCE
FORCE:

# --- The library, and what the demo's programs and tests share ------------------------------------

# $1 config
define library_rules
OBJS_$1 := $(LIB_SRCS:%.cc=build/$1/obj/%.o)

# q, not r: two layers may have a source of the same name, and r would keep one of them.
build/$1/libxtcp.a: $$(OBJS_$1) $$(call changed,build/$1/libxtcp.a.list,$(LIB_SRCS))
	$$(call say,AR,$$@)
	$$(Q)rm -f $$@
	$$(Q)$$(AR) qcs $$@ $$(OBJS_$1)
	@echo '$(LIB_SRCS)' >$$@.list

build/$1/obj/lib/%.o: lib/%.cc | $$(DEPS_FIRST)
	@mkdir -p $$(@D)
	$$(call say,CXX,$$@)
	$$(Q)$$(CXX) $$(LIB_FLAGS) $$(CODE_$1) $$(DEPEND) $$(USER_CXXFLAGS) -c $$< -o $$@

build/$1/obj/demo/%.o: demo/%.cc | $$(DEPS_FIRST)
	@mkdir -p $$(@D)
	$$(call say,CXX,$$@)
	$$(Q)$$(CXX) $$(APP_FLAGS) -Idemo -isystem $$(GEN) $$(CODE_$1) $$(DEPEND) $$(SPDLOG_CFLAGS) \
	  $$(PROTOBUF_CFLAGS) $$(USER_CXXFLAGS) -c $$< -o $$@

# Generated: its warnings and its arithmetic are not ours.
build/$1/obj/gen/chat.o: $$(GEN)/chat.pb.cc | $$(DEPS_FIRST)
	@mkdir -p $$(@D)
	$$(call say,CXX,$$@)
	$$(Q)$$(CXX) $$(STD) $$(HARDENING) $$(CODE_$1) -fno-sanitize=undefined -w $$(PROTOBUF_CFLAGS) \
	  $$(USER_CXXFLAGS) -c $$< -o $$@

build/$1/obj/demo/protobuf_protocol.o build/$1/obj/demo/protobuf_chat.o: $$(GEN)/chat.pb.h
PROTOBUF_OBJS_$1 := $(DEMO_PARTS:%.cc=build/$1/obj/%.o) build/$1/obj/gen/chat.o
endef
$(foreach c,$(CONFIGS),$(eval $(call library_rules,$c)))

# --- Demo and bench ------------------------------------------------------------------------------

$(GEN)/chat.pb.cc $(GEN)/chat.pb.h &: demo/chat.proto | $(DEPS_FIRST)
	@mkdir -p $(GEN)
	$(call say,PROTO,$<)
	$(Q)protoc --proto_path=demo --cpp_out=$(GEN) $<

$(DEMO_PROGRAMS): build/release/%: build/release/obj/%.o build/release/libxtcp.a
	@mkdir -p $(@D)
	$(call say,LINK,$@)
	$(Q)$(CXX) $(LINK) $(LDFLAGS) $(filter %.o,$^) build/release/libxtcp.a \
	  $(SPDLOG_LIBS) $(PROTOBUF_LIBS) $(LDLIBS) -o $@

build/release/demo/protobuf_chat: $(PROTOBUF_OBJS_release)

build/release/obj/bench/%.o: bench/%.cc | $(DEPS_FIRST)
	@mkdir -p $(@D)
	$(call say,CXX,$@)
	$(Q)$(CXX) $(BENCH_FLAGS) -Iinclude $(DEPEND) $(USER_CXXFLAGS) -c $< -o $@

$(BENCH_PROGRAMS): build/release/%: build/release/obj/%.o $(BENCH_SUPPORT) build/release/libxtcp.a
	@mkdir -p $(@D)
	$(call say,LINK,$@)
	$(Q)$(CXX) $(LINK) $(LDFLAGS) $(filter %.o,$^) build/release/libxtcp.a $(LDLIBS) -o $@

# It looks inside the library, and replaces its seam.
build/release/bench/micro: build/release/obj/bench/micro/no_kernel.o
build/release/obj/bench/micro.o build/release/obj/bench/micro/no_kernel.o: BENCH_FLAGS += -Ilib

# Where the library that a peer is about is not installed, nothing is built, and that is no error.
PEER_LIBS_libuv = -luv
PEER_LIBS_libevent = -levent_core
build/release/bench/load/load: $(wildcard bench/load/*) bench/support/message.h
$(BENCH_TOOLS) $(BENCH_PEERS): | $(DEPS_FIRST)
$(BENCH_TOOLS) $(BENCH_PEERS): build/release/%: %.cc
	@mkdir -p $(@D)
	$(Q)if $(CXX) $(STD) -Ibench -E $< -o /dev/null 2>/dev/null; then \
	  $(if $(V),,printf '  %-5s %s\n' CXX '$@';) \
	  $(CXX) $(BENCH_FLAGS) $(USER_CXXFLAGS) $(filter %.cc,$^) \
	    $(LINK) $(LDFLAGS) $(PEER_LIBS_$(basename $(<F))) $(LDLIBS) -o $@; \
	fi

# --- Tests ---------------------------------------------------------------------------------------

# $1 variant. The precompiled header is made from a file of its own that includes support/pch.h,
# which a compiler that rejects the precompiled form can read instead.
define variant_rules
SUPPORT_$1 := $(SUPPORT_SRCS:%.cc=build/$1/obj/%.o)

build/$1/obj/pch.h.gch: test/support/pch.h | $$(DEPS_FIRST)
	@mkdir -p $$(@D)
	$$(call say,PCH,$$@)
	@echo '#include "support/pch.h"' >build/$1/obj/pch.h
	$$(Q)$$(CXX) $$(TEST_FLAGS) $$(TEST_CODE_$1) $$(DEPEND) $$(SPDLOG_CFLAGS) $$(USER_CXXFLAGS) \
	  -x c++-header build/$1/obj/pch.h -o $$@

build/$1/obj/test/%.o: test/%.cc build/$1/obj/pch.h.gch | $$(DEPS_FIRST)
	@mkdir -p $$(@D)
	$$(call say,CXX,$$@)
	$$(Q)$$(CXX) -include build/$1/obj/pch.h $$(TEST_FLAGS) -isystem $$(GEN) $$(TEST_CODE_$1) \
	  $$(DEPEND) $$(SPDLOG_CFLAGS) $$(USER_CXXFLAGS) -c $$< -o $$@

.PHONY: programs-$1
programs-$1: $(TEST_PROGRAMS:%=build/$1/test/%)
endef
$(foreach v,$(VARIANTS),$(eval $(call variant_rules,$v)))

# $1 variant, $2 program, $3 its sources, $4 objects beside those and the support code.
define program_rules
OBJS_$1_$2 := $(patsubst %.cc,build/$1/obj/%.o,$3) $4 $$(SUPPORT_$1)

build/$1/test/$2: $$(OBJS_$1_$2) build/$(CONFIG_$1)/libxtcp.a \
    $$(call changed,build/$1/test/$2.list,$$(OBJS_$1_$2))
	@mkdir -p $$(@D)
	$$(call say,LINK,$$@)
	$$(Q)$$(CXX) $$(LINK) $$(LINK_$1) $$(LDFLAGS) $$(OBJS_$1_$2) build/$(CONFIG_$1)/libxtcp.a \
	  -lCatch2WithMain $$(SPDLOG_LIBS) $(if $(filter demo,$2),$$(PROTOBUF_LIBS)) $$(LDLIBS) -o $$@
	@echo '$$(OBJS_$1_$2)' >$$@.list
endef

program_sources = $(filter test/$1/%,$(TEST_SRCS))
fault_object = $(FAULT_SRC:%.cc=build/$1/obj/%.o)
extra_objects = $(if $(filter fault limits options,$2),$(call fault_object,$1))$(if $(filter demo,$2),$(PROTOBUF_OBJS_$(CONFIG_$1)))

$(foreach v,$(VARIANTS),\
  $(foreach p,$(filter-out %-fault,$(TEST_PROGRAMS)),\
    $(eval $(call program_rules,$v,$p,$(call program_sources,$p),$(call extra_objects,$v,$p))))\
  $(foreach p,$(filter %-fault,$(TEST_PROGRAMS)),\
    $(eval $(call program_rules,$v,$p,$(call program_sources,$(p:-fault=)),$(call fault_object,$v)))))

# The demo's tests include what protoc makes.
$(foreach v,$(VARIANTS),$(patsubst %.cc,build/$v/obj/%.o,$(call program_sources,demo))): $(GEN)/chat.pb.h

# --- Generated dependencies ----------------------------------------------------------------------

-include $(foreach c,$(CONFIGS),$(OBJS_$c:=.d) $(PROTOBUF_OBJS_$c:=.d))
-include $(foreach v,$(VARIANTS),build/$v/obj/pch.h.gch.d \
  $(patsubst %.cc,build/$v/obj/%.o.d,$(TEST_SRCS) $(SUPPORT_SRCS) $(FAULT_SRC)))
-include $(patsubst build/release/%,build/release/obj/%.o.d,$(DEMO_PROGRAMS) $(BENCH_PROGRAMS)) $(BENCH_SUPPORT:=.d) \
  build/release/obj/bench/micro/no_kernel.o.d
