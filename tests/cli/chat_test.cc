// generate --chat and chat: which template counts, what is put into it, what stays of a conversation. The model's
// tokens are bytes, so that prompt_tokens is the length of what the template made.
#include <signal.h>

#include <chrono>
#include <thread>

#include "tests/cli/byte_model.h"
#include "tests/cli/poison.h"

extern "C" {
#include <cjson/cJSON.h>
}

namespace {

// Each message as <role>content; a generation prompt is <answer>.
const char kTemplate[] =
    "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}<answer>{% endif %}";

struct Answer {
  std::string text;
  int prompt_tokens = -1, new_tokens = -1;
};

// The answers in what --json printed.
std::vector<Answer> Answers(const std::string &out) {
  std::vector<Answer> answers;
  for (const char *at = out.c_str(); *at;) {
    cJSON *json = cJSON_ParseWithOpts(at, &at, false);
    if (!json) break;
    Answer a;
    a.text = cJSON_GetStringValue(cJSON_GetObjectItem(json, "text"));
    a.prompt_tokens = cJSON_GetObjectItem(json, "prompt_tokens")->valueint;
    a.new_tokens = cJSON_GetObjectItem(json, "new_tokens")->valueint;
    answers.push_back(a);
    cJSON_Delete(json);
    while (*at == '\n') at++;
  }
  return answers;
}

class Chat : public testing::Test {
 protected:
  void SetUp() override { MakeByteModel(model_); }

  void Put(const std::string &file, const std::string &text) {
    std::filesystem::create_directories(std::filesystem::path(model_ + "/" + file).parent_path());
    WriteFile(model_ + "/" + file, text);
  }
  void Put(const std::string &text) { Put("chat_template.jinja", text); }

  CommandResult Generate(const std::string &args, const char *prompt = "hi") {
    return Nibble("generate " + model_ + " --chat --quiet --max-new-tokens 2 " + args +
                  (prompt ? std::string(" --prompt '") + prompt + "'" : ""));
  }
  // Bytes of the prompt that the template made; -1 after a failure, which is in error_.
  int Length(const std::string &args = "", const char *prompt = "hi") {
    CommandResult r = Generate(args + " --json", prompt);
    error_ = r.err;
    code_ = r.code;
    std::vector<Answer> answers = Answers(r.out);
    return r.code == 0 && answers.size() == 1 ? answers[0].prompt_tokens : -1;
  }
  std::vector<Answer> Talk(const std::string &lines, const std::string &args = "") {
    WriteFile(folder_ / "lines", lines);
    CommandResult r = Nibble("chat " + model_ + " --json --max-new-tokens 4 " + args + " < " + (folder_ / "lines"));
    error_ = r.err;
    code_ = r.code;
    return Answers(r.out);
  }

