#include "support/rounds.h"

#include <unistd.h>

#include <cstddef>
#include <iostream>

namespace bench {

std::vector<std::string> Peers(const std::string& kind, const std::vector<std::string>& names) {
  std::vector<std::string> built;
  for (const std::string& name : names) {
    if (access(Sibling("peers/" + kind + '_' + name).c_str(), X_OK) == 0) built.push_back(name);
  }
  if (built.empty())
    std::cout << "left out: no library to compare " << kind << " with" << std::endl;
  return built;
}

Rounds MeasureInRounds(int rounds, const std::vector<std::string>& names,
                       const std::function<Figures(const std::string&)>& measure) {
  Rounds all;
  for (int round = 0; round < rounds; ++round) {
    for (std::size_t i = 0; i < names.size(); ++i) {
      const std::string& name = names[(i + static_cast<std::size_t>(round)) % names.size()];
      all[name].push_back(measure(name));
    }
  }
  return all;
}

Samples Values(const std::vector<Figures>& rounds, const std::string& figure) {
  Samples samples;
  for (const Figures& round : rounds) samples.push_back(round.at(figure));
  return samples;
}

Samples Ratios(const std::vector<Figures>& rounds, const std::vector<Figures>& base,
               const std::string& figure) {
  Samples samples;
  for (std::size_t i = 0; i < rounds.size(); ++i) {
    samples.push_back(rounds[i].at(figure) / base[i].at(figure));
  }
  return samples;
}

std::vector<std::string> Columns(const std::string& first, const std::vector<std::string>& names) {
  std::vector<std::string> columns{first};
  columns.insert(columns.end(), names.begin(), names.end());
  return columns;
}

void AddRow(const std::string& row, const std::vector<std::string>& names, const Rounds& all,
            const std::string& figure, Table* table) {
  const std::vector<Figures>& base = all.at(names.front());
  std::vector<Samples> cells{Values(base, figure)};
  for (std::size_t i = 1; i < names.size(); ++i) {
    cells.push_back(Ratios(all.at(names[i]), base, figure));
  }
  table->AddRow(row, cells);
}

}  // namespace bench
