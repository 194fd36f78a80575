# shellcheck shell=bash
# make_by COMPILER GOAL: makes what a check compiles (mk/lint.mk), each warning being an error. The flags
# of the user are for another compiler, and those of the make that started the check are not handed on.
make_by() {
  MAKEFLAGS= MAKELEVEL= make -s -k -j2 BUILD="${BUILD:-build}" CXX="$1" STRICT=1 \
    CPPFLAGS= CXXFLAGS= LDFLAGS= LDLIBS= "$2" 2>&1
}
