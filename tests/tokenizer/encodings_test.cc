// Whole encodings, offsets to padding, against golden data (scripts/golden/make_encodings.py) and by hand.
#include <gtest/gtest.h>
#include <zlib.h>

#include <string>
#include <tuple>
#include <vector>

#include "tests/support.h"
#include "tests/tokenizer/golden_cases.h"
#include "tests/tokenizer/small_tokenizer.h"

namespace {

struct Text {
  std::string text;
  std::string pair = {};
  bool has_pair = false;
};

// The encodings of a batch; frees them.
class Encodings {
 public:
  Encodings(nb_tokenizer *t, const std::vector<Text> &texts, nibble_encode_options options) {
    std::vector<nibble_text_pair> pairs;
    for (const Text &text : texts) {
      pairs.push_back({text.text.data(), text.text.size(), text.has_pair ? text.pair.data() : nullptr,
                       text.has_pair ? text.pair.size() : 0});
    }
    nibble_error err = {};
    options.size = sizeof options;
    status_ = nibble_tokenizer_encode_batch(t, pairs.data(), pairs.size(), &options, &encodings_, &err);
    if (status_ != NIBBLE_OK) message_ = err.message;
  }
  ~Encodings() { nibble_encodings_free(&encodings_); }
  Encodings(const Encodings &) = delete;
  Encodings &operator=(const Encodings &) = delete;

  nibble_status status() const { return status_; }
  const std::string &message() const { return message_; }
  size_t count() const { return encodings_.count; }
  const nibble_encoding &at(size_t i) const { return encodings_.list[i]; }

  std::vector<int32_t> Ids(size_t i) const {
    std::vector<int32_t> out;
    for (size_t k = 0; k < at(i).count; k++) out.push_back(at(i).tokens[k].id);
    return out;
  }
  std::vector<std::pair<size_t, size_t>> Offsets(size_t i) const {
    std::vector<std::pair<size_t, size_t>> out;
    for (size_t k = 0; k < at(i).count; k++) out.emplace_back(at(i).tokens[k].begin, at(i).tokens[k].end);
    return out;
  }

