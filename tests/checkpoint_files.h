// Checkpoint files put together by hand, so that a test can damage any part of them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

inline std::string U64(uint64_t v) {
  std::string s;
  for (int i = 0; i < 8; i++) s += (char)(v >> 8 * i & 0xff);
  return s;
}

// Length, header, data.
inline std::string Safetensors(const std::string &header, const std::string &data) {
  return U64(header.size()) + header + data;
}

// One entry of a header.
inline std::string Entry(const std::string &name, const std::string &dtype, const std::string &shape, uint64_t begin,
                         uint64_t end) {
  return "\"" + name + "\":{\"dtype\":\"" + dtype + "\",\"shape\":[" + shape + "],\"data_offsets\":[" +
         std::to_string(begin) + "," + std::to_string(end) + "]}";
}

template <typename T>
std::string Bytes(const std::vector<T> &values) {
  return std::string((const char *)values.data(), values.size() * sizeof(T));
}
