#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <string>

#include "tests/support.h"

extern "C" {
#include "model/config.h"
#include "model/json_text.h"
}

namespace {

// The text with the changes, which are JSON themselves; the message if it is refused.
std::string Change(const std::string &text, const std::string &changes) {
  nb_buf out = {};
  nibble_error err;
  cJSON *json = cJSON_Parse(changes.c_str());
  EXPECT_NE(json, nullptr) << changes;
  nibble_status status = nb_json_text_change("f", text.data(), text.size(), json, &out, &err);
  std::string changed = status == NIBBLE_OK ? std::string(out.data, out.length) : err.message;
  EXPECT_TRUE(status == NIBBLE_OK || status == NIBBLE_BAD_INPUT);
  nb_buf_free(&out);
  cJSON_Delete(json);
  return changed;
}

// As transformers 5.24 saves a Gemma 2: sorted, indented by two.
const char kGemma[] = R"({
  "architectures": [
    "Gemma2ForCausalLM"
  ],
  "attn_logit_softcapping": 50.0,
  "dtype": "float32",
  "final_logit_softcapping": 30.0,
  "query_pre_attn_scalar": 9223372036854775807,
  "time_step_limit": [
    0.0,
    Infinity
  ],
  "vocab_size": 257
}
)";

TEST(JsonText, NothingChangesWithoutChanges) {
  for (const std::string text :
       {kGemma, "{}", " { } ", "\xEF\xBB\xBF{\"a\" :1}", "{\"a\": NaN,\r\n\t\"b\":-Infinity}\r\n"}) {
    EXPECT_EQ(Change(text, "{}"), text);
    EXPECT_EQ(Change(text, R"({"absent": null})"), text);
  }
}

TEST(JsonText, ReplacesAValueAndNoOtherByte) {
  std::string want = kGemma;
  want.replace(want.find("float32"), 7, "bfloat16");
  EXPECT_EQ(Change(kGemma, R"({"dtype": "bfloat16"})"), want);
  EXPECT_EQ(Change(R"({"a":1e5 , "b" : {"a": 2}, "c":[ ]})", R"({"a": "x", "c": true})"),
            R"({"a":"x" , "b" : {"a": 2}, "c":true})");
}

TEST(JsonText, InsertsWhereTransformersSorts) {
  std::string want = kGemma;
  want.insert(want.find("  \"query"),
              "  \"quantization_config\": {\n    \"bits\": 4,\n    \"modules\": [\n      \"a\"\n    ]"
              ",\n    \"none\": []\n  },\n");
  EXPECT_EQ(Change(kGemma, R"({"quantization_config": {"bits": 4, "modules": ["a"], "none": []}})"), want);
  EXPECT_EQ(Change("{\n  \"b\": 1,\n  \"d\": 2\n}", R"({"a": 0, "c": 1.5, "e": 3})"),
            "{\n  \"a\": 0,\n  \"b\": 1,\n  \"c\": 1.5,\n  \"d\": 2,\n  \"e\": 3\n}");
}

TEST(JsonText, InsertsAtTheEndIfTheKeysAreNotSorted) {
  EXPECT_EQ(Change("{\n  \"z\": 1,\n  \"d\": 2\n}", R"({"a": 0})"), "{\n  \"z\": 1,\n  \"d\": 2,\n  \"a\": 0\n}");
  EXPECT_EQ(Change(R"({"z": 1})", R"({"a": 0})"), R"({"z": 1, "a": 0})");
}

