// What a tokenizer may cost on one text: patterns that explode and steps that blow a text up end with an error, and
// patterns that people use find what one search over the whole text finds.
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "tests/support.h"

extern "C" {
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "base/utf8.h"
#include "tokenizer/regex.h"
#include "tokenizer/tokenizer.h"
}

namespace {

using Matches = std::vector<std::pair<size_t, size_t>>;

std::string Times(int n, const std::string &text) {
  std::string all;
  for (int i = 0; i < n; i++) all += text;
  return all;
}

// All matches, and what is left of the budget.
Matches Search(const std::string &pattern, const std::string &text, nb_budget *budget, nibble_error *err) {
  nb_regex *regex = nullptr;
  Matches found;
  nibble_status status = nb_regex_compile("test", pattern.c_str(), false, &regex, err);
  EXPECT_EQ(status, NIBBLE_OK) << err->message;
  nb_search search = {};
  search.text = text.data(), search.n = text.size(), search.budget = budget;
  while (status == NIBBLE_OK && (status = nb_regex_next(regex, &search, err)) == NIBBLE_OK && search.found)
    found.push_back({search.begin, search.end});
  if (status == NIBBLE_OK) err->message[0] = 0;
  nb_regex_free(regex);
  return found;
}

// The same by PCRE2 alone.
Matches SearchPlainly(const std::string &pattern, const std::string &text) {
  nb_buf translated = {};
  nibble_error err;
  EXPECT_EQ(nb_regex_translate("test", pattern.c_str(), &translated, &err), NIBBLE_OK) << err.message;
  int code;
  PCRE2_SIZE at;
  pcre2_compile_context *context = pcre2_compile_context_create(nullptr);
  pcre2_set_newline(context, PCRE2_NEWLINE_LF);
  pcre2_code *compiled = pcre2_compile((PCRE2_SPTR)translated.data, translated.length,
                                       PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE, &code, &at, context);
  EXPECT_NE(compiled, nullptr) << pattern;
  pcre2_match_data *data = pcre2_match_data_create(1, nullptr);
  Matches found;
  for (size_t i = 0; i <= text.size();) {
    if (pcre2_match(compiled, (PCRE2_SPTR)text.data(), text.size(), i, 0, data, nullptr) < 0) break;
    const PCRE2_SIZE *pair = pcre2_get_ovector_pointer(data);
    bool again = pair[0] == pair[1] && !found.empty() && found.back().second == pair[1];
    size_t length = 1;
    i = pair[1];
    if (again && i < text.size()) nb_utf8_decode(text.data() + i, &length);
    if (again) i += length;
    if (!again) found.push_back({pair[0], pair[1]});
  }
  pcre2_match_data_free(data);
  pcre2_code_free(compiled);
  pcre2_compile_context_free(context);
  nb_buf_free(&translated);
  return found;
}

// Of GPT-2, Llama 3, o200k and DeepSeek, and the steps of the reference; then what the window has to be right about.
const char *const kUsed[] = {
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)",
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)",
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)",
    R"([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)",
    R"([\r\n])",
    R"(\s?\p{L}+)",
    R"([一-龥ࠀ-一가-퟿]+)",
    R"(\w+|[^\w\s]+)",
    R"( {2,})",
};
const char *const kOdd[] = {
    R"(x*)",       R"(e{0,200})",  R"((?<=\s)a)",     R"((?<![a-z])b*)", R"($)",       R"(^)",
    R"(\b)",       R"(a.*?b)",     R"((?=\s+z))",     R"(\s+$)",         R"(a{3})",    R"((a|b)+ )",
    R"([^a]{64})", R"(.)",         R"(\s{63})",       R"(\s{64})",       R"(\s{65})",  R"((?:é|e)+(?= ))",
    R"(\z)",       R"((.)\1{70})", R"((?<=a{64})a?)", R"((?<=a{65})a?)", R"(\s*z|\s)", R"((?>a+)b|a)",
};

