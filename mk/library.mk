# The library, in each of its configurations.

find_sources = $(sort $(shell find $1 -name '$2' 2>/dev/null))
# $(call changed,file,list): FORCE unless the file holds this list. A source that was removed or
# renamed must leave the archive and the programs too.
differ = $(subst x$(strip $1),,x$(strip $2))$(subst x$(strip $2),,x$(strip $1))
changed = $(if $(call differ,$(file <$1),$2),FORCE)

LIB_SRCS := $(call find_sources,lib,*.cc)

CONFIGS := release asan tsan

# $1 config
define library_rules
OBJS_$1 := $(LIB_SRCS:%.cc=$(BUILD)/$1/obj/%.o)

# q, not r: two layers may have a source of the same name, and r would keep one of them. D: no dates
# and owners.
$(BUILD)/$1/libxtcp.a: $$(OBJS_$1) $$(call changed,$(BUILD)/$1/libxtcp.a.list,$(LIB_SRCS))
	$$(call say,AR,$$@)
	$$(Q)rm -f $$@
	$$(Q)$$(AR) qcsD $$@ $$(OBJS_$1)
	@echo '$(LIB_SRCS)' >$$@.list

$(BUILD)/$1/obj/lib/%.o: lib/%.cc | $$(DEPS_FIRST)
	@mkdir -p $$(@D)
	$$(call say,CXX,$$@)
	$$(Q)$$(CXX) $$(LIB_FLAGS) -fPIE $$(CODE_$1) $$(DEPEND) $$(USER_CXXFLAGS) -c $$< -o $$@

-include $$(OBJS_$1:=.d)
endef
$(foreach c,$(CONFIGS),$(eval $(call library_rules,$c)))
