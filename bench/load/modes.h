#pragma once

#include <sys/types.h>

#include <cstddef>

// The modes of the load, as load.cc describes them. Each prints its figures.
namespace load {

void RunEcho(int port, std::size_t connections, std::size_t payload, std::size_t depth,
             double seconds, std::size_t threads, pid_t server);
void RunChurn(int port, double seconds, pid_t server);
void RunHold(int port, std::size_t connections, std::size_t payload, bool half);
void RunDrain(int port, std::size_t connections, bool wait);

}  // namespace load
