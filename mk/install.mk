# Installing. The folders may all be set; DESTDIR is put in front of each.

PREFIX ?= /usr/local

.PHONY: install
install: $(BUILD)/release/libxtcp.a ## headers, archive and xtcp.pc, to PREFIX (/usr/local) below DESTDIR
	install -d '$(DESTDIR)$(PREFIX)/include/xtcp' '$(DESTDIR)$(PREFIX)/lib/pkgconfig'
	install -m 644 include/xtcp/*.h '$(DESTDIR)$(PREFIX)/include/xtcp'
	install -m 644 $(BUILD)/release/libxtcp.a '$(DESTDIR)$(PREFIX)/lib'
	@version=$$(sed -n 's/^#define XTCP_VERSION_[A-Z]* //p' include/xtcp/version.h | paste -sd.); \
	printf '%s\n' 'prefix=$(PREFIX)' 'includedir=$${prefix}/include' 'libdir=$${prefix}/lib' '' \
	  'Name: xtcp' 'Description: TCP server framework for Linux' "Version: $$version" \
	  'Cflags: -I$${includedir} -pthread' 'Libs: -L$${libdir} -lxtcp -pthread' \
	  >'$(DESTDIR)$(PREFIX)/lib/pkgconfig/xtcp.pc'