  TempFolder folder_;
  std::string model_ = folder_ / "model", error_;
  int code_ = -1;
};

int Length(const std::string &text) { return (int)text.size(); }

TEST_F(Chat, PutsThePromptIntoTheTemplate) {
  Put(kTemplate);
  EXPECT_EQ(Length(), ::Length("<user>hi\n<answer>"));
  EXPECT_EQ(Length("--system 'Be kind.'"), ::Length("<system>Be kind.\n<user>hi\n<answer>"));
  Put("[{{ messages | tojson }}{{ tools }}{{ documents }}{{ add_generation_prompt }}]");
  EXPECT_EQ(Length(), ::Length(R"([[{"role": "user", "content": "hi"}]NoneNoneTrue])"));
}

TEST_F(Chat, ReadsAConversationFromAFile) {
  Put(kTemplate);
  const std::string messages = folder_ / "messages.json", tools = folder_ / "tools.json";
  WriteFile(messages, R"([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}])");
  EXPECT_EQ(Length("--messages " + messages), ::Length("<user>a\n<assistant>b\n<user>hi\n<answer>"));
  EXPECT_EQ(Length("--messages " + messages, nullptr), ::Length("<user>a\n<assistant>b\n<answer>"));
  EXPECT_EQ(Length("--system s --messages " + messages, nullptr),
            ::Length("<system>s\n<user>a\n<assistant>b\n<answer>"));
  Put("{{ messages | length }}{{ tools | length }}{{ documents[0].title }}{{ more }}");
  WriteFile(messages,
            R"({"messages": [{"role": "user", "content": "a"}], "documents": [{"title": "T"}], "more": 1.5})");
  WriteFile(tools, R"([{"name": "f"}, {"name": "g"}])");
  EXPECT_EQ(Length("--messages " + messages + " --tools " + tools), ::Length("22T1.5"));
  // As transformers: a member that is null is not there, and what a model thought goes by three names.
  Put("{{ messages[0] | tojson }}");
  WriteFile(messages, R"([{"role": "assistant", "content": null, "reasoning": "r"}])");
  EXPECT_EQ(Length("--messages " + messages, nullptr),
            ::Length(R"({"thinking": "r", "role": "assistant", "reasoning": "r", "reasoning_content": "r"})"));
  const char *bad[] = {"", "{", "5", "[5]", "{}", R"({"messages": 5})", R"([{"role": "\u0000"}])", "[]"};
  for (const char *text : bad) {
    WriteFile(messages, text);
    EXPECT_EQ(Length("--messages " + messages, nullptr), -1) << text;
    EXPECT_EQ(code_, strcmp(text, "[]") == 0 ? 2 : 3) << text << error_;
  }
  WriteFile(tools, "{}");
  EXPECT_EQ(Length("--tools " + tools), -1);
  EXPECT_NE(error_.find("no list of tools"), std::string::npos) << error_;
}

// The order in which transformers 5.24 looks.
TEST_F(Chat, TakesTheTemplateThatTransformersTakes) {
  const std::string tools = folder_ / "tools.json";
  WriteFile(tools, "[]");
  EXPECT_EQ(Length(), -1);
  EXPECT_EQ(code_, 3);
  EXPECT_NE(error_.find("the model has no chat template"), std::string::npos) << error_;
  Put("tokenizer_config.json", R"({"chat_template": "1"})");
  EXPECT_EQ(Length(), 1);
  Put("tokenizer_config.json",
      R"({"chat_template": [{"name": "default", "template": "12"}, {"name": "tool_use", "template": "123"}]})");
  EXPECT_EQ(Length(), 2);
  EXPECT_EQ(Length("--tools " + tools), 3);
  Put("tokenizer_config.json", R"({"chat_template": {"default": "12", "tool_use": "123"}})");
  EXPECT_EQ(Length("--tools " + tools), 3);
  Put("tokenizer_config.json", R"({"chat_template": [{"name": "rag", "template": "12"}]})");
  EXPECT_EQ(Length(), -1);
  EXPECT_NE(error_.find("none of them is the default"), std::string::npos) << error_;
  Put("tokenizer_config.json", R"({"chat_template": 5})");
  EXPECT_EQ(Length(), -1);
  Put("tokenizer_config.json", R"({"chat_template": "1"})");
  Put("1234");
  EXPECT_EQ(Length(), 4);
  EXPECT_EQ(Length("--tools " + tools), 4);
  Put("additional_chat_templates/tool_use.jinja", "12345");
  EXPECT_EQ(Length(), 4);
  EXPECT_EQ(Length("--tools " + tools), 5);
  Put("additional_chat_templates/default.jinja", "123456");
  EXPECT_EQ(Length(), 6);
  std::filesystem::remove(model_ + "/chat_template.jinja");
  std::filesystem::remove(model_ + "/additional_chat_templates/default.jinja");
  EXPECT_EQ(Length(), -1);  // not tokenizer_config.json's
}

// Tokens of one byte, since others would be new ones of the vocabulary; which is which shows by what is written for it.
TEST_F(Chat, NamesTheSpecialTokensOfTheTokenizersConfiguration) {
  Put("{{ '1' if bos_token == 'B' }}{{ '12' if bos_token == 'M' }}{{ '123' if eos_token == 'E' }}"
      "{{ '1234567' if sep_token == '|' }}{{ '12345678901' if pad_token is defined }}.");
  Put("tokenizer_config.json", R"({"bos_token": "B", "eos_token": {"content": "E"}, "pad_token": null})");
  EXPECT_EQ(Length(), 1 + 3 + 1) << error_;
  Put("special_tokens_map.json", R"({"bos_token": "M", "sep_token": "|"})");
  EXPECT_EQ(Length(), 2 + 3 + 7 + 1) << error_;
  Put("tokenizer_config.json", R"({"bos_token": "B", "added_tokens_decoder": {}})");
  EXPECT_EQ(Length(), 1 + 1) << error_;
}

TEST_F(Chat, RefusesABadTemplateByName) {
  struct {
    const char *text, *message;
  } cases[] = {{"{% for m in messages %}", "chat_template.jinja: line 1: 'for' has no 'endfor'"},
               {"\n{{ raise_exception('only \x1b[31mroles') }}", "line 2: the template says: only ?[31mroles"},
               {"{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", "more"},
               {"\xff", "not UTF-8"},
               {"", "no token"}};
  for (const auto &c : cases) {
    Put(c.text);
    auto start = std::chrono::steady_clock::now();
    EXPECT_EQ(Length(), -1) << c.text;
    EXPECT_EQ(code_, *c.text ? 3 : 2) << error_;
    EXPECT_NE(error_.find(c.message), std::string::npos) << error_;
    EXPECT_TRUE(Shows(error_));
    EXPECT_LT(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count(), 20);
  }
  Put(std::string("a\0b", 3));
  EXPECT_EQ(Length(), -1);
  EXPECT_NE(error_.find("NUL"), std::string::npos) << error_;
}

TEST_F(Chat, IsMentionedWhereATemplateIsNotUsed) {
  std::string args = "generate " + model_ + " --prompt hi --max-new-tokens 2";
  EXPECT_EQ(Nibble(args).err.find("chat"), std::string::npos);
  Put(kTemplate);
  std::string said = Nibble(args).err;
  EXPECT_NE(said.find("the model has a chat template; the prompt is put into it by --chat\n"), std::string::npos)
      << said;
  EXPECT_EQ(Nibble(args + " --quiet").err, "");
  EXPECT_EQ(Nibble(args + " --chat").err.find("chat template"), std::string::npos);
  Put("{% broken");
  EXPECT_EQ(Nibble(args).code, 0);  // a plain prompt does not need it
  for (const char *option : {"--system a", "--messages a", "--tools a"})
    EXPECT_EQ(Nibble(args + " " + option).code, 2) << option;
  EXPECT_EQ(Nibble("generate " + model_ + " --chat").code, 2);
}

// A pipe gets what the model says and nothing else.
TEST_F(Chat, PrintsTheAnswerOnly) {
  Put(kTemplate);
  CommandResult json = Generate("--json --ignore-eos"), text = Generate("--ignore-eos");
  EXPECT_EQ(text.out, Answers(json.out).at(0).text + "\n");
  EXPECT_EQ(text.err, "");
}

TEST_F(Chat, JsonHoldsNulsToo) {
  std::string args = "generate " + model_ + " --quiet --prompt a --max-new-tokens 1500 --temperature 3 --ignore-eos";
  CommandResult raw = Nibble(args), json = Nibble(args + " --json");
  size_t nuls = (size_t)std::count(raw.out.begin(), raw.out.end(), '\0'), escaped = 0;
  for (size_t at = 0; (at = json.out.find("\\u0000", at)) != std::string::npos; at += 6) escaped++;
  EXPECT_GT(nuls, 0u);
  EXPECT_EQ(escaped, nuls);
}

// What was read is not read again, and what comes of it is what comes of reading all of it.
TEST_F(Chat, KeepsTheConversation) {
  Put(kTemplate);
  std::vector<Answer> turns = Talk("hi\n\nand\n/reset\nhi\n");
  ASSERT_EQ(turns.size(), 3u) << error_;
  EXPECT_EQ(turns[0].prompt_tokens, ::Length("<user>hi\n<answer>"));
  EXPECT_LT(turns[1].prompt_tokens, ::Length("<answer>") + 20 + ::Length("\n<user>and\n<answer>"));
  EXPECT_EQ(turns[2].text, turns[0].text);
  std::string history = R"([{"role": "user", "content": "hi"}, {"role": "assistant", "content": )";
  cJSON *first = cJSON_CreateString(turns[0].text.c_str());
  char *quoted = cJSON_Print(first);
  WriteFile(folder_ / "history.json", history + quoted + "}]");
  cJSON_free(quoted);
  cJSON_Delete(first);
  CommandResult fresh =
      Nibble("generate " + model_ + " --chat --json --quiet --max-new-tokens 4 --prompt and --messages " +
             (folder_ / "history.json"));
  ASSERT_EQ(fresh.code, 0) << fresh.err;
  EXPECT_EQ(Answers(fresh.out).at(0).text, turns[1].text);
  EXPECT_GT(Answers(fresh.out).at(0).prompt_tokens, turns[1].prompt_tokens);
}

TEST_F(Chat, ObeysCommands) {
  Put(kTemplate);
  std::vector<Answer> turns = Talk("/system Be kind.\nhi\n/reset\nhi\n/nonsense\n/help\n/system\n/quit\nhi\n");
  ASSERT_EQ(turns.size(), 2u) << error_;
  EXPECT_EQ(code_, 0);
  EXPECT_EQ(turns[0].prompt_tokens, ::Length("<system>Be kind.\n<user>hi\n<answer>"));
  EXPECT_EQ(turns[1].text, turns[0].text);
  EXPECT_NE(error_.find("no command '/nonsense'"), std::string::npos) << error_;
  for (const char *name : {"/reset", "/system", "/help", "/quit", "Ctrl-C"})
    EXPECT_NE(error_.find(name), std::string::npos) << name;
}

TEST_F(Chat, EndsWhereThereIsNoRoom) {
  Put(kTemplate);
  EXPECT_EQ(Talk("hi\n", "--ctx 10").size(), 0u);
  EXPECT_EQ(code_, 2);
  EXPECT_NE(error_.find("the conversation has 17 tokens, and there is room for 10"), std::string::npos) << error_;
  Put("{{ raise_exception('no') }}");
  EXPECT_EQ(Talk("hi\n").size(), 0u);
  EXPECT_EQ(code_, 3);
  std::filesystem::remove(model_ + "/chat_template.jinja");
  Talk("hi\n");
  EXPECT_EQ(code_, 3);
  EXPECT_NE(error_.find("no chat template"), std::string::npos) << error_;
}

// Ctrl-C ends the answer and not the conversation; SIGTERM ends both.
TEST_F(Chat, StopsAnAnswerAtAnInterrupt) {
  model_ = folder_ / "deep";  // whose answer takes a while
  MakeByteModel(model_, 60);
  Put(kTemplate);
  for (int number : {SIGINT, SIGTERM}) {
    int lines[2];
    ASSERT_EQ(pipe(lines), 0);
    const std::string out = folder_ / "out", err = folder_ / "err";
    std::filesystem::remove(out);
    pid_t pid = fork();
    if (pid == 0) {
      dup2(lines[0], 0);
      close(lines[1]);
      std::string line = std::string("exec ") + kBinary + " chat " + model_ + " --ctx 2048 --seed 1 --temperature 3 >" +
                         out + " 2>" + err;
      execl("/bin/sh", "sh", "-c", line.c_str(), nullptr);
      _exit(127);
    }
    close(lines[0]);
    ASSERT_EQ(write(lines[1], "hi\n", 3), 3);
    for (int i = 0; i < 2000 && (!Exists(out) || ReadFile(out).size() < 8); i++)
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    kill(pid, number);
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
    if (number == SIGINT) {
      ASSERT_EQ(write(lines[1], "/help\n", 6), 6);
    }
    close(lines[1]);
    int status = 0;
    waitpid(pid, &status, 0);
    EXPECT_TRUE(WIFEXITED(status));
    EXPECT_EQ(WEXITSTATUS(status), number == SIGINT ? 0 : 128 + SIGTERM) << ReadFile(err);
    EXPECT_EQ(ReadFile(err).find("/quit") != std::string::npos, number == SIGINT) << ReadFile(err);
  }
}

}  // namespace
