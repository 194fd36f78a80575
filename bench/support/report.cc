#include "support/report.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <utility>

namespace bench {
namespace {

std::string FormatNumber(double value) {
  const double size = std::fabs(value);
  char text[32];
  if (size >= 1e6) {
    std::snprintf(text, sizeof text, "%.2fM", value / 1e6);
  } else if (size >= 1e4) {
    std::snprintf(text, sizeof text, "%.1fk", value / 1e3);
  } else {
    std::snprintf(text, sizeof text, size >= 100 ? "%.0f" : size >= 10 ? "%.1f" : "%.2f", value);
  }
  return text;
}

// "20,134".
std::string FormatCount(double count) {
  std::string text = std::to_string(static_cast<long long>(count));
  for (std::size_t at = text.size(); at > 3; at -= 3) text.insert(at - 3, ",");
  return text;
}

double Least(const Samples& samples) { return *std::min_element(samples.begin(), samples.end()); }
double Most(const Samples& samples) { return *std::max_element(samples.begin(), samples.end()); }

}  // namespace

double Median(Samples samples) {
  std::sort(samples.begin(), samples.end());
  const std::size_t half = samples.size() / 2;
  return samples.size() % 2 == 1 ? samples[half] : (samples[half - 1] + samples[half]) / 2;
}

std::string Format(const Samples& samples) {
  if (samples.empty()) return "";
  const std::string median = FormatNumber(Median(samples));
  if (samples.size() == 1) return median;
  return median + " (" + FormatNumber(Least(samples)) + ".." + FormatNumber(Most(samples)) + ")";
}

Table::Table(std::string name, std::string title, std::vector<std::string> columns)
    : name_(std::move(name)), title_(std::move(title)), columns_(std::move(columns)) {}

void Table::AddRow(const std::string& row, const std::vector<Samples>& cells) {
  rows_.push_back(row);
  cells_.push_back(cells);
  counted_.push_back(false);
}

void Table::AddCounts(const std::string& row, const std::vector<double>& counts) {
  std::vector<Samples> cells;
  for (const double count : counts) cells.push_back({count});
  AddRow(row, cells);
  counted_.back() = true;
}

void Table::Print() const {
  PrintText();
  if (const char* folder = std::getenv("XTCP_BENCH_CSV")) WriteCsv(folder);
}

void Table::PrintText() const {
  std::vector<std::vector<std::string>> lines{columns_};
  for (std::size_t i = 0; i < rows_.size(); ++i) {
    lines.push_back({rows_[i]});
    for (const Samples& samples : cells_[i]) {
      lines.back().push_back(counted_[i] ? FormatCount(samples.front()) : Format(samples));
    }
  }
  std::vector<std::size_t> widths(columns_.size());
  for (const auto& line : lines) {
    for (std::size_t i = 0; i < line.size(); ++i) widths[i] = std::max(widths[i], line[i].size());
  }

  std::cout << "\n" << title_ << "\n\n";
  for (std::size_t i = 0; i < lines.size(); ++i) {
    for (std::size_t k = 0; k < lines[i].size(); ++k) {
      std::cout << "| " << lines[i][k] << std::string(widths[k] - lines[i][k].size() + 1, ' ');
    }
    std::cout << "|\n";
    if (i == 0) {
      for (const std::size_t width : widths) std::cout << '|' << std::string(width + 2, '-');
      std::cout << "|\n";
    }
  }
  std::cout << std::flush;
}

void Table::WriteCsv(const std::string& folder) const {
  std::ofstream csv(folder + "/" + name_ + ".csv");
  csv << columns_[0];
  for (std::size_t i = 1; i < columns_.size(); ++i) {
    csv << ',' << columns_[i] << ',' << columns_[i] << " min," << columns_[i] << " max";
  }
  csv << '\n';
  for (std::size_t i = 0; i < rows_.size(); ++i) {
    csv << rows_[i];
    for (const Samples& samples : cells_[i]) {
      if (samples.empty()) {
        csv << ",,,";
      } else {
        csv << ',' << Median(samples) << ',' << Least(samples) << ',' << Most(samples);
      }
    }
    csv << '\n';
  }
}

}  // namespace bench
