# The reference: an HTML page for each class and each page of docs/, from the headers' own comments.

DOCS := $(BUILD)/docs

# The examples as pages, each with the first paragraph of its source.
.PHONY: docs
docs: $(DOCS)/examples.dox | $(DEPS_FIRST) ## the API reference and the pages as HTML: build/docs/html/index.html
	@XTCP_VERSION=$(VERSION) XTCP_DOCS=$(DOCS) doxygen docs/Doxyfile
	@echo "  DOCS  $(DOCS)/html/index.html"

$(DOCS)/examples.dox: $(wildcard demo/*.cc) tools/examples_dox.awk
	@mkdir -p $(@D)
	@awk -f tools/examples_dox.awk $(wildcard demo/*.cc) >$@
