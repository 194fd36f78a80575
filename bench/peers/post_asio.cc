// Tasks on standalone asio: post_asio rate THREADS, or post_asio delay. See support/posts.h.

#include <asio.hpp>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "support/posts.h"

int main(int argc, char** argv) {
  asio::io_context context;
  auto work = asio::make_work_guard(context);
  std::jthread loop([&] { context.run(); });
  const auto post = [&](auto task) { asio::post(context, std::move(task)); };
  bench::MeasureAsTold(std::vector<std::string>(argv + 1, argv + argc), post);
  work.reset();
}
