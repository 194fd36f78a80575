#pragma once

#include <string>
#include <vector>

namespace bench {

// What the rounds of one measurement gave.
using Samples = std::vector<double>;

double Median(Samples samples);

// "1.25 (1.20..1.31)": the median of the rounds, and the least and the greatest.
std::string Format(const Samples& samples);

// A table that is printed as Markdown, and also written as NAME.csv into the folder that the
// environment variable XTCP_BENCH_CSV names, if it is set.
class Table {
 public:
  // The first column holds the names of the rows.
  Table(std::string name, std::string title, std::vector<std::string> columns);

  // No samples: the cell stays empty.
  void AddRow(const std::string& row, const std::vector<Samples>& cells);

  // A row of counts, which are printed to the last digit.
  void AddCounts(const std::string& row, const std::vector<double>& counts);

  void Print() const;

 private:
  void PrintText() const;
  void WriteCsv(const std::string& folder) const;

  const std::string name_;
  const std::string title_;
  const std::vector<std::string> columns_;
  std::vector<std::string> rows_;
  std::vector<std::vector<Samples>> cells_;
  std::vector<bool> counted_;  // by row
};

}  // namespace bench