std::string RandomText(uint32_t *state, size_t size) {
  static const char *const parts[] = {" ",  "a",  "b",    "ab ", "Z", "é",  "一", "\n", "\r\n", "1", "x",
                                      "'s", "zz", "<s> ", ".",   "-", "龥", "😀",  "\t", "e",    "A", "\xcc\x81"};
  static const int runs[] = {1, 1, 1, 2, 3, 20, 61, 62, 63, 64, 65, 66, 130};
  std::string text;
  while (text.size() < size) {
    *state = *state * 1664525u + 1013904223u;
    text += Times(runs[(*state >> 8) % 13], parts[(*state >> 16) % 22]);
  }
  return text;
}

TEST(RegexBudget, FindsWhatOneSearchOverTheTextFinds) {
  uint32_t state = 7;
  std::vector<std::string> patterns(std::begin(kUsed), std::end(kUsed));
  patterns.insert(patterns.end(), std::begin(kOdd), std::end(kOdd));
  for (int round = 0; round < 30; round++) {
    std::string text = RandomText(&state, round < 10 ? 40 : 600);
    for (const std::string &pattern : patterns) {
      nb_budget budget = nb_budget_of(text.size());
      nibble_error err = {};
      Matches found = Search(pattern, text, &budget, &err);
      EXPECT_STREQ(err.message, "") << pattern;
      ASSERT_EQ(found, SearchPlainly(pattern, text)) << pattern << "\nin '" << text << "'";
    }
  }
}

// Runs longer than any word: what takes a pattern that people use beyond the window, forwards or back.
TEST(RegexBudget, PatternsInUseSpendLittleOnAnyText) {
  const std::string texts[] = {std::string(300000, ' '),
                               std::string(300000, 'a'),
                               std::string(300000, 'A'),
                               std::string(300000, '\n'),
                               std::string(300000, '.'),
                               Times(100000, "一"),
                               Times(4000, std::string(70, ' ') + "a"),
                               Times(4000, std::string(70, 'A') + " "),
                               Times(150000, "e\xcc\x81"),
                               Times(60000, " \n \t")};
  for (const std::string &text : texts) {
    for (const char *pattern : kUsed) {
      nb_budget whole = nb_budget_of(text.size()), budget = whole;
      nibble_error err = {};
      Search(pattern, text, &budget, &err);
      EXPECT_STREQ(err.message, "") << pattern << " in " << text.substr(0, 8);
      EXPECT_LT((whole.work - budget.work) * 10, whole.work) << pattern << " in " << text.substr(0, 8);
    }
  }
}

// n branches that begin alike.
std::string Branches(int n, const std::string &begin) {
  std::string branches;
  for (int i = 0; i < n; i++) branches += (i ? "|" : "") + begin + std::to_string(i);
  return branches;
}

// PCRE2's own limit is one of a start: these took from seconds to hours.
TEST(RegexBudget, APatternThatExplodesIsAnErrorHoweverItDoesSo) {
  const struct {
    std::string pattern, text;
  } cases[] = {
      {R"([\s\S]{0,2500}[\s\S]{0,2500}[\x{10FFF0}-\x{10FFFF}])", Times(1000, "word ")},
      {R"([\s\S]{0,2500}[\s\S]{0,2500}[\x{10FFF0}-\x{10FFFF}])", Times(18000, "word ")},
      {R"((a|aa)+[0-9])", std::string(5000, 'a')},
      {R"((a|aa)+[0-9])", Times(1000, std::string(60, 'a') + " ")},
      {R"(a+[bc])", std::string(200000, 'a')},
      {R"((?:a*+b|a)*[cd])", std::string(100000, 'a')},
      {R"(([\s\S]*)[xy]?\1[zq])", std::string(20000, 'a')},
      {R"((?=[\s\S]*+[zq]).)", std::string(200000, 'a')},
      {R"((?<=[\s\S]{3000})[a-b](?!a))", std::string(200000, 'a')},
      {R"((?:a{3000}b|a)*[cd])", std::string(100000, 'a')},
      {R"((?:a?){500}[cd])", std::string(2000, 'a')},
      {"a(?:" + Branches(200, std::string(36, 'a')) + ")", std::string(300000, 'a')},
      {"a(?:" + Branches(150, "[ab]{50}") + ")", std::string(300000, 'a')},
      {"a" + Times(700, "(?!a{60}x)") + "[cd]", std::string(300000, 'a')},
      {"a(?:" + Times(20, "(?!a{30}x)") + "a){20}[cd]", std::string(300000, 'a')},
  };
  for (const auto &c : cases) {
    nb_budget budget = nb_budget_of(c.text.size());
    nibble_error err = {};
    Search(c.pattern, c.text, &budget, &err);
    EXPECT_NE(std::string(err.message).find("costs too much on this text"), std::string::npos)
        << c.pattern << " on " << c.text.size() << " bytes: " << err.message;
  }
}

