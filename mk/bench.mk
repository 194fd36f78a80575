# The benchmarks. Each source in bench/ is a program, linked with what is in bench/support. The load
# and the servers to compare with are programs of one source that use nothing of the library.

BENCH_PROGRAMS := $(patsubst %.cc,$(BUILD)/release/%,$(wildcard bench/*.cc))
BENCH_SUPPORT := $(patsubst %.cc,$(BUILD)/release/obj/%.o,$(wildcard bench/support/*.cc))
BENCH_TOOLS := $(addprefix $(BUILD)/release/bench/,load/load peers/floor peers/send_floor peers/shared_floor)
BENCH_PEERS := $(filter-out %floor,$(patsubst %.cc,$(BUILD)/release/%,$(wildcard bench/peers/*.cc)))

.PHONY: programs-bench programs-peers
programs-bench: $(BENCH_PROGRAMS) $(BENCH_TOOLS)
programs-peers: $(BENCH_PEERS)

$(BUILD)/release/obj/bench/%.o: bench/%.cc | $(DEPS_FIRST)
	@mkdir -p $(@D)
	$(call say,CXX,$@)
	$(Q)$(CXX) $(BENCH_FLAGS) -Iinclude $(DEPEND) $(USER_CXXFLAGS) -c $< -o $@

$(BENCH_PROGRAMS): $(BUILD)/release/%: $(BUILD)/release/obj/%.o $(BENCH_SUPPORT) $(BUILD)/release/libxtcp.a
	@mkdir -p $(@D)
	$(call say,LINK,$@)
	$(Q)$(CXX) $(LINK) $(USER_LDFLAGS) $(filter %.o,$^) $(BUILD)/release/libxtcp.a $(LDLIBS) -o $@

# It looks inside the library, and replaces its seam.
NO_KERNEL := $(BUILD)/release/obj/bench/micro/no_kernel.o
$(BUILD)/release/bench/micro: $(NO_KERNEL)
$(BUILD)/release/obj/bench/micro.o $(NO_KERNEL): BENCH_FLAGS += -Ilib

# Where the library that a peer is about is not installed, nothing is built, and that is no error.
# The last word of its name says which one.
PEER_LIBS_libuv = -luv
PEER_LIBS_libevent = -levent_core
$(BUILD)/release/bench/load/load: $(wildcard bench/load/*)
$(BENCH_TOOLS) $(BENCH_PEERS): $(wildcard bench/support/*.h)
$(BENCH_TOOLS) $(BENCH_PEERS): | $(DEPS_FIRST)
$(BENCH_TOOLS) $(BENCH_PEERS): $(BUILD)/release/%: %.cc
	@mkdir -p $(@D)
	$(Q)if $(CXX) $(STD) -Ibench -E $< -o /dev/null 2>/dev/null; then \
	  $(if $(V),,printf '  %-5s %s\n' CXX '$@';) \
	  $(CXX) $(BENCH_FLAGS) $(USER_CXXFLAGS) $(filter %.cc,$^) \
	    $(LINK) $(USER_LDFLAGS) $(PEER_LIBS_$(lastword $(subst _, ,$(basename $(<F))))) $(LDLIBS) -o $@; \
	fi

-include $(patsubst $(BUILD)/release/%,$(BUILD)/release/obj/%.o.d,$(BENCH_PROGRAMS)) \
  $(BENCH_SUPPORT:=.d) $(NO_KERNEL:=.d)
