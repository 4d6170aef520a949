// The language of chat templates: what transformers makes of small templates that show a feature each
// (tests/golden/chat/features.json), and what a template may cost.
#include <gtest/gtest.h>

#include <ctime>
#include <memory>
#include <string>

#include "tests/json.h"
#include "tests/support.h"

extern "C" {
#include "model/json.h"
#include "template/template.h"
}

namespace {

Json Parse(const std::string &text) {
  cJSON *json = nullptr;
  nibble_error err = {};
  EXPECT_EQ(nb_json_parse("test", text.data(), text.size(), &json, &err), NIBBLE_OK) << err.message;
  return Json(json);
}

struct Rendered {
  nibble_status status;
  std::string text, message;
  double seconds;  // of the processor
};

Rendered Render(const std::string &text, const cJSON *variables = nullptr, const struct tm *now = nullptr) {
  nb_template *t = nullptr;
  nibble_error err = {};
  nb_buf out = {};
  clock_t start = clock();
  nibble_status status = nb_template_parse("chat.jinja", text.data(), text.size(), &t, &err);
  if (status == NIBBLE_OK) status = nb_template_render(t, variables, now, &out, &err);
  double seconds = (double)(clock() - start) / CLOCKS_PER_SEC;
  Rendered r = {status, std::string(out.data ? out.data : "", out.length), status ? err.message : "", seconds};
  nb_buf_free(&out);
  nb_template_free(t);
  return r;
}

TEST(Template, MakesWhatTransformersMakes) {
  Json golden = Parse(ReadFile(Golden("chat/features.json")));
  ASSERT_TRUE(golden);
  struct tm now = {};
  ASSERT_TRUE(strptime(cJSON_GetObjectItem(golden.get(), "now")->valuestring, "%Y-%m-%dT%H:%M:%S", &now));
  const cJSON *variables = cJSON_GetObjectItem(golden.get(), "variables"), *item;
  int same = 0, failed = 0;
  cJSON_ArrayForEach(item, cJSON_GetObjectItem(golden.get(), "cases")) {
    std::string text = cJSON_GetObjectItem(item, "template")->valuestring;
    SCOPED_TRACE(text);
    Rendered r = Render(text, variables, &now);
    if (const cJSON *output = cJSON_GetObjectItem(item, "output")) {
      EXPECT_EQ(r.status, NIBBLE_OK) << r.message;
      EXPECT_EQ(r.text, output->valuestring);
      same++;
    } else {
      EXPECT_EQ(r.status, NIBBLE_BAD_INPUT) << r.text;
      EXPECT_EQ(r.message.rfind("chat.jinja: line ", 0), 0u) << r.message;
      EXPECT_EQ(r.text, "");
      failed++;
    }
  }
  EXPECT_GT(same, 100);
  EXPECT_GT(failed, 50);
}

TEST(Template, ReadsNoVariables) { EXPECT_EQ(Render("{{ messages }}|{{ bos_token is defined }}").text, "|False"); }

TEST(Template, NamesTheLineOfAFault) {
  EXPECT_EQ(Render("a\n{{ 1 }}\n\n{{ x.y }}\n").message, "chat.jinja: line 4: 'x' is undefined");
  EXPECT_EQ(Render("{% if 1 %}\n\n{{ ) }}").message, "chat.jinja: line 3: unexpected ')'");
  EXPECT_EQ(Render("{{ raise_exception('roles\\nmust \\x1b[31malternate') }}").message,
            "chat.jinja: line 1: the template says: roles?must ?[31malternate");
}

TEST(Template, IsUtf8OfAtMostAMegabyte) {
  EXPECT_EQ(Render("a\xff").message, "chat.jinja: a chat template that is not UTF-8");
  EXPECT_EQ(Render(std::string(NB_TEMPLATE_MAX, 'a')).status, NIBBLE_OK);
  EXPECT_EQ(Render(std::string(NB_TEMPLATE_MAX + 1, 'a')).status, NIBBLE_BAD_INPUT);
}

// A whole number is what 64 bits hold; Python's would go on.
TEST(Template, RefusesNumbersThatDoNotFit) {
  for (const char *text :
       {"{{ 9223372036854775807 + 1 }}", "{{ 9223372036854775808 }}", "{{ 2 ** 64 }}", "{{ 10 ** 10 * 10 ** 10 }}",
        "{{ (-9223372036854775807 - 1) // -1 }}", "{{ -(-9223372036854775807 - 1) }}",
        "{{ (-9223372036854775807 - 1) | abs }}", "{{ '99999999999999999999' | int }}", "{{ 1e300 | int }}"}) {
    Rendered r = Render(text);
    EXPECT_EQ(r.status, NIBBLE_BAD_INPUT) << text << ": " << r.text;
    EXPECT_NE(r.message.find("64 bits"), std::string::npos) << r.message;
  }
  Json big = Parse("{\"n\": 9223372036854775807, \"m\": 9223372036854775808}");
  EXPECT_NE(Render("{{ n }}", big.get()).message.find("64 bits"), std::string::npos);
}

std::string Times(int n, const std::string &text) {
  std::string all;
  for (int i = 0; i < n; i++) all += text;
  return all;
}

// What a template costs is bounded: each of these would run for ever or fill memory.
TEST(Template, EndsWithinASecondWhateverItAsksFor) {
  struct {
    const char *what;
    std::string text, message;
  } attacks[] = {
      {"loops", "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}", "more"},
      {"calls", "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}x{% endmacro %}{{ m(40) }}", "more"},
      {"recursion", "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "nested too deep"},
      {"a loop in itself", "{% for a in [[1]] recursive %}{{ loop([a]) }}{% endfor %}", "nested too deep"},
      {"doubling", "{% set n = namespace(s='x') %}{% for i in range(99) %}{% set n.s = n.s + n.s %}{% endfor %}",
       "MiB"},
      {"doubling by ~", "{% set n = namespace(s='x') %}{% for i in range(99) %}{% set n.s = n.s ~ n.s %}{% endfor %}",
       "MiB"},
      {"doubling a list", "{% set n = namespace(s=[1]) %}{% for i in range(99) %}{% set n.s = n.s + n.s %}{% endfor %}",
       "MiB"},
      {"doubling by replace",
       "{% set n = namespace(s='x') %}{% for i in range(99) %}{% set n.s = n.s | replace('x', 'xx') %}{% endfor %}",
       "more"},
      {"doubling by a block",
       "{% set n = namespace(s='x') %}{% for i in range(99) %}{% set t %}{{ n.s }}{{ n.s }}{% endset %}{% set n.s = t "
       "%}{% endfor %}",
       "MiB"},
      {"repeating", "{{ 'x' * 1000000000000 }}", "MiB"},
      {"repeating a list", "{{ [1] * 1000000000000 }}", "MiB"},
      {"a width", "{{ '{:>99999999999}'.format(1) }}", "format"},
      {"another width", "{{ '%999999999s' % 1 }}", "width"},
      {"padding", "{{ 'x'.ljust(1000000000000) }}", "MiB"},
      {"an indent", "{{ [[[1]]] | tojson(indent=100000000) }}", "MiB"},
      {"output", "{% set s = 'x' * 1000000 %}{% for i in range(100000) %}{{ s }}{% endfor %}", "writes more"},
      {"nesting of values",
       "{% set n = namespace(l=[]) %}{% for i in range(9999) %}{% set n.l = [n.l] %}{% endfor %}{{ n.l }}",
       "nested too deep"},
      {"a value in itself", "{% set n = namespace() %}{% set n.n = n %}{{ n }}", "nested too deep"},
      {"comparing",
       "{% set n = namespace(l=[]) %}{% set m = namespace(l=[]) %}{% for i in range(9999) %}{% set n.l = [n.l] %}{% "
       "set m.l = [m.l] %}{% endfor %}{{ n.l == m.l }}",
       "nested too deep"},
      {"what grows in one value",
       "{% set n = namespace(l=[1]) %}{% for i in range(99) %}{% set n.l = [n.l, n.l] %}{% endfor %}{{ n.l | tojson }}",
       ""},
      {"unique", "{{ range(100000) | unique | list | length }}", "more"},
      {"searching",
       "{% set s = 'a' * 1000000 %}{% set t = 'a' * 1000 ~ 'b' %}{% for i in range(10000) %}{{ s.rfind(t) }}{% endfor "
       "%}",
       "more"},
      {"stripping", "{% set s = 'a' * 1000000 %}{% for i in range(10000) %}{{ s.strip('bcdefgha') }}{% endfor %}",
       "more"},
      {"counting characters",
       "{% set s = 'é' * 1000000 %}{% for i in range(100000) %}{% if s | length %}{% endif %}{% endfor %}", "more"},
      {"a time", "{{ strftime_now('%1000000000d') }}", "strftime_now"},
      {"parentheses", Times(100000, "("), ""},
      {"parentheses in a tag", "{{ " + Times(200, "(") + "1" + Times(200, ")") + " }}", "nested deeper"},
      {"signs", "{{ " + Times(100000, "-") + "1 }}", "nested deeper"},
      {"nots", "{{ " + Times(100000, "not ") + "1 }}", "nested deeper"},
      {"choices", "{{ " + Times(10000, "1 if 0 else ") + "1 }}", "nested deeper"},
      {"a chain of attributes", "{{ x" + Times(100000, ".x") + " }}", "nested too deep"},
      {"a chain of sums", "{{ 1" + Times(100000, "+1") + " }}", "nested too deep"},
      {"a chain of filters", "{{ 1" + Times(100000, "|string") + " }}", "nested too deep"},
      {"blocks", Times(10000, "{% if 1 %}"), "nested deeper"},
      {"elifs", "{% if 0 %}" + Times(50000, "{% elif 0 %}") + "{% endif %}", ""},
  };
  for (const auto &a : attacks) {
    Rendered r = Render(a.text);
    if (a.message.empty()) {
      EXPECT_TRUE(r.status == NIBBLE_OK || r.status == NIBBLE_BAD_INPUT) << a.what;
    } else {
      EXPECT_EQ(r.status, NIBBLE_BAD_INPUT) << a.what << ": " << r.text.substr(0, 100);
    }
    EXPECT_NE(r.message.find(a.message), std::string::npos) << a.what << ": " << r.message;
    if (!Sanitized()) {
      EXPECT_LT(r.seconds, 1) << a.what;
    }
  }
}

// A long conversation is no attack.
TEST(Template, TakesAConversationOfAMegabyte) {
  std::string messages = "{\"messages\": [";
  for (int i = 0; i < 2000; i++)
    messages += std::string(i ? ", " : "") + R"({"role": "user", "content": ")" + std::string(500, 'a') + "\"}";
  Json variables = Parse(messages + "]}");
  Rendered r = Render(
      "{% for m in messages %}{% if m.role == 'user' %}<|user|>{{ m['content'] | trim }}\n{% endif %}{% endfor %}",
      variables.get());
  EXPECT_EQ(r.status, NIBBLE_OK) << r.message;
  EXPECT_EQ(r.text.size(), 2000u * 509);
}

}  // namespace
