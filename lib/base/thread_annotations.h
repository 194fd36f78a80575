#pragma once

// Names for clang's thread safety analysis (https://clang.llvm.org/docs/ThreadSafetyAnalysis.html);
// empty for every other compiler.

#ifdef __clang__
#define XTCP_THREAD_ANNOTATION(x) __attribute__((x))
#else
#define XTCP_THREAD_ANNOTATION(x)
#endif

// For classes: something that can be held, and an object that holds it for as long as it lives.
#define XTCP_CAPABILITY(name) XTCP_THREAD_ANNOTATION(capability(name))
#define XTCP_SCOPED_CAPABILITY XTCP_THREAD_ANNOTATION(scoped_lockable)

// For data members: they are touched only while the capability is held.
#define XTCP_GUARDED_BY(x) XTCP_THREAD_ANNOTATION(guarded_by(x))

// For functions: the caller must hold it, must not hold it, has it afterwards, has it no longer
// afterwards; or the function checks at run time that it is held.
#define XTCP_REQUIRES(...) XTCP_THREAD_ANNOTATION(requires_capability(__VA_ARGS__))
#define XTCP_EXCLUDES(...) XTCP_THREAD_ANNOTATION(locks_excluded(__VA_ARGS__))
#define XTCP_ACQUIRE(...) XTCP_THREAD_ANNOTATION(acquire_capability(__VA_ARGS__))
#define XTCP_RELEASE(...) XTCP_THREAD_ANNOTATION(release_capability(__VA_ARGS__))
#define XTCP_ASSERT_CAPABILITY(x) XTCP_THREAD_ANNOTATION(assert_capability(x))

// For functions that the analysis cannot follow. Say why beside it.
#define XTCP_NO_THREAD_SAFETY_ANALYSIS XTCP_THREAD_ANNOTATION(no_thread_safety_analysis)
