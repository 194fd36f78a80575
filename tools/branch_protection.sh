#!/bin/sh
# Prints the flags with which the compiler "$@" protects returns and indirect branches, for the
# processor that it compiles for. Where there is no such protection it prints nothing.
case $("$@" -dumpmachine) in
  x86_64-* | i?86-*) echo -fcf-protection ;;
  aarch64-*) echo -mbranch-protection=standard ;;
esac
