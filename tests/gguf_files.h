// GGUF files put together by hand, so that a test can get any part of them wrong.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

template <typename T>
std::string Raw(T value) {
  return std::string((const char *)&value, sizeof value);
}

inline std::string Text(const std::string &s) { return Raw<uint64_t>(s.size()) + s; }

// Values with their type's number in front.
inline std::string U32Value(uint32_t v) { return Raw<uint32_t>(4) + Raw(v); }
inline std::string F32Value(float v) { return Raw<uint32_t>(6) + Raw(v); }
inline std::string BoolValue(bool v) { return Raw<uint32_t>(7) + Raw<uint8_t>(v); }
inline std::string TextValue(const std::string &s) { return Raw<uint32_t>(8) + Text(s); }
inline std::string ArrayValue(uint32_t type, uint64_t count, const std::string &items) {
  return Raw<uint32_t>(9) + Raw(type) + Raw(count) + items;
}
inline std::string TextsValue(const std::vector<std::string> &texts) {
  std::string items;
  for (const auto &t : texts) items += Text(t);
  return ArrayValue(8, texts.size(), items);
}
template <typename T>
std::string NumbersValue(uint32_t type, const std::vector<T> &values) {
  return ArrayValue(type, values.size(), std::string((const char *)values.data(), values.size() * sizeof(T)));
}

struct GgufTensor {
  std::string name;
  std::vector<uint64_t> extents;  // as in the file, the fastest first
  uint32_t type;
  std::string data;
  int64_t offset = -1;  // -1: after the tensor before it
};

struct GgufFile {
  uint32_t version = 3;
  uint64_t alignment = 32;
  std::vector<std::pair<std::string, std::string>> metadata;
  std::vector<GgufTensor> tensors;
  int64_t claimed_tensors = -1, claimed_entries = -1;

  // Replaces or adds a key.
  GgufFile &Set(const std::string &key, const std::string &value) {
    for (auto &entry : metadata) {
      if (entry.first == key) {
        entry.second = value;
        return *this;
      }
    }
    metadata.emplace_back(key, value);
    return *this;
  }

  GgufTensor &Tensor(const std::string &name) {
    for (auto &t : tensors) {
      if (t.name == name) return t;
    }
    tensors.push_back({name, {}, 0, "", -1});
    return tensors.back();
  }

  std::string Header() const {
    std::string out = "GGUF" + Raw(version);
    out += Raw<uint64_t>(claimed_tensors >= 0 ? (uint64_t)claimed_tensors : tensors.size());
    out += Raw<uint64_t>(claimed_entries >= 0 ? (uint64_t)claimed_entries : metadata.size());
    for (const auto &entry : metadata) out += Text(entry.first) + entry.second;
    uint64_t at = 0;
    for (const auto &t : tensors) {
      out += Text(t.name) + Raw<uint32_t>((uint32_t)t.extents.size());
      for (uint64_t e : t.extents) out += Raw(e);
      out += Raw(t.type) + Raw<uint64_t>(t.offset >= 0 ? (uint64_t)t.offset : at);
      at += Padded(t.data).size();
    }
    return out;
  }

  std::string Padded(std::string s) const {
    s.resize((s.size() + alignment - 1) / alignment * alignment);
    return s;
  }

  std::string Build() const {
    std::string out = Padded(Header());
    for (const auto &t : tensors) out += Padded(t.data);
    return out;
  }
};

// A llama of one layer with all tensors F32 zeros: 2 heads of 4, 1 key-value head, hidden 8, intermediate 6, 5 tokens.
inline GgufFile TinyLlama() {
  GgufFile f;
  f.Set("general.architecture", TextValue("llama"))
      .Set("llama.block_count", U32Value(1))
      .Set("llama.context_length", U32Value(64))
      .Set("llama.embedding_length", U32Value(8))
      .Set("llama.feed_forward_length", U32Value(6))
      .Set("llama.attention.head_count", U32Value(2))
      .Set("llama.attention.head_count_kv", U32Value(1))
      .Set("llama.rope.dimension_count", U32Value(4))
      .Set("llama.attention.layer_norm_rms_epsilon", F32Value(1e-5f))
      .Set("llama.vocab_size", U32Value(5));
  auto add = [&f](const std::string &name, std::vector<uint64_t> extents) {
    uint64_t count = 1;
    for (uint64_t e : extents) count *= e;
    f.tensors.push_back({name, extents, 0, std::string(count * 4, '\0'), -1});
  };
  add("token_embd.weight", {8, 5});
  add("blk.0.attn_norm.weight", {8});
  add("blk.0.attn_q.weight", {8, 8});
  add("blk.0.attn_k.weight", {8, 4});
  add("blk.0.attn_v.weight", {8, 4});
  add("blk.0.attn_output.weight", {8, 8});
  add("blk.0.ffn_norm.weight", {8});
  add("blk.0.ffn_gate.weight", {8, 6});
  add("blk.0.ffn_up.weight", {8, 6});
  add("blk.0.ffn_down.weight", {6, 8});
  add("output_norm.weight", {8});
  return f;
}
