# The demo programs. Protocols with files of their own are no programs: a program and the test
# program link them.

DEMO_PARTS := demo/http_decoder.cc demo/protobuf_protocol.cc demo/redis_protocol.cc
DEMO_PROGRAMS := $(patsubst %.cc,$(BUILD)/release/%,$(filter-out $(DEMO_PARTS),$(wildcard demo/*.cc)))
GEN := $(BUILD)/release/demo/gen

.PHONY: programs-demo
programs-demo: $(DEMO_PROGRAMS)

# $1 config
define demo_rules
$(BUILD)/$1/obj/demo/%.o: demo/%.cc | $$(DEPS_FIRST)
	@mkdir -p $$(@D)
	$$(call say,CXX,$$@)
	$$(Q)$$(CXX) $$(APP_FLAGS) $$(CODE_$1) $$(DEPEND) $$(DEMO_CFLAGS) $$(USER_CXXFLAGS) -c $$< -o $$@

# Generated: its warnings and its arithmetic are not ours.
$(BUILD)/$1/obj/gen/chat.o: $$(GEN)/chat.pb.cc | $$(DEPS_FIRST)
	@mkdir -p $$(@D)
	$$(call say,CXX,$$@)
	$$(Q)$$(CXX) $$(STD) $$(PROTECTION) -fPIE $$(CODE_$1) -fno-sanitize=undefined -w \
	  $$(PROTOBUF_CFLAGS) $$(USER_CXXFLAGS) -c $$< -o $$@

$(BUILD)/$1/obj/demo/protobuf_%.o: DEMO_CFLAGS = -Idemo -isystem $$(GEN) $$(SPDLOG_CFLAGS) $$(PROTOBUF_CFLAGS)
$(BUILD)/$1/obj/demo/protobuf_protocol.o $(BUILD)/$1/obj/demo/protobuf_chat.o: $$(GEN)/chat.pb.h
DEMO_OBJS_$1 := $(DEMO_PARTS:%.cc=$(BUILD)/$1/obj/%.o) $(BUILD)/$1/obj/gen/chat.o

-include $$(DEMO_OBJS_$1:=.d)
endef
$(foreach c,$(CONFIGS),$(eval $(call demo_rules,$c)))

$(GEN)/chat.pb.cc $(GEN)/chat.pb.h &: demo/chat.proto | $(DEPS_FIRST)
	@mkdir -p $(GEN)
	$(call say,PROTO,$<)
	$(Q)protoc --proto_path=demo --cpp_out=$(GEN) $<

$(DEMO_PROGRAMS): $(BUILD)/release/%: $(BUILD)/release/obj/%.o $(BUILD)/release/libxtcp.a
	@mkdir -p $(@D)
	$(call say,LINK,$@)
	$(Q)$(CXX) $(LINK) $(USER_LDFLAGS) $(filter %.o,$^) $(BUILD)/release/libxtcp.a $(DEMO_LIBS) $(LDLIBS) -o $@

$(BUILD)/release/demo/protobuf_chat: DEMO_LIBS = $(SPDLOG_LIBS) $(PROTOBUF_LIBS)
$(BUILD)/release/demo/protobuf_chat: $(addprefix $(BUILD)/release/obj/,demo/protobuf_protocol.o gen/chat.o)
$(BUILD)/release/demo/http_server: $(BUILD)/release/obj/demo/http_decoder.o
$(BUILD)/release/demo/redis_server: $(BUILD)/release/obj/demo/redis_protocol.o

-include $(patsubst $(BUILD)/release/%,$(BUILD)/release/obj/%.o.d,$(DEMO_PROGRAMS))
