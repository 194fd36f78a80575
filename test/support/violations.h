#pragma once

#include <string>
#include <vector>

namespace xtcp::test {

// What went wrong on a thread that may not assert, or where no test looks: the leak guard fails the
// test case during which it was added.
//
// Thread safety: any thread.
void AddViolation(std::string text);
std::vector<std::string> TakeViolations();

// Ends the program: a thread hangs, and nothing can clean up behind it.
[[noreturn]] void Die(const std::string& text);

}  // namespace xtcp::test
