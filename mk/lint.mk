# What lint checks compile, so that they do not compile again what has not changed. They make it
# themselves, by test/lint/make_by.sh, and not with the flags of the user.

# The library, and a program that uses it, for check_clang.sh: the analysis of the annotations in
# lib/base/thread_annotations.h, and a sanitizer that knows of more than g++'s.
CODE_clang = -O0 -Werror=cpp -Wthread-safety -DXTCP_DEBUG_CHECKS -fsanitize=undefined -fno-sanitize-recover=all
$(eval $(call archive_rules,clang/libxtcp.a,clang/obj,clang))

$(BUILD)/clang/little_of_everything: test/lint/little_of_everything.cc $(BUILD)/clang/libxtcp.a
	$(call say,LINK,$@)
	$(Q)$(CXX) $(LIB_FLAGS) -fPIE $(CODE_clang) $(DEPEND) $(LINK) $< $(BUILD)/clang/libxtcp.a -o $@

# A file for each public header that compiles alone, for check_headers.sh. The empty source keeps
# "#pragma once in main file" away.
HEADERS_IN := $(BUILD)/headers/$(notdir $(lastword $(CXX)))
HEADERS := $(patsubst include/%,$(HEADERS_IN)/%.alone,$(call find_sources,include,*.h))
.PHONY: headers-alone
headers-alone: $(HEADERS)
$(HEADERS): $(HEADERS_IN)/%.alone: include/%
	@mkdir -p $(@D)
	$(Q)$(CXX) $(STD) $(WARNINGS) -Werror=cpp -fsyntax-only -Iinclude $(HEADER_CFLAGS) $(DEPEND) -MT $@ \
	  -include $< -x c++ /dev/null
	@touch $@
%/xtcp/spdlog_logger.h.alone: HEADER_CFLAGS = $(SPDLOG_CFLAGS)

-include $(BUILD)/clang/little_of_everything.d $(HEADERS:=.d)
