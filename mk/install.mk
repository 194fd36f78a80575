# Installing, and what goes with it. Each folder may be set; DESTDIR is put in front of all of them.

PREFIX ?= /usr/local
LIBDIR ?= $(PREFIX)/lib
INCLUDEDIR ?= $(PREFIX)/include
DOCDIR ?= $(PREFIX)/share/doc/xtcp
PKGCONFIGDIR ?= $(LIBDIR)/pkgconfig
CMAKEDIR ?= $(LIBDIR)/cmake/xtcp
INSTALL ?= install

# In the templates of mk/install, what is below PREFIX is said to be, and what CMake looks for is said
# from where it looks: so the tree can be moved.
below_prefix = $(patsubst $(PREFIX)/%,$${prefix}/%,$1)
from_cmake = $$(realpath -ms --relative-to='$(CMAKEDIR)' '$1')
fill = sed -e 's|@PREFIX@|$(PREFIX)|' -e 's|@INCLUDEDIR@|$(call below_prefix,$(INCLUDEDIR))|' \
  -e 's|@LIBDIR@|$(call below_prefix,$(LIBDIR))|' -e 's|@VERSION@|$(VERSION)|' -e 's|@SONAME@|$(SONAME)|' \
  -e "s|@INCLUDE_FROM_CMAKE@|$(call from_cmake,$(INCLUDEDIR))|" -e "s|@LIB_FROM_CMAKE@|$(call from_cmake,$(LIBDIR))|"

# $(call put,mode,files,folder); $(call put_filled,name,folder)
put = $(INSTALL) -m $1 $2 '$(DESTDIR)$3/'
put_filled = $(fill) mk/install/$1.in >'$(DESTDIR)$2/$1' && chmod 644 '$(DESTDIR)$2/$1'

.PHONY: install uninstall
install: all ## to PREFIX (/usr/local), LIBDIR, INCLUDEDIR, DOCDIR, below DESTDIR
	@umask 022 && for folder in '$(INCLUDEDIR)/xtcp/testing' '$(LIBDIR)' '$(PKGCONFIGDIR)' '$(CMAKEDIR)' \
	  '$(DOCDIR)/decisions' '$(DOCDIR)/examples'; do install -d "$(DESTDIR)$$folder" || exit 1; done
	$(call put,644,include/xtcp/*.h,$(INCLUDEDIR)/xtcp)
	$(call put,644,include/xtcp/testing/*.h,$(INCLUDEDIR)/xtcp/testing)
	$(call put,644,$(BUILD)/release/libxtcp.a $(BUILD)/release/libxtcp_pic.a,$(LIBDIR))
	$(call put,755,$(SHARED),$(LIBDIR))
	ln -sf $(notdir $(SHARED)) '$(DESTDIR)$(LIBDIR)/$(SONAME)'
	ln -sf $(SONAME) '$(DESTDIR)$(LIBDIR)/libxtcp.so'
	@$(call put_filled,xtcp.pc,$(PKGCONFIGDIR))
	@$(call put_filled,xtcp-spdlog.pc,$(PKGCONFIGDIR))
	@$(call put_filled,xtcp-config.cmake,$(CMAKEDIR))
	@$(call put_filled,xtcp-config-version.cmake,$(CMAKEDIR))
	$(call put,644,LICENSE README.md CONTRIBUTING.md SECURITY.md docs/*.md,$(DOCDIR))
	$(call put,644,docs/decisions/*.md,$(DOCDIR)/decisions)
	$(call put,644,demo/*,$(DOCDIR)/examples)
	@# So that programs find the shared library; not in a package, where it is the installer's.
	@test -n '$(DESTDIR)' || test "$$(id -u)" != 0 || ldconfig

uninstall: ## remove what install with the same folders installed
	rm -rf '$(DESTDIR)$(INCLUDEDIR)/xtcp' '$(DESTDIR)$(CMAKEDIR)' '$(DESTDIR)$(DOCDIR)'
	rm -f '$(DESTDIR)$(LIBDIR)/'libxtcp.a '$(DESTDIR)$(LIBDIR)/'libxtcp_pic.a '$(DESTDIR)$(LIBDIR)/'libxtcp.so* \
	  '$(DESTDIR)$(PKGCONFIGDIR)/'xtcp.pc '$(DESTDIR)$(PKGCONFIGDIR)/'xtcp-spdlog.pc

# What git knows of, as it is in the working tree; the same bytes on every machine.
DIST := $(BUILD)/xtcp-$(VERSION).tar.gz
.PHONY: dist
dist: ## a tarball that builds alone: build/xtcp-VERSION.tar.gz
	@mkdir -p $(BUILD)
	@git ls-files -z | LC_ALL=C sort -z | tar -c --null -T - --transform='s,^,xtcp-$(VERSION)/,' --owner=0 --group=0 \
	  --numeric-owner --mode=go=rX,u+rw --mtime="@$$(git log -1 --format=%ct)" | gzip -9n >$(DIST)
	$(call say,TAR,$(DIST))

.PHONY: installcheck
installcheck: all dist ## install to a folder of its own, build and run programs against it in each way: minutes
	@test/install/installcheck.sh $(DIST)