// Searches one after the other share a budget.
TEST(RegexBudget, IsOneForAllSearches) {
  nb_budget budget = nb_budget_of(0);
  nibble_error err = {};
  std::string text(3000, 'a');
  int searches = 0;
  while (searches < 1000 && !err.message[0]) {
    Search(R"(a+[bc])", text, &budget, &err);
    searches++;
  }
  EXPECT_GT(searches, 1);
  EXPECT_LT(searches, 1000);
}

// ---- whole tokenizers -----------------------------------------------------------------------------------------------

std::string Json(const std::string &parts) {
  return R"({"version":"1.0",)" + parts + R"("model":{"type":"BPE","vocab":{"a":0,"b":1,"-":2,"ab":3,"é":4},)" +
         R"("merges":["a b"]}})";
}

struct CloseTokenizer {
  void operator()(nb_tokenizer *t) const { nb_tokenizer_close(t); }
};
using Tokenizer = std::unique_ptr<nb_tokenizer, CloseTokenizer>;

Tokenizer Parse(const std::string &json, std::string *message = nullptr) {
  nb_tokenizer *t = nullptr;
  nibble_error err = {};
  nibble_status status = nb_tokenizer_parse("test", json.data(), json.size(), &t, &err);
  if (message)
    *message = err.message;
  else
    EXPECT_EQ(status, NIBBLE_OK) << err.message;
  return Tokenizer(t);
}

// "0 1 2", or the message.
std::string Encode(const Tokenizer &t, const std::string &text) {
  nb_ids ids = {};
  nibble_error err = {};
  std::string shown;
  if (nb_tokenizer_encode(t.get(), text.data(), text.size(), 0, &ids, &err) != NIBBLE_OK) shown = err.message;
  for (size_t i = 0; i < ids.length; i++) shown += (i ? " " : "") + std::to_string(ids.data[i]);
  nb_ids_free(&ids);
  return shown;
}

std::string Decode(const Tokenizer &t, const std::vector<int32_t> &ids) {
  nb_buf text = {};
  nibble_error err = {};
  std::string shown;
  if (nb_tokenizer_decode(t.get(), ids.data(), ids.size(), 0, &text, &err) != NIBBLE_OK)
    shown = err.message;
  else
    shown = std::string(text.data ? text.data : "", text.length);
  nb_buf_free(&text);
  return shown;
}

std::string Steps(const std::string &group, const std::string &list, int n, const std::string &step) {
  std::string steps;
  for (int i = 0; i < n; i++) steps += (i ? "," : "") + step;
  return "\"" + group + R"(":{"type":"Sequence",")" + list + "\":[" + steps + "]},";
}

std::string Replace(const std::string &pattern, const std::string &content) {
  return R"({"type":"Replace","pattern":)" + pattern + R"(,"content":")" + content + "\"}";
}

