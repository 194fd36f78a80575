#pragma once

#include <cstddef>
#include <string>

namespace bench {

// Connects to a port of this machine, and returns the socket, which blocks and waits for nothing
// before it sends. `receive_buffer` is SO_RCVBUF (socket(7)); 0: the system's. Throws
// std::system_error.
int ConnectTo(int port, int receive_buffer = 0);

// Returns a frame of so many bytes, with its header.
std::string FrameOf(std::size_t size);

}  // namespace bench