TEST(JsonText, NewMembersLookLikeTheOthers) {
  const struct {
    const char *text, *changed;
  } cases[] = {
      {R"({"z": 1, "m": 2})", R"({"z": 1, "m": 2, "n": {"x": [1, 2], "y": {}}})"},
      {R"({"z":1,"m":2})", R"({"z":1,"m":2,"n":{"x":[1,2],"y":{}}})"},
      {R"({"z":1})", R"({"z":1,"n":{"x":[1,2],"y":{}}})"},
      {R"({ "z": 1 })", R"({ "z": 1, "n": {"x": [1, 2], "y": {}} })"},
      {"{\"z\": 1,\n \"m\": 2}", "{\"z\": 1,\n \"m\": 2,\n \"n\": {\n  \"x\": [\n   1,\n   2\n  ],\n  \"y\": {}\n }}"},
      {"{\n\t\"z\": 1\n}",
       "{\n\t\"z\": 1,\n\t\"n\": {\n\t\t\"x\": [\n\t\t\t1,\n\t\t\t2\n\t\t],\n\t\t\"y\": {}\n\t}\n}"},
      {"{\r\n    \"z\" : 1\r\n}\r\n",
       "{\r\n    \"z\" : 1,\r\n    \"n\" : {\r\n        \"x\" : [\r\n            1,\r\n            2\r\n        ],\r\n"
       "        \"y\" : {}\r\n    }\r\n}\r\n"},
      {"{}", "{\n  \"n\": {\n    \"x\": [\n      1,\n      2\n    ],\n    \"y\": {}\n  }\n}"},
      // An object inside another, as it lies there.
      {"{\n    \"z\": 1\n  }",
       "{\n    \"z\": 1,\n    \"n\": {\n      \"x\": [\n        1,\n        2\n      ],\n      \"y\": {}\n    }\n  }"},
      {"{\"z\"\n:\n1}", "{\"z\"\n:\n1, \"n\": {\"x\": [1, 2], \"y\": {}}}"},
  };
  for (const auto &c : cases) EXPECT_EQ(Change(c.text, R"({"n": {"x": [1, 2], "y": {}}})"), c.changed);
}

TEST(JsonText, RemovesAMemberWhereverItStands) {
  EXPECT_EQ(Change(R"({"a": 1, "b": 2, "c": 3})", R"({"a": null})"), R"({"b": 2, "c": 3})");
  EXPECT_EQ(Change(R"({"a": 1, "b": 2, "c": 3})", R"({"b": null})"), R"({"a": 1, "c": 3})");
  EXPECT_EQ(Change(R"({"a": 1, "b": 2, "c": 3})", R"({"c": null})"), R"({"a": 1, "b": 2})");
  EXPECT_EQ(Change(R"({"a": 1, "b": 2, "c": 3})", R"({"c": null, "a": null, "b": null})"), "{}");
  std::string want = kGemma;
  size_t begin = want.find("  \"time_step"), end = want.find("  \"vocab");
  want.erase(begin, end - begin);
  EXPECT_EQ(Change(kGemma, R"({"time_step_limit": null})"), want);
  EXPECT_EQ(Change("{\n  \"a\": 1,\n  \"b\": 2\n}\n", R"({"b": null})"), "{\n  \"a\": 1\n}\n");
  EXPECT_EQ(Change("{\n  \"a\": 1,\n  \"b\": 2\n}\n", R"({"a": null})"), "{\n  \"b\": 2\n}\n");
}

TEST(JsonText, OfMembersWithOneKeyTheLastCounts) {
  const char text[] = R"({"a": 1, "b": 2, "a": 3, "c": 4})";
  EXPECT_EQ(Change(text, R"({"a": 9})"), R"({"a": 1, "b": 2, "a": 9, "c": 4})");
  EXPECT_EQ(Change(text, R"({"a": null})"), R"({"b": 2, "c": 4})");
}

TEST(JsonText, KeysMayBeEscapedAndStandInValues) {
  EXPECT_EQ(Change(R"({"x": "\"dtype\": 1", "dty\u0070e": "a\\"})", R"({"dtype": 2})"),
            R"({"x": "\"dtype\": 1", "dty\u0070e": 2})");
  EXPECT_EQ(Change(R"({"y": {"dtype": 1}, "x": "}"})", R"({"dtype": "\"\\\n"})"),
            R"({"y": {"dtype": 1}, "x": "}", "dtype": "\"\\\n"})");
  EXPECT_EQ(Change("{\"caf\xC3\xA9\": 1, \"caf\": 2}", "{\"caf\xC3\xA9\": null}"), R"({"caf": 2})");
}

