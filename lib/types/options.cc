#include <xtcp/options.h>

namespace xtcp {

Options Options::Hardened() const {
  Options hardened = *this;
  hardened.max_packet_size = std::size_t{1} << 20;
  hardened.first_packet_size = std::size_t{16} << 10;
  hardened.send_buffer_limit = std::size_t{1} << 20;
  hardened.pause_recv_above = std::size_t{256} << 10;
  hardened.read_deadline = std::chrono::minutes(5);
  hardened.packet_deadline = std::chrono::seconds(30);
  hardened.write_deadline = std::chrono::seconds(60);
  return hardened;
}

}  // namespace xtcp
