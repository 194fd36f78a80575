#include "server/redial_waits.h"

namespace xtcp::internal {

RedialWaits::Time RedialWaits::Next() {
  const Time whole = wait_;
  const double grown = static_cast<double>(wait_.count()) * backoff_.factor;
  const Time most = backoff_.most;
  wait_ = grown < static_cast<double>(most.count()) ? Time(static_cast<Time::rep>(grown)) : most;
  // xorshift64 (G. Marsaglia, Xorshift RNGs, 2003): it only has to differ between clients.
  random_ ^= random_ << 13;
  random_ ^= random_ >> 7;
  random_ ^= random_ << 17;
  const double part = static_cast<double>(random_ >> 11) * 0x1p-53;  // from 0 to 1
  return whole -
         Time(static_cast<Time::rep>(static_cast<double>(whole.count()) * backoff_.jitter * part));
}

}  // namespace xtcp::internal
