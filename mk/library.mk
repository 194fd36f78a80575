# The library, in each of its configurations:
#
#   release/libxtcp.a       for executables; the archive that is tested
#   release/libxtcp_pic.a   for shared objects and plug-ins; slower by a few instructions a packet
#                           (docs/decisions/0012-two-archives.md)
#   release/libxtcp.so      the same objects as a shared library
#   asan, tsan              libxtcp.a under sanitizers, for tests
#   clang/libxtcp.a         for a lint check: mk/lint.mk

find_sources = $(sort $(shell find $1 -name '$2' 2>/dev/null))
# $(call changed,file,list): FORCE unless the file holds this list. A source that was removed or
# renamed must leave the archive and the programs too.
differ = $(subst x$(strip $1),,x$(strip $2))$(subst x$(strip $2),,x$(strip $1))
changed = $(if $(call differ,$(file <$1),$2),FORCE)

LIB_SRCS := $(call find_sources,lib,*.cc)

CONFIGS := release asan tsan

# $1 archive, $2 folder of its objects, $3 CODE_ of which configuration, $4 flags to stand last
define archive_rules
OBJS_$2 := $(LIB_SRCS:%.cc=$(BUILD)/$2/%.o)

# q, not r: two layers may have a source of the same name, and r would keep one of them. D: no dates
# and owners.
$(BUILD)/$1: $$(OBJS_$2) $$(call changed,$(BUILD)/$1.list,$(LIB_SRCS))
	$$(call say,AR,$$@)
	$$(Q)rm -f $$@
	$$(Q)$$(AR) qcsD $$@ $$(OBJS_$2)
	@echo '$(LIB_SRCS)' >$$@.list

$(BUILD)/$2/lib/%.o: lib/%.cc | $$(DEPS_FIRST)
	@mkdir -p $$(@D)
	$$(call say,CXX,$$@)
	$$(Q)$$(CXX) $$(LIB_FLAGS) -fPIE $$(CODE_$3) $$(DEPEND) $$(USER_CXXFLAGS) $4 -c $$< -o $$@

-include $$(OBJS_$2:=.d)
endef
$(foreach c,$(CONFIGS),$(eval $(call archive_rules,$c/libxtcp.a,$c/obj,$c)))
# Nobody is to put another function in front of ours, so those that are public may be inlined too.
$(eval $(call archive_rules,release/libxtcp_pic.a,release/pic,release,-fPIC -fno-semantic-interposition))

# --- The shared library --------------------------------------------------------------------------

version_part = $(shell sed -n 's/^.define XTCP_VERSION_$1 //p' include/xtcp/version.h)
VERSION := $(call version_part,MAJOR).$(call version_part,MINOR).$(call version_part,PATCH)
SONAME := libxtcp.so.$(call version_part,MAJOR)
SHARED := $(BUILD)/release/libxtcp.so.$(VERSION)

# lib/exports.map leaves out what is visible but not ours: templates of the standard library.
$(SHARED): $(OBJS_release/pic) lib/exports.map $(BUILD)/release/libxtcp_pic.a
	$(call say,LINK,$@)
	$(Q)$(CXX) -shared -pthread -Wl,-soname,$(SONAME) -Wl,--version-script=lib/exports.map \
	  -Wl,-z,relro,-z,now,-z,noexecstack -Wl,--as-needed $(USER_LDFLAGS) \
	  $(OBJS_release/pic) $(LDLIBS) -o $@

# The names by which programs find it: at run time, and when they are linked.
$(BUILD)/release/$(SONAME): $(SHARED)
	$(Q)ln -sf $(<F) $@
$(BUILD)/release/libxtcp.so: $(BUILD)/release/$(SONAME)
	$(Q)ln -sf $(<F) $@
