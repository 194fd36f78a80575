# What is tried on other systems and processors, and as a package; each takes minutes, so none is a
# part of `test`.

.PHONY: cross-deps test-cross
cross-deps: ## install compilers for other processors, qemu, and libc++
	@tools/deps.sh test-cross
test-cross: | $(DEPS_FIRST) ## build for aarch64, armhf and s390x, and run `unit` and an echo there, under qemu: minutes
	@JOBS=$(JOBS) test/install/cross.sh

# Debian 12 and 13 are what the README promises; test/install/fresh.sh takes other suites too.
.PHONY: debcheck fresh
debcheck: dist ## build Debian packages in two folders, and ask lintian: minutes
	@test/install/debian.sh $(DIST)
fresh: ## `make deps demo` and `make deps test` on fresh Debian 12 and 13: half an hour, as root
	@test/install/fresh.sh bookworm
	@test/install/fresh.sh trixie