TEST(JsonText, WideWhiteSpaceStaysJson) {
  std::string wide(300, ' '), text = "{" + wide + "\"z\"" + wide + ":" + wide + "1" + wide + "," + wide + "\"b\": 2}";
  std::string changed = Change(text, R"({"n": [1]})");
  cJSON *json = cJSON_Parse(changed.c_str());
  ASSERT_NE(json, nullptr) << changed;
  EXPECT_EQ(cJSON_GetArraySize(json), 3);
  EXPECT_EQ(changed.substr(0, text.size() - 1), text.substr(0, text.size() - 1));
  cJSON_Delete(json);
  text = "{\"z\"" + wide + ": 1}";
  EXPECT_EQ(Change(text, R"({"n": [1]})"), "{\"z\"" + wide + R"(: 1, "n": [1]})");
}

TEST(JsonText, RefusesWhatIsNoObjectOfJson) {
  const std::pair<std::string, const char *> bad[] = {
      {"", "f: not valid JSON (or nested too deeply) at byte 0"},
      {"[{}]", "f: not a JSON object"},
      {"\"{}\"", "f: not a JSON object"},
      {"null", "f: not a JSON object"},
      {"{\"a\": 1} 2", "f: something follows the JSON value at byte 9"},
      {"{\"a\": 1,}", "f: not valid JSON (or nested too deeply) at byte 8"},
      {"{\"a\": 1", "f: not valid JSON (or nested too deeply) at byte 7"},
      {"{\"a\": \"\xFF\"}", "f: not valid UTF-8 at byte 7"},
  };
  for (const auto &[text, message] : bad) EXPECT_EQ(Change(text, R"({"b": 1})"), message) << text;
}

struct Parsed {
  explicit Parsed(const std::string &text) {
    status = nb_json_parse("f", text.data(), text.size(), &json, &err);
    nb_buf buf = {};
    nb_json_layout line = {.newline = "", .outer = "", .indent = "", .comma = ",", .colon = ":"};
    if (json) nb_json_put(&buf, json, &line);
    if (json) printed = std::string(buf.data, buf.length);
    nb_buf_free(&buf);
  }
  ~Parsed() { cJSON_Delete(json); }

  cJSON *json = nullptr;
  nibble_status status;
  nibble_error err = {};
  std::string printed;
};

TEST(Json, NumbersKeepTheirSpelling) {
  const std::string digits(70, '7');
  for (std::string text :
       {std::string("[30.0,30,1e5,1E+05,-0,-0.0,0.10,9007199254740993,18446744073709551615,123456789012345,1e-05]"),
        std::string(R"([1,{"a":[2.0,{"b":3}],"c":4.50},"5.0",[[6.0]],7])"), "[" + digits + ",1," + digits + ".5,2.0]",
        std::string("[NaN,1.0,Infinity,2,-Infinity,3.0]")}) {
    Parsed p(text);
    ASSERT_EQ(p.status, NIBBLE_OK) << p.err.message;
    EXPECT_EQ(p.printed, text);
    cJSON *copy = cJSON_Duplicate(p.json, true);
    nb_buf buf = {};
    nb_json_layout line = {.newline = "", .outer = "", .indent = "", .comma = ",", .colon = ":"};
    nb_json_put(&buf, copy, &line);
    EXPECT_EQ(std::string(buf.data, buf.length), text);
    nb_buf_free(&buf);
    cJSON_Delete(copy);
  }
}