TEST(TokenizerBudget, StepsThatBlowATextUpAreRefused) {
  const std::string doubled = Replace(R"({"Regex":"[\\s\\S]"})", "aa"),
                    much = Replace(R"({"String":"a"})", Times(256, "a"));
  const struct {
    std::string parts, text;
    const char *what;
  } cases[] = {
      {Steps("normalizer", "normalizers", 22, doubled), "aaaaaaaaaa", "normalizer"},
      {Steps("normalizer", "normalizers", 32, doubled), "aaaaaaaaaa", "normalizer"},
      {Steps("normalizer", "normalizers", 1, much), std::string(1 << 20, 'a'), "normalizer"},
      {Steps("normalizer", "normalizers", 4, much), "a", "normalizer"},
      {Steps("normalizer", "normalizers", 30, R"({"type":"ByteLevel"})"), "é", "normalizer"},
      {Steps("normalizer", "normalizers", 1, Replace(R"({"String":""})", Times(256, "a"))), std::string(1 << 20, 'a'),
       "normalizer"},
      {Steps("pre_tokenizer", "pretokenizers", 30,
             R"({"type":"ByteLevel","use_regex":false,"add_prefix_space":false})"),
       "é", "pre-tokenizer"},
  };
  for (const auto &c : cases) {
    Tokenizer t = Parse(Json(c.parts));
    ASSERT_NE(t, nullptr);
    std::string want = std::string("the tokenizer's ") + c.what + " makes more than 64 bytes of each byte of this text";
    EXPECT_EQ(Encode(t, c.text).substr(0, 200), want) << c.parts.substr(0, 200);
    EXPECT_EQ(Encode(t, ""), "") << "a refusal must not spoil the tokenizer";
  }
}

TEST(TokenizerBudget, ARefusalDoesNotSpoilTheTokenizer) {
  Tokenizer t = Parse(Json(Steps("normalizer", "normalizers", 1, Replace(R"({"String":"b"})", Times(256, "a")))));
  ASSERT_NE(t, nullptr);
  std::string ids = Encode(t, "ab");
  EXPECT_NE(Encode(t, std::string(1 << 20, 'b')).find("makes more than"), std::string::npos);
  EXPECT_EQ(Encode(t, "ab"), ids);
}

TEST(TokenizerBudget, ATextMayGrowSeveralTimes) {
  Tokenizer t = Parse(Json(Steps("normalizer", "normalizers", 1, Replace(R"({"String":"a"})", Times(32, "a")))));
  ASSERT_NE(t, nullptr);
  nb_ids ids = {};
  nibble_error err = {};
  std::string text(1 << 18, 'a');
  EXPECT_EQ(nb_tokenizer_encode(t.get(), text.data(), text.size(), 0, &ids, &err), NIBBLE_OK) << err.message;
  EXPECT_EQ(ids.length, size_t(32) << 18);
  nb_ids_free(&ids);
}

TEST(TokenizerBudget, DecodersThatBlowATextUpAreRefused) {
  const std::string want = "the tokenizer's decoder makes more than 64 bytes of each byte of this text";
  for (const std::string &step : {Replace(R"({"Regex":"[\\s\\S]"})", "aa"),
                                  Replace(R"({"String":"a"})", Times(256, "a")), Replace(R"({"String":""})", "aaa")}) {
    Tokenizer t = Parse(Json(Steps("decoder", "decoders", 32, step)));
    ASSERT_NE(t, nullptr);
    EXPECT_EQ(Decode(t, {0, 0, 3}), want) << step;
    EXPECT_EQ(Decode(t, {0, 0, 3}), want) << step;
    EXPECT_EQ(Decode(t, {}), "") << step;
  }
}

TEST(TokenizerBudget, AddedTokensThatBlowUpAreRefusedTogether) {
  std::string added;
  for (int i = 0; i < 2000; i++) added += (i ? ",{" : "{") + (R"("content":"c)" + std::to_string(i)) + "\"}";
  std::string steps = Replace(R"({"String":"c"})", Times(256, "b")) + "," +
                      Replace(R"({"String":"b"})", Times(16, "b")) + "," + Replace(R"({"Regex":"b+"})", "");
  std::string message;
  Tokenizer t =
      Parse(Json("\"added_tokens\":[" + added + R"(],"normalizer":{"type":"Sequence","normalizers":[)" + steps + "]},"),
            &message);
  EXPECT_EQ(t, nullptr);
  EXPECT_NE(message.find("the tokenizer's normalizer makes more than"), std::string::npos) << message;
}

