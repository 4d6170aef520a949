#!/usr/bin/env python3
"""Writes tests/golden/chat/real.json: conversations, and what transformers' apply_chat_template makes of them with the
templates of real models. Of templates and texts there are hashes only: the templates are other people's. They come with
llama.cpp (models/templates), inside PyPI's source of llama-cpp-python, which scripts/get-llama-cpp fetches; the test
reads them there.

usage: make_real_chat.py FOLDER > tests/golden/chat/real.json"""
import copy
import datetime
import hashlib
import json
import logging
import pathlib
import sys

import transformers
from tokenizers import Tokenizer, models
from transformers.utils import chat_template_utils

logging.disable(logging.WARNING)
NOW = datetime.datetime(2026, 11, 29, 14, 5, 9)
TOKENS = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}


class Fixed(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return NOW


chat_template_utils.datetime = Fixed


def function(name, description, parameters, **more):
    return {"type": "function", "function": {"name": name, "description": description, "parameters": parameters, **more}}


def call(name, arguments, id=None):
    return {**({"id": id} if id else {}), "type": "function", "function": {"name": name, "arguments": arguments}}


def said(role, content, **more):
    return {"role": role, "content": content, **more}


def user(content):
    return said("user", content)


def system(content):
    return said("system", content)


def model(content, **more):
    return said("assistant", content, **more)


def tool(content, id, **more):
    return said("tool", content, tool_call_id=id, **more)


WEATHER = function("get_weather", "Get the weather of a city.", {
    "type": "object",
    "properties": {"city": {"type": "string", "description": "Name of the city <b>\"x\"</b>"},
                   "unit": {"type": "string", "enum": ["celsius", "fahrenheit"], "default": "celsius"},
                   "days": {"type": "integer", "minimum": 1},
                   "opts": {"type": "object", "properties": {"wind": {"type": "boolean"}}}},
    "required": ["city"]})
SEARCH = function("search", "Search — “the web”", {
    "type": "object",
    "properties": {"query": {"type": "string", "description": "What"},
                   "tags": {"type": "array", "items": {"type": "string"}, "description": "Tags"},
                   "ratio": {"type": ["number", "null"]}},
    "required": ["query", "tags"]}, **{"return": {"type": "string"}})
PLACES = [call("get_weather", {"city": "Paris"}, "abcdefghi"),
          call("search", {"query": "x", "tags": ["a", "b"], "ratio": None}, "jklmnopqr")]
ODD = {"query": "a\"b\\c\n\u2028\u007f", "tags": [], "ratio": 1.5, "n": 1e20, "m": -0.0, "k": 12345678901234567, "o": {},
       "z": None, "t": True, "e": 1e-7}

CONVERSATIONS = {
    "plain": {"messages": [user("What is the capital of France?")]},
    "system": {"messages": [system("You are terse."), user("Hi")]},
    "turns": {"messages": [user("Hi"), model("Hello! How can I help?"), user("  Tell me\na joke.  \n")]},
    "system and turns": {"messages": [system("Be kind.\n\n"), user("Hi"), model("Hello"), user("Bye"), model("See you."),
                                      user("?")]},
    "many turns": {"messages": [m for i in range(20) for m in (user(f"Question {i}"), model(f"Answer {i}"))] + [user("Last")]},
    "Unicode": {"messages": [system("Réponds en français — « oui »"), user("Ça va ? 你好 😀 <|im_end|> </s>"),
                             model("Très bien <think>hm</think> 'ok' \"q\" \\ \t"), user("ß ŉ İ ς")]},
    "ends with an answer": {"messages": [user("Count"), model("1 2 3")]},
    "thinking in the text": {"messages": [user("2+2?"), model("<think>\neasy\n</think>\n\n4"), user("3+3?")]},
    "reasoning": {"messages": [user("2+2?"), model("4", reasoning_content="It is easy."), user("And 3+3?"),
                               model("6", thinking="Easy too.")]},
    "tools": {"messages": [user("Weather in Paris?")], "tools": [WEATHER, SEARCH]},
    "tools and system": {"messages": [system("Use tools."), user("Weather in Paris?")], "tools": [WEATHER]},
    "a call": {"messages": [system("Use tools."), user("Weather in Paris?"),
                            model("", tool_calls=[call("get_weather", {"city": "Paris", "days": 3, "opts": {"wind": True}},
                                                       "abc123def")]),
                            tool("{\"temp\": 21.5}", "abc123def", name="get_weather"), model("It is 21.5."), user("Thanks")],
               "tools": [WEATHER, SEARCH]},
    "two calls": {"messages": [user("Weather in Paris?"), model(None, tool_calls=PLACES),
                               tool("21", "abcdefghi", name="get_weather"), tool("found", "jklmnopqr", name="search")],
                  "tools": [WEATHER, SEARCH]},
    "a call in text": {"messages": [user("Weather?"),
                                    model("Let me see.", tool_calls=[call("get_weather", "{\"city\": \"Paris\"}", "123456789")]),
                                    tool("21", "123456789")], "tools": [WEATHER]},
    "a result in parts": {"messages": [user("Weather?"), model("", tool_calls=[call("get_weather", {"city": "Zürich"}, "123456789")]),
                                       tool([{"type": "text", "text": "21"}], "123456789", name="get_weather")],
                          "tools": [WEATHER]},
    "odd arguments": {"messages": [user("x"), model("", tool_calls=[call("search", ODD)])], "tools": [SEARCH]},
    "parts": {"messages": [system([{"type": "text", "text": "Sys."}]),
                           user([{"type": "text", "text": "What is this?"}, {"type": "image", "image": "http://x/y.png"},
                                 {"type": "text", "text": " And this?"}]),
                           model([{"type": "text", "text": "A cat."}]), user([{"type": "text", "text": "Sure?"}])]},
    "documents": {"messages": [user("Do cats purr?")],
                  "documents": [{"title": "Cats", "text": "Cats purr."}, {"title": "Dogs", "text": "Dogs bark.", "contents": "c"}]},
    "developer": {"messages": [said("developer", "Dev."), user("Hi")]},
    "a role of its own": {"messages": [said("alien", "Beep."), user("Hi")]},
    "two users": {"messages": [user("One"), user("Two")]},
    "begins with an answer": {"messages": [model("Hello"), user("Hi")]},
    "without content": {"messages": [{"role": "user"}]},
    "not thinking": {"messages": [user("Hi")], "enable_thinking": False},
    "settings": {"messages": [system("x"), user("Hi")], "enable_thinking": True, "thinking": True, "reasoning_effort": "high",
                 "date_string": "26 Jul 2024", "builtin_tools": ["code_interpreter", "browser"]},
}


def digest(text):
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def rendered(tokenizer, conversation, add_prompt):
    arguments = copy.deepcopy(conversation)
    try:
        return digest(tokenizer.apply_chat_template(arguments.pop("messages"), add_generation_prompt=add_prompt,
                                                    tokenize=False, **arguments))
    except Exception:  # a template may refuse a conversation, in whatever way
        return "fails"


def main(folder):
    templates = {}
    for path in sorted(pathlib.Path(folder).glob("*.jinja")):
        text = path.read_text(encoding="utf-8")
        tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE()), chat_template=text, **TOKENS)
        outputs = [rendered(tokenizer, c, prompt) for c in CONVERSATIONS.values() for prompt in (False, True)]
        if outputs.count("fails") == len(outputs):  # it wants variables that no tokenizer has
            print(path.name, "makes nothing of any conversation", file=sys.stderr)
            continue
        templates[path.name] = {"sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "outputs": outputs}
    json.dump({"made_by": f"scripts/golden/make_real_chat.py, transformers {transformers.__version__}",
               "now": NOW.strftime("%Y-%m-%dT%H:%M:%S"), "tokens": TOKENS,
               "conversations": [{"name": name, **c} for name, c in CONVERSATIONS.items()], "templates": templates},
              sys.stdout, indent=1)
    print()


main(sys.argv[1])
