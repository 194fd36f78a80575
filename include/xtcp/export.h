#pragma once

#if __cplusplus < 202002L
#error "xtcp needs C++20: compile with -std=c++20 or later"
#endif

// The library is built with hidden visibility; what carries this mark is its public surface.
#define XTCP_API __attribute__((visibility("default")))

// What is private in a class that carries it.
#define XTCP_PRIVATE __attribute__((visibility("hidden")))

// For what passes a container of the standard library. With -D_GLIBCXX_DEBUG containers have
// another layout, and then this has another name, so that a program and a library of which only one
// was compiled so do not link.
#ifdef _GLIBCXX_DEBUG
#define XTCP_CONTAINERS __attribute__((abi_tag("glibcxx_debug")))
#else
#define XTCP_CONTAINERS
#endif
