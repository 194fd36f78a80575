#include <arpa/inet.h>
#include <xtcp/address.h>

namespace xtcp {

std::string Address::Host() const {
  if (kind_ != Kind::kIpv4 && kind_ != Kind::kIpv6) return {};
  char text[INET6_ADDRSTRLEN] = "";
  // inet_ntop(3) fails only for an unknown family or too small a buffer.
  ::inet_ntop(kind_ == Kind::kIpv4 ? AF_INET : AF_INET6, ip_.data(), text, sizeof(text));
  std::string host = text;
  if (zone_ != 0) host += '%' + std::to_string(zone_);
  return host;
}

std::string Address::ToString() const {
  switch (kind_) {
    case Kind::kNone:
      return {};
    case Kind::kIpv4:
      return Host() + ':' + std::to_string(port_);
    case Kind::kIpv6:
      return '[' + Host() + "]:" + std::to_string(port_);
    case Kind::kUnix:
      break;
  }
  std::string text = "unix:" + path_;
  if (!path_.empty() && path_.front() == '\0') text[5] = '@';
  return text;
}

}  // namespace xtcp