TEST(Json, NumbersHaveTheirValues) {
  Parsed p(R"({"nan": NaN, "up": Infinity, "down": -Infinity, "NaN": "Infinity", "long": )" + std::string(70, '7') +
           R"(, "float": 30.0, "int": 4096.0})");
  ASSERT_EQ(p.status, NIBBLE_OK) << p.err.message;
  auto value = [&p](const char *key) { return cJSON_GetObjectItemCaseSensitive(p.json, key)->valuedouble; };
  EXPECT_TRUE(std::isnan(value("nan")));
  EXPECT_EQ(value("up"), HUGE_VAL);
  EXPECT_EQ(value("down"), -HUGE_VAL);
  EXPECT_EQ(value("long"), strtod(std::string(70, '7').c_str(), nullptr));
  EXPECT_EQ(value("float"), 30);
  EXPECT_STREQ(cJSON_GetObjectItemCaseSensitive(p.json, "NaN")->valuestring, "Infinity");
  nibble_error err;
  for (const char *key : {"nan", "up", "down"}) {
    double number = 1;
    int64_t whole = 1;
    EXPECT_EQ(nb_json_double("f", p.json, key, &number, &err), NIBBLE_BAD_INPUT) << key;
    EXPECT_EQ(nb_json_int("f", p.json, key, nb_range{INT64_MIN, INT64_MAX}, &whole, &err), NIBBLE_BAD_INPUT) << key;
    EXPECT_EQ(number, 1);
    EXPECT_EQ(whole, 1);
  }
  int64_t whole = 0;
  EXPECT_EQ(nb_json_int("f", p.json, "int", nb_range{0, 5000}, &whole, &err), NIBBLE_OK);
  EXPECT_EQ(whole, 4096);
}

TEST(Json, TakesWhatPythonTakes) {
  for (const char *text : {"0", " -1.5e-3\n", "\"\\u00e9\\ud83d\\ude00\\/\"", "[]", "{\"\": {}}", "true", "null",
                           "\"\x7F\xC3\xA9\xF0\x9F\x98\x80\"", "1e999", "-0"}) {
    Parsed p(text);
    EXPECT_EQ(p.status, NIBBLE_OK) << text << ": " << p.err.message;
  }
  const std::pair<std::string, const char *> bad[] = {
      {"01", "follows the JSON value at byte 1"},
      {"1.", "not valid JSON (or nested too deeply) at byte 2"},
      {".5", "not valid JSON"},
      {"+1", "not valid JSON"},
      {"-NaN", "not valid JSON"},
      {"nan", "not valid JSON"},
      {"Infinite", "not valid JSON"},
      {"1e", "not valid JSON"},
      {"0x10", "follows"},
      {"[1,]", "not valid JSON"},
      {"{\"a\":1,}", "not valid JSON"},
      {"{a:1}", "not valid JSON"},
      {"'a'", "not valid JSON"},
      {"\"\\x\"", "not valid JSON"},
      {"\"\\u12\"", "not valid JSON"},
      {"\"\\u12g4\"", "not valid JSON"},
      {"\"\\ud800\"", "not valid JSON"},
      {"[1] // comment", "follows"},
      {"\v1", "not valid JSON"},
      {"\"a\nb\"", "a string with a control character at byte 2"},
      {std::string("\"a\0b\"", 5), "a string with a control character at byte 2"},
      {std::string("{}\0", 3), "follows the JSON value at byte 2"},
      {"\"lla\\u0000ma\"", "a string with \\u0000 at byte 5"},
      {"{\"\\u0000\": 1}", "a string with \\u0000 at byte 3"},
      {"\"\\\\u0000\\u0000\"", "a string with \\u0000"},
      {"\"\xFF\"", "not valid UTF-8 at byte 1"},
      {"\"ab\xC3\"", "not valid UTF-8 at byte 3"},
      {"\"\xC0\x80\"", "not valid UTF-8"},
      {"\"\xED\xA0\x80\"", "not valid UTF-8"},
      {"\"\xF4\x90\x80\x80\"", "not valid UTF-8"},
      {"\"\xE2\x82", "not valid UTF-8"},
      {"\xC3\xA9", "not valid JSON"},
  };
  for (const auto &[text, part] : bad) {
    Parsed p(text);
    EXPECT_EQ(p.status, NIBBLE_BAD_INPUT) << text;
    EXPECT_NE(strstr(p.err.message, part), nullptr) << text << ": " << p.err.message;
    EXPECT_EQ(p.json, nullptr);
  }
  EXPECT_EQ(Parsed("\"\\\\u0000\"").status, NIBBLE_OK); /* a backslash and letters */
}

