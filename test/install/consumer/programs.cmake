# The same programs, wherever the targets come from.
set(sources ${CMAKE_CURRENT_LIST_DIR}/main.cc ${CMAKE_CURRENT_LIST_DIR}/echo_itself.cc)
add_executable(shared ${sources})
target_link_libraries(shared PRIVATE xtcp::xtcp)
add_executable(static ${sources})
target_link_libraries(static PRIVATE xtcp::static)
add_executable(spdlog ${sources})
target_compile_definitions(spdlog PRIVATE WITH_SPDLOG)
target_link_libraries(spdlog PRIVATE xtcp::static xtcp::spdlog)
