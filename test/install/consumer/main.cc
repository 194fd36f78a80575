// A program that uses an installed xtcp. 0 if it works, with the version that its headers are of.

#include <xtcp/xtcp.h>

#include <iostream>
#include <string>

#ifdef WITH_SPDLOG
#include <xtcp/spdlog_logger.h>
#endif

extern "C" int EchoItself();

int main() {
  const std::string version = std::to_string(XTCP_VERSION_MAJOR) + "." +
                              std::to_string(XTCP_VERSION_MINOR) + "." +
                              std::to_string(XTCP_VERSION_PATCH);
  if (xtcp::Version() != version || XTCP_VERSION < 100) {
    std::cout << "headers " << version << ", library " << xtcp::Version() << '\n';
    return 1;
  }
#ifdef WITH_SPDLOG
  xtcp::SetLogger(std::make_shared<xtcp::SpdlogLogger>(spdlog::default_logger()));
#endif
  return EchoItself();
}