TEST(TokenizerBudget, ATemplateHasTheTextAFewTimesOnly) {
  for (int n : {4, 5, 256}) {
    std::string single;
    for (int i = 0; i < n; i++) single += std::string(i ? "," : "") + R"({"Sequence":{"id":"A","type_id":0}})";
    std::string message;
    Tokenizer t = Parse(Json(R"("post_processor":{"type":"TemplateProcessing","single":[)" + single +
                             R"(],"pair":[],"special_tokens":{}},)"),
                        &message);
    if (n == 4)
      EXPECT_EQ(Encode(t, "b"), "1 1 1 1");
    else
      EXPECT_EQ(message, "test: post_processor TemplateProcessing has the text more than 4 times");
  }
}

// A long token that a text goes along at every place, and a thousand that it leaves one by one.
TEST(TokenizerBudget, ASearchForAddedTokensThatGoesFarAtEveryPlaceIsRefused) {
  for (bool normalized : {false, true}) {
    for (int first : {1000, 1}) {
      std::string added;
      for (int i = first; i <= 1000; i++)
        added += (i > first ? "," : "") + (R"({"content":")" + std::string(i, 'a')) + R"(b","normalized":)" +
                 (normalized ? "true" : "false") + "}";
      Tokenizer t = Parse(Json("\"added_tokens\":[" + added + "],"));
      ASSERT_NE(t, nullptr);
      EXPECT_EQ(Encode(t, std::string(300000, 'a')), "the tokenizer's added tokens cost too much on this text");
      EXPECT_EQ(Encode(t, std::string(1000, 'a') + "b" + std::string(500, 'a')).substr(0, 6),
                first == 1 ? "1003 0" : "5 0 0 ");
    }
  }
}

// As tokenizers 0.23.3 does: an empty pattern matches between all characters.
TEST(TokenizerBudget, EmptyPatternsMatchBetweenCharacters) {
  for (const char *pattern : {R"({"String":""})", R"({"Regex":""})"}) {
    for (const char *behavior : {"Isolated", "Removed"}) {
      Tokenizer t = Parse(Json(R"("pre_tokenizer":{"type":"Split","invert":false,"behavior":")" +
                               std::string(behavior) + R"(","pattern":)" + pattern + "},"));
      ASSERT_NE(t, nullptr);
      EXPECT_EQ(Encode(t, "éab"), "4 0 1") << pattern << behavior;
      EXPECT_EQ(Encode(t, ""), "") << pattern;
    }
    Tokenizer t = Parse(Json(R"("normalizer":)" + Replace(pattern, "-") + ","));
    ASSERT_NE(t, nullptr);
    EXPECT_EQ(Encode(t, "éab"), "2 4 2 0 2 1 2") << pattern;
    t = Parse(Json(R"("decoder":)" + Replace(pattern, "-") + ","));
    ASSERT_NE(t, nullptr);
    EXPECT_EQ(Decode(t, {4, 3}), "-é--a-b-") << pattern;
  }
}

// Ids without text, of which a stream once kept all.
TEST(TokenizerBudget, AStreamForgetsIdsWithoutText) {
  Tokenizer t = Parse(Json(R"("decoder":)" + Replace(R"({"String":"b"})", "") + ","));
  ASSERT_NE(t, nullptr);
  nb_token_stream stream = {};
  stream.tokenizer = t.get();
  nb_buf text = {};
  nibble_error err = {};
  for (int i = 0; i < 1000; i++) {
    ASSERT_EQ(nb_token_stream_push(&stream, i % 500 == 0 ? 0 : 1, &text, &err), NIBBLE_OK) << err.message;
    ASSERT_LT(stream.window.length, 64u) << i;
  }
  ASSERT_EQ(nb_token_stream_end(&stream, &text, &err), NIBBLE_OK);
  EXPECT_EQ(std::string(text.data, text.length), "aa");
  nb_buf_free(&text);
}

}  // namespace
