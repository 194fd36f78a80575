# The test programs, in each variant. Each folder of test/ that holds *_test.cc is one program.

VARIANTS := plain asan tsan
CONFIG_plain := release
CONFIG_asan := asan
CONFIG_tsan := tsan

TEST_SRCS := $(filter-out test/support/% test/lint/%,$(call find_sources,test,*_test.cc))
# These define the seam themselves, so they go only into `fault`, `flow`, `limits`, `loops`, `options`,
# `schedules` and `integration-fault`, a second program made of the objects of `integration`.
FAULT_SRCS := $(wildcard test/support/fault_*.cc)
# The targets of `fuzz`, and its kernel, which defines the seam, too.
FUZZ_SRCS := $(filter-out %_test.cc,$(wildcard test/fuzz/*.cc))
SUPPORT_SRCS := $(filter-out $(FAULT_SRCS),$(wildcard test/support/*.cc))
# Those that take long come first, so that the lanes of test/run.sh end together.
LONG_PROGRAMS := stop stress integration integration-fault flow schedules
TEST_FOLDERS := $(sort $(foreach s,$(TEST_SRCS),$(word 2,$(subst /, ,$(s)))))
TEST_PROGRAMS := $(LONG_PROGRAMS) $(filter-out $(LONG_PROGRAMS),$(TEST_FOLDERS))
# It needs the atomics and locks of support/sync.h, and threads of which one runs at a time.
ONLY_ASAN := schedules
programs_of = $(filter-out $(if $(filter-out asan,$1),$(ONLY_ASAN)),$(TEST_PROGRAMS))

# The one list of test programs: variant/program.
RUN_TESTS = XTCP_TEST_PROGRAMS='$(foreach v,$(VARIANTS),$(addprefix $v/,$(call programs_of,$v)))' test/run.sh

# $1 variant. The precompiled header is made from a file of its own that includes support/pch.h,
# which a compiler that rejects the precompiled form can read instead.
define variant_rules
SUPPORT_$1 := $(SUPPORT_SRCS:%.cc=$(BUILD)/$1/obj/%.o)

$(BUILD)/$1/obj/pch.h.gch: test/support/pch.h | $$(DEPS_FIRST)
	@mkdir -p $$(@D)
	$$(call say,PCH,$$@)
	@echo '#include "support/pch.h"' >$(BUILD)/$1/obj/pch.h
	$$(Q)$$(CXX) $$(TEST_FLAGS) $$(TEST_CODE_$1) $$(DEPEND) $$(SPDLOG_CFLAGS) $$(USER_CXXFLAGS) \
	  -x c++-header $(BUILD)/$1/obj/pch.h -o $$@

$(BUILD)/$1/obj/test/%.o: test/%.cc $(BUILD)/$1/obj/pch.h.gch | $$(DEPS_FIRST)
	@mkdir -p $$(@D)
	$$(call say,CXX,$$@)
	$$(Q)$$(CXX) -include $(BUILD)/$1/obj/pch.h $$(TEST_FLAGS) -isystem $$(GEN) $$(TEST_CODE_$1) \
	  $$(DEPEND) $$(SPDLOG_CFLAGS) $$(USER_CXXFLAGS) -c $$< -o $$@

.PHONY: programs-$1
programs-$1: $(addprefix $(BUILD)/$1/test/,$(call programs_of,$1))

-include $(BUILD)/$1/obj/pch.h.gch.d $(patsubst %.cc,$(BUILD)/$1/obj/%.o.d,$(TEST_SRCS) $(SUPPORT_SRCS) $(FAULT_SRCS) $(FUZZ_SRCS))
endef
$(foreach v,$(VARIANTS),$(eval $(call variant_rules,$v)))

# $1 variant, $2 program, $3 its sources, $4 objects beside those and the support code.
define program_rules
OBJS_$1_$2 := $(patsubst %.cc,$(BUILD)/$1/obj/%.o,$3) $4 $$(SUPPORT_$1)

$(BUILD)/$1/test/$2: $$(OBJS_$1_$2) $(BUILD)/$(CONFIG_$1)/libxtcp.a \
    $$(call changed,$(BUILD)/$1/test/$2.list,$$(OBJS_$1_$2))
	@mkdir -p $$(@D)
	$$(call say,LINK,$$@)
	$$(Q)$$(CXX) $$(LINK) $$(LINK_$1) $$(USER_LDFLAGS) $$(OBJS_$1_$2) $(BUILD)/$(CONFIG_$1)/libxtcp.a \
	  $$(CATCH_LIBS) $$(SPDLOG_LIBS) $(if $(filter demo,$2),$$(PROTOBUF_LIBS)) $$(LDLIBS) -o $$@
	@echo '$$(OBJS_$1_$2)' >$$@.list
endef

program_sources = $(filter test/$1/%,$(TEST_SRCS))
fault_objects = $(FAULT_SRCS:%.cc=$(BUILD)/$1/obj/%.o)
extra_objects = $(if $(filter fault flow limits loops options schedules,$2),$(call fault_objects,$1))$(if $(filter fuzz,$2),$(FUZZ_SRCS:%.cc=$(BUILD)/$1/obj/%.o))$(if $(filter demo,$2),$(DEMO_OBJS_$(CONFIG_$1)))

$(foreach v,$(VARIANTS),\
  $(foreach p,$(filter-out %-fault,$(call programs_of,$v)),\
    $(eval $(call program_rules,$v,$p,$(call program_sources,$p),$(call extra_objects,$v,$p))))\
  $(foreach p,$(filter %-fault,$(TEST_PROGRAMS)),\
    $(eval $(call program_rules,$v,$p,$(call program_sources,$(p:-fault=)),$(call fault_objects,$v)))))

# The demo's tests run the demo programs, whose release variant is the only one, and include what
# protoc makes.
$(VARIANTS:%=$(BUILD)/%/test/demo): | $(DEMO_PROGRAMS)
$(foreach v,$(VARIANTS),$(patsubst %.cc,$(BUILD)/$v/obj/%.o,$(call program_sources,demo))): $(GEN)/chat.pb.h
