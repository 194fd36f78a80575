#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "support/process.h"
#include "support/report.h"

// Servers and libraries beside each other: all are measured in each round, and what is printed of
// the others is their ratio to the first of the same round.
namespace bench {

// What each of them has measured, by its name: one of Figures a round.
using Rounds = std::map<std::string, std::vector<Figures>>;

// Those of `names` whose program peers/`kind`_NAME is built, since its library is installed. Says
// so if there is none.
std::vector<std::string> Peers(const std::string& kind, const std::vector<std::string>& names);

// Measures all of `names` in each round, and another first in each.
Rounds MeasureInRounds(int rounds, const std::vector<std::string>& names,
                       const std::function<Figures(const std::string&)>& measure);

Samples Values(const std::vector<Figures>& rounds, const std::string& figure);
Samples Ratios(const std::vector<Figures>& rounds, const std::vector<Figures>& base,
               const std::string& figure);

// A table has a column for each of `names` after its `first`, which names the rows.
std::vector<std::string> Columns(const std::string& first, const std::vector<std::string>& names);

// Adds a row of `figure`: the first of `names` in itself, the others as ratios to it.
void AddRow(const std::string& row, const std::vector<std::string>& names, const Rounds& all,
            const std::string& figure, Table* table);

}  // namespace bench