TEST(Json, IsNestedAsDeeplyAsCJsonGoes) {
  EXPECT_EQ(Parsed(std::string(1000, '[') + std::string(1000, ']')).status, NIBBLE_OK);
  EXPECT_EQ(Parsed(std::string(1001, '[') + std::string(1001, ']')).status, NIBBLE_BAD_INPUT);
}

TEST(Json, OfMembersWithOneKeyTheLastCounts) {
  Parsed p(R"({"a": 1, "b": {"c": 2, "d": 0, "c": 3}, "a": 4, "a": 5, "e": [{"f": 6, "f": 7}]})");
  nibble_error err;
  ASSERT_EQ(nb_json_last_wins(p.json, &err), NIBBLE_OK) << err.message;
  char *text = cJSON_PrintUnformatted(p.json);
  EXPECT_STREQ(text, R"({"b":{"d":0,"c":3},"a":5,"e":[{"f":7}]})");
  free(text);
}

TEST(Config, TakesTheLastOfMembersWithOneKey) {
  const char text[] = R"({"model_type": "x", "dtype": "float16", "model_type": "y", "dtype": "bfloat16"})";
  nb_config config;
  nibble_error err;
  ASSERT_EQ(nb_config_parse("f", text, strlen(text), &config, &err), NIBBLE_OK) << err.message;
  EXPECT_STREQ(config.model_type, "y");
  EXPECT_EQ(config.dtype, NB_BF16);
  EXPECT_STREQ(config.text, text);
  nb_config_free(&config);
}

TEST(Json, FloatsArePrintedAsPythonDoes) {
  const std::pair<double, const char *> cases[] = {
      {10000, "10000.0"},
      {0, "0.0"},
      {-0.0, "-0.0"},
      {1e15, "1000000000000000.0"},
      {1e16, "1e+16"},
      {1e-5, "1e-05"},
      {0.1, "0.1"},
      {(double)1e-5f, "9.999999747378752e-06"},
      {1.0 / 3, "0.3333333333333333"},
      {NAN, "NaN"},
      {-HUGE_VAL, "-Infinity"},
      {HUGE_VAL, "Infinity"},
  };
  for (const auto &[value, text] : cases) {
    cJSON *object = cJSON_CreateObject();
    ASSERT_TRUE(nb_json_add_float(object, "x", value));
    EXPECT_STREQ(cJSON_GetObjectItem(object, "x")->valuestring, text);
    cJSON_Delete(object);
  }
}

TEST(Json, StringsArePrintedAsUtf8WhateverTheyHold) {
  nb_buf buf = {};
  nb_json_put_string(&buf, "\"\\\b\f\n\r\t\x01\x1F\x7F/\xC3\xA9\xFF\xC3z");
  EXPECT_STREQ(buf.data, "\"\\\"\\\\\\b\\f\\n\\r\\t\\u0001\\u001f\x7F/\xC3\xA9\xEF\xBF\xBD\xEF\xBF\xBDz\"");
  nb_buf_free(&buf);
}

// Two bytes of text would be 80 of memory each: refused before anything is built.
TEST(Json, AFileHasSoManyValuesAtMost) {
  std::string text = "[0";
  for (int i = 1; i < 1 << 24; i++) text += ",0";
  text += "]";
  cJSON *json = nullptr;
  nibble_error err = {};
  EXPECT_EQ(nb_json_parse("f", text.data(), text.size(), &json, &err), NIBBLE_BAD_INPUT);
  EXPECT_EQ(json, nullptr);
  EXPECT_STREQ(err.message, "f: too many values at byte 33554431");
}

}  // namespace
