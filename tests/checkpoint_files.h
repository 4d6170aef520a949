// Checkpoint files put together by hand, so that a test can damage any part of them.
#pragma once

#include <zlib.h>

#include <cstdint>
#include <string>
#include <utility>
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

inline std::string Little(uint64_t v, int bytes) { return U64(v).substr(0, (size_t)bytes); }

// A zip archive of stored members. What a test damages is said member by member.
class Zip {
 public:
  struct Member {
    std::string name, data = {};
    uint16_t method = 0, flags = 0;
    uint32_t crc_change = 0;
    int64_t size = -1;            // claimed in the directory; -1: the truth
    int64_t header = -1;          // claimed offset of the local header; -1: the truth
    std::string local_name = {};  // if it is another
  };
  Zip &Add(Member m) {
    members_.push_back(std::move(m));
    return *this;
  }
  std::string Build(bool zip64 = false) const {
    std::string out, directory;
    for (const Member &m : members_) {
      uint64_t at = m.header < 0 ? out.size() : (uint64_t)m.header,
               size = m.size < 0 ? m.data.size() : (uint64_t)m.size;
      uint32_t crc = (uint32_t)crc32(0, (const Bytef *)m.data.data(), (uInt)m.data.size()) ^ m.crc_change;
      const std::string &local = m.local_name.empty() ? m.name : m.local_name;
      out += Little(0x04034b50, 4) + Little(20, 2) + Little(m.flags, 2) + Little(m.method, 2) + Little(0, 4) +
             Little(crc, 4) + Little(size, 4) + Little(size, 4) + Little(local.size(), 2) + Little(0, 2) + local +
             m.data;
      std::string extra;
      if (zip64) extra = Little(1, 2) + Little(24, 2) + U64(size) + U64(size) + U64(at);
      uint64_t s32 = zip64 ? 0xffffffff : size, a32 = zip64 ? 0xffffffff : at;
      directory += Little(0x02014b50, 4) + Little(20, 2) + Little(20, 2) + Little(m.flags, 2) + Little(m.method, 2) +
                   Little(0, 4) + Little(crc, 4) + Little(s32, 4) + Little(s32, 4) + Little(m.name.size(), 2) +
                   Little(extra.size(), 2) + Little(0, 2) + Little(0, 2) + Little(0, 2) + Little(0, 4) +
                   Little(a32, 4) + m.name + extra;
    }
    uint64_t at = out.size(), count = members_.size();
    out += directory;
    if (zip64) {
      out += Little(0x06064b50, 4) + U64(44) + Little(45, 2) + Little(45, 2) + Little(0, 8) + U64(count) + U64(count) +
             U64(directory.size()) + U64(at);
      out += Little(0x07064b50, 4) + Little(0, 4) + U64(at + directory.size()) + Little(1, 4);
    }
    return out + Little(0x06054b50, 4) + Little(0, 4) + Little(zip64 ? 0xffff : count, 2) +
           Little(zip64 ? 0xffff : count, 2) + Little(zip64 ? 0xffffffff : directory.size(), 4) +
           Little(zip64 ? 0xffffffff : at, 4) + Little(0, 2);
  }

 private:
  std::vector<Member> members_;
};

// Pickles, protocol 2, opcode by opcode.
namespace pickle {

inline std::string Str(const std::string &s) { return "X" + Little(s.size(), 4) + s; }
inline std::string Int(int64_t v) { return std::string("\x8a\x08", 2) + U64((uint64_t)v); }
inline std::string Global(const std::string &module, const std::string &name) {
  return "c" + module + "\n" + name + "\n";
}
inline std::string Tuple(const std::vector<std::string> &items) {
  std::string s = "(";
  for (const std::string &item : items) s += item;
  return s + "t";
}
inline std::string Ints(const std::vector<int64_t> &values) {
  std::vector<std::string> items;
  for (int64_t v : values) items.push_back(Int(v));
  return Tuple(items);
}
inline std::string Storage(const std::string &key, int64_t elements, const std::string &type = "FloatStorage") {
  return Tuple({Str("storage"), Global("torch", type), Str(key), Str("cpu"), Int(elements)}) + "Q";
}
inline std::string Tensor(const std::string &storage, int64_t offset, const std::vector<int64_t> &size,
                          const std::vector<int64_t> &stride) {
  return Global("torch._utils", "_rebuild_tensor_v2") +
         Tuple({storage, Int(offset), Ints(size), Ints(stride), "\x89", Global("collections", "OrderedDict") + ")R"}) +
         "R";
}
inline std::string Dict(const std::vector<std::pair<std::string, std::string>> &items) {
  std::string s = "}(";
  for (const auto &item : items) s += Str(item.first) + item.second;
  return s + "u";
}
inline std::string Pickle(const std::string &body) { return "\x80\x02" + body + "."; }

}  // namespace pickle

// A pytorch_model.bin with one storage "0" of four floats.
inline std::string TorchFile(const std::string &pickle_body) {
  return Zip()
      .Add({"m/data.pkl", pickle::Pickle(pickle_body)})
      .Add({"m/byteorder", "little"})
      .Add({"m/data/0", Bytes<float>({1, 2, 3, 4})})
      .Build();
}
