#pragma once

// All of xtcp, except what only some programs want: the adapter in spdlog_logger.h, what daemons do
// with signals in daemon.h, and testing/check_protocol.h for the tests of a protocol.

#include <xtcp/address.h>
#include <xtcp/bytes.h>
#include <xtcp/conn.h>
#include <xtcp/error.h>
#include <xtcp/handler.h>
#include <xtcp/logger.h>
#include <xtcp/loop.h>
#include <xtcp/options.h>
#include <xtcp/part.h>
#include <xtcp/protocol.h>
#include <xtcp/protocols.h>
#include <xtcp/redialer.h>
#include <xtcp/server.h>
#include <xtcp/stop_mode.h>
#include <xtcp/task.h>
#include <xtcp/version.h>