 private:
  nibble_encodings encodings_ = {};
  nibble_status status_;
  std::string message_;
};

using Spans = std::vector<std::pair<size_t, size_t>>;

// ---- golden data ------------------------------------------------------------------------------------------------

nibble_encode_options OptionsOf(const cJSON *json, int32_t pad_id) {
  nibble_encode_options o = {};
  auto number = [json](const char *key) { return Get(json, key) ? (size_t)Get(json, key)->valuedouble : 0; };
  o.no_special = !cJSON_IsTrue(Get(json, "special"));
  o.overflow = true;
  if (const cJSON *strategy = Get(json, "strategy")) {
    const std::string name = strategy->valuestring;
    o.truncation = name == "longest_first" ? NIBBLE_TRUNCATE_LONGEST_FIRST
                   : name == "only_first"  ? NIBBLE_TRUNCATE_ONLY_FIRST
                                           : NIBBLE_TRUNCATE_ONLY_SECOND;
  }
  o.truncate_left = cJSON_IsTrue(Get(json, "left"));
  o.max_length = number("max_length");
  o.stride = number("stride");
  if (const cJSON *padding = Get(json, "padding"))
    o.padding = std::string(padding->valuestring) == "longest" ? NIBBLE_PAD_LONGEST : NIBBLE_PAD_FIXED;
  o.pad_left = cJSON_IsTrue(Get(json, "pad_left"));
  o.pad_length = number("pad_length");
  o.pad_multiple_of = number("pad_multiple_of");
  o.pad_id = pad_id;
  o.pad_type_id = (int32_t)number("pad_type_id");
  return o;
}

// What the CRC is taken of.
void AppendNumbers(const Encodings &e, std::vector<int32_t> *out) {
  for (size_t i = 0; i < e.count(); i++) {
    if (!e.at(i).overflowing) {
      size_t end = i + 1;
      while (end < e.count() && e.at(end).overflowing) end++;
      out->push_back((int32_t)(end - i));
    }
    out->push_back((int32_t)e.at(i).count);
    for (size_t k = 0; k < e.at(i).count; k++) {
      const nibble_token &t = e.at(i).tokens[k];
      for (int32_t x :
           {t.id, t.type_id, t.word, (int32_t)t.special, (int32_t)!t.padding, (int32_t)t.begin, (int32_t)t.end})
        out->push_back(x);
    }
  }
}

double Crc(nb_tokenizer *t, const std::vector<Text> &texts, const nibble_encode_options &options, bool together) {
  std::vector<int32_t> numbers;
  for (size_t i = 0; i < texts.size(); i += together ? texts.size() : 1) {
    Encodings e(t, together ? texts : std::vector<Text>{texts[i]}, options);
    if (e.status() != NIBBLE_OK) numbers.insert(numbers.end(), together ? texts.size() : 1, -1);
    AppendNumbers(e, &numbers);
  }
  return (double)crc32(0, (const Bytef *)numbers.data(), (uInt)(numbers.size() * sizeof numbers[0]));
}

TEST(Encodings, AreTheReferencesOnHardLines) {
  const std::vector<std::string> all_lines = Lines(ReadFile(Golden("tokenizer/hard.txt")));
  const Json golden = Parse(ReadText(Golden("tokenizer/encodings.json.gz")));
  const size_t batch = (size_t)Get(golden.get(), "batch")->valuedouble;
  const int32_t pad_id = Get(golden.get(), "pad_id")->valueint;
  std::vector<std::string> short_lines;
  for (const std::string &line : all_lines) {
    if (line.size() <= Get(golden.get(), "short")->valuedouble) short_lines.push_back(line);
  }
  ASSERT_GT(cJSON_GetArraySize(Get(golden.get(), "cases")), 100);
  for (const cJSON *c = Get(golden.get(), "cases")->child; c; c = c->next) {
    const std::string name = Get(c, "name")->valuestring, base = Get(c, "base")->valuestring;
    SmallTokenizer t(Patched(ReadFile(Golden("tokenizer/" + base + ".json")), Get(c, "patch")));
    ASSERT_NE(t.get(), nullptr) << name;
    const cJSON *option = Get(golden.get(), "options")->child, *want = Get(c, "crc")->child;
    for (int which = 0; want; want = want->next, option = option->next, which++) {
      const bool pair = cJSON_IsTrue(Get(option, "pair"));
      const std::vector<std::string> &lines = Get(option, "strategy") ? short_lines : all_lines;
      const cJSON *crc = want->child;
      for (size_t begin = 0; begin < lines.size(); begin += batch, crc = crc->next) {
        std::vector<Text> texts;
        for (size_t i = begin; i < begin + batch && i < lines.size(); i++)
          texts.push_back({lines[i], pair ? lines[(i + 7) % lines.size()] : "", pair});
        ASSERT_TRUE(crc);
        EXPECT_EQ(Crc(t.get(), texts, OptionsOf(option, pad_id), cJSON_IsTrue(Get(option, "batch"))), crc->valuedouble)
            << name << ", options " << which << ", lines from " << begin << ": " << lines[begin];
      }
    }
  }
}

// ---- by hand ----------------------------------------------------------------------------------------------------

const char words[] = R"({"pre_tokenizer":{"type":"WhitespaceSplit"},"normalizer":{"type":"NFKC"},"post_processor":)"
                     R"({"type":"BertProcessing","cls":["c",8],"sep":["s",9]},)"
                     R"("model":{"type":"WordLevel","unk_token":"?","vocab":{"?":0,"fi":1,"é":2,"x":3,"y":4}}})";

// tokenizers 0.23.3 of the same text, in which é is two code points: composed, it stands for the first.
TEST(Encodings, OffsetsAreInTheTextBeforeNormalization) {
  SmallTokenizer t(words);
  const std::string text = "\xef\xac\x81 e\xcc\x81 x";
  nibble_encode_options options = {};
  options.no_special = true;
  Encodings chars(t.get(), {{text}}, options);
  ASSERT_EQ(chars.status(), NIBBLE_OK) << chars.message();
  EXPECT_EQ(chars.Ids(0), (std::vector<int32_t>{1, 2, 3}));
  EXPECT_EQ(chars.Offsets(0), (Spans{{0, 1}, {2, 3}, {5, 6}}));
  options.offsets = NIBBLE_OFFSETS_BYTES;
  Encodings bytes(t.get(), {{text}}, options);
  EXPECT_EQ(bytes.Offsets(0), (Spans{{0, 3}, {4, 5}, {8, 9}}));
}

TEST(Encodings, BytesAreThoseOfTheDamagedTextAsGiven) {
  SmallTokenizer t(words);
  nibble_encode_options options = {};
  options.no_special = true;
  const std::string text = "x\xff\xe2\x82 y\xff";  // U+FFFD three times, of one, two and one bytes
  EXPECT_EQ(Encodings(t.get(), {{text}}, options).Offsets(0), (Spans{{0, 3}, {4, 6}}));
  options.offsets = NIBBLE_OFFSETS_BYTES;
  EXPECT_EQ(Encodings(t.get(), {{text}}, options).Offsets(0), (Spans{{0, 4}, {5, 7}}));
}

TEST(Encodings, TellWhatATokenIs) {
  SmallTokenizer t(words);
  nibble_encode_options options = {};
  options.padding = NIBBLE_PAD_FIXED;
  options.pad_length = 7;
  options.pad_id = 5;
  options.pad_type_id = 6;
  Encodings e(t.get(), {{"x y", "fi", true}}, options);
  ASSERT_EQ(e.count(), 1u);
  ASSERT_EQ(e.at(0).count, 7u);
  using Row = std::tuple<int, int, int, bool, bool>;
  const Row want[] = {{8, 0, -1, true, false}, {3, 0, 0, false, false}, {4, 0, 1, false, false},
                      {9, 0, -1, true, false}, {1, 1, 0, false, false}, {9, 1, -1, true, false},
                      {5, 6, -1, true, true}};
  for (size_t i = 0; i < 7; i++) {
    const nibble_token &token = e.at(0).tokens[i];
    EXPECT_EQ(Row(token.id, token.type_id, token.word, token.special, token.padding), want[i]) << i;
  }
}

TEST(Encodings, EmptyTextsAreEntries) {
  SmallTokenizer t(words);
  nibble_encode_options options = {};
  options.no_special = true;
  Encodings e(t.get(), {{""}, {"x"}, {"  "}}, options);
  ASSERT_EQ(e.count(), 3u);
  EXPECT_EQ(e.at(0).count, 0u);
  EXPECT_EQ(e.Ids(1), (std::vector<int32_t>{3}));
  EXPECT_EQ(e.at(2).count, 0u);
  Encodings none(t.get(), {}, options);
  EXPECT_EQ(none.status(), NIBBLE_OK);
  EXPECT_EQ(none.count(), 0u);
}

TEST(Encodings, OverflowComesOnlyIfAsked) {
  SmallTokenizer t(words);
  nibble_encode_options options = {};
  options.truncation = NIBBLE_TRUNCATE_LONGEST_FIRST;
  options.max_length = 4;
  EXPECT_EQ(Encodings(t.get(), {{"x y x y x"}}, options).count(), 1u);
  options.overflow = true;
  options.stride = 1;
  Encodings e(t.get(), {{"x y x y x"}, {"y"}}, options);
  ASSERT_EQ(e.count(), 5u);
  EXPECT_EQ(e.Ids(0), (std::vector<int32_t>{8, 3, 4, 9}));
  EXPECT_EQ(e.Ids(3), (std::vector<int32_t>{8, 4, 3, 9}));
  EXPECT_EQ(e.at(3).text, 0u);
  EXPECT_TRUE(e.at(3).overflowing);
  EXPECT_EQ(e.Offsets(3), (Spans{{0, 0}, {6, 7}, {8, 9}, {0, 0}}));
  EXPECT_EQ(e.at(4).text, 1u);
  EXPECT_FALSE(e.at(4).overflowing);
}

TEST(Encodings, RefuseWhatCannotBeCut) {
  SmallTokenizer t(words);
  nibble_encode_options options = {};
  options.max_length = 3;
  auto message = [&](const Text &text) {
    Encodings e(t.get(), {text}, options);
    EXPECT_EQ(e.status(), NIBBLE_BAD_INPUT);
    return e.message();
  };
  options.truncation = NIBBLE_TRUNCATE_ONLY_SECOND;
  EXPECT_EQ(message({"x y"}), "text 0 has no second one, which alone is to be cut");
  options.truncation = NIBBLE_TRUNCATE_ONLY_FIRST;
  options.max_length = 4;
  EXPECT_EQ(message({"x", "x y", true}), "text 0 has 1 tokens, too few to cut 2 off");
  options.max_length = 3;
  options.truncation = NIBBLE_TRUNCATE_LONGEST_FIRST;
  options.stride = 1;
  EXPECT_EQ(message({"x y"}),
            "a text is cut to 1 tokens beside the special ones, which must be more than the stride of 1");
  options.max_length = 1;
  EXPECT_EQ(message({"x y"}), "the special tokens around a text are 2, more than the 1 allowed");
}

// Both texts overflow, and each piece of the one comes with each of the other: the product is bounded.
TEST(Encodings, RefuseProductsThatAreTooLarge) {
  SmallTokenizer t(words);
  nibble_encode_options options = {};
  options.truncation = NIBBLE_TRUNCATE_LONGEST_FIRST;
  options.max_length = 403;
  options.stride = 199;
  options.overflow = true;
  std::string text;
  for (int i = 0; i < 20000; i++) text += "x ";
  Encodings e(t.get(), {{text, text, true}}, options);
  EXPECT_EQ(e.status(), NIBBLE_BAD_INPUT);
  EXPECT_NE(e.message().find("overflows into more than"), std::string::npos) << e.message();
  options.overflow = false;
  EXPECT_EQ(Encodings(t.get(), {{text, text, true}}, options).at(0).count, 403u);
  options.truncation = NIBBLE_TRUNCATE_NONE;
  options.padding = NIBBLE_PAD_FIXED;
  options.pad_length = SIZE_MAX;
  Encodings padded(t.get(), {{"x"}}, options);
  EXPECT_NE(padded.message().find("padded to"), std::string::npos) << padded.message();
}

TEST(Encodings, AreRefusedForAPairWithoutATemplateForIt) {
  SmallTokenizer t(R"({"post_processor":{"type":"TemplateProcessing","single":[{"Sequence":{"id":"A"}}]},)"
                   R"("model":{"type":"WordLevel","unk_token":"?","vocab":{"?":0}}})");
  EXPECT_EQ(Encodings(t.get(), {{"x", "y", true}}, {}).status(), NIBBLE_BAD_INPUT);
  EXPECT_EQ(Encodings(t.get(), {{"x"}}, {}).Ids(0), (std::vector<int32_t>{0}));
}

TEST(Encodings, RefuseOptionsThatMakeNoSense) {
  SmallTokenizer t(words);
  nibble_encode_options options = {};
  options.truncation = (nibble_truncate)9;
  EXPECT_EQ(Encodings(t.get(), {{"x"}}, options).status(), NIBBLE_USAGE);
  options = {};
  options.padding = (nibble_pad)3;
  EXPECT_EQ(Encodings(t.get(), {{"x"}}, options).status(), NIBBLE_USAGE);
  options = {};
  options.offsets = (nibble_offsets)2;
  EXPECT_EQ(Encodings(t.get(), {{"x"}}, options).status(), NIBBLE_USAGE);
}

// Ids are the same with and without offsets, on a text long enough to flush every buffer.
TEST(Encodings, IdsAreThoseOfEncodeOnLongTexts) {
  std::string text;
  for (int i = 0; i < 3000; i++) text += i % 3 ? "ae\xcc\x81\xcc\xa3" : "the \xef\xac\x81 ";
  for (const char *base : {"bytes", "chars", "unigram", "wordpiece", "qwen2"}) {
    SmallTokenizer t(ReadFile(Golden(std::string("tokenizer/") + base + ".json")));
    Encodings e(t.get(), {{text}}, {});
    ASSERT_EQ(e.status(), NIBBLE_OK) << e.message();
    EXPECT_EQ(e.Ids(0), t.Encode(text)) << base;
  }
}

}  // namespace
