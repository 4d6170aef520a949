#!/usr/bin/env python3
"""Writes tests/golden/chat/features.json: small templates, one or a few a feature of the language, with what
transformers makes of them; all are this project's own. The templates of real models are compared by
scripts/chat-templates, which takes them from where they are published.

usage: make_chat.py > tests/golden/chat/features.json"""
import copy
import datetime
import json
import sys

import jinja2
import transformers
from transformers.utils import chat_template_utils

NOW = datetime.datetime(2026, 11, 29, 14, 5, 9)


class Fixed(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return NOW


chat_template_utils.datetime = Fixed

VARIABLES = {
    "messages": [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "  Hällo <b>\"you\"</b>\n\tand 'me'  ", "n": 3},
        {"role": "assistant", "content": "Ωmega 😀 ŉ ßtraße", "parts": [{"type": "text", "text": "a"}, {"type": "image"}]},
        {"role": "user", "content": ""},
    ],
    "tools": [{"type": "function", "function": {"name": "f", "parameters": {"x": {"type": "integer"}, "A": [], "b": {}}}}],
    "documents": None,
    "add_generation_prompt": True,
    "bos_token": "<s>",
    "d": {"b": 1, "a": 2.5, "C": None, "items": "an item", "z": [1, [2, (3)], {"k": "v"}]},
    "l": [3, 1, 2, "x", None, True, 1.5],
    "n": [5, 3, 9, 1],
    "w": ["b", "A", "c", "a", "B"],
    "f": [0.1, 1.0, 1e16, 1e15, 123456789.123, 1e-4, 1e-5, -0.0, 2.5, 1e300, 5e-324, 100000.0],
    "s": "The quick (brown) fox-jumps over [the] lazy dog's_back. ĲSSEL ΑΣ ΑΣΑ",
    "u": "a\u2028b\x85c\x1cd\u200be\xadf\u3000g\ue000\U000e0001",
    "empty": "",
    "big": 9007199254740993,
}

# (what is shown, templates)
FEATURES = {
    "text": ["", "plain", "a\n", "a\n\n", "a\r\nb\rc\n", "{{ 'a' }}\n", "{ { %} }} #} {", "{{ '{{' }}{{ '%}' }}"],
    "white space": [
        "a\n  {% if true %}\n b \n  {% endif %}\nc",
        "a\n  {%- if true -%}\n b \n  {%- endif -%}\nc",
        "a\n  {%+ if true +%}\n b \n  {%+ endif +%}\nc",
        "  {% set x = 1 %}\n  {{ x }}\n  {{- x }} {{ x -}}  \n b",
        "a {% if true %}  b{% endif %}\t{# c #}\n  {# d #}\n  {#- e -#}\n f {#+ g +#}\n h",
        "{%- for m in n -%} {{ m }} {%- endfor -%}\n x",
        "a \u3000{%- if true %}\u2003b{% endif -%}\u2028 c",
        "{% if true %}\n\n  x{% endif %}\n\n  {% if true %}y{% endif %}\n",
        "x{{ 1 }}\n   {% if true %}y{% endif %}",
        "{# a comment {{ with }} {% things %} #}b{#-#}c{#- -#} d",
        "{{ {'a': {'b': 1}} }}{{ {'a': 1}['a'] -}} x",
        "{%if true%}a{%endif%}{%-if true-%} b {%-endif-%}",
        " \n {% raw %}\n {{ a }} {% b %} {# c #}\n {% endraw %}\n d",
        "a {%- raw -%}  {{ x }}  {%- endraw -%}  b",
        "{%raw%}{{{%endraw%}",
        "{{ 'a' -}}\n\n{{ 'b' }}",
    ],
    "literals": [
        "{{ 'a\\nb\\t\\'\\\"\\\\ \\x41\\u00e9\\U0001F600\\101\\q\\\nz' }}",
        "{{ \"it's\" ~ 'say \"x\"' 'joined' \"too\" }}",
        "{{ 1 }} {{ 1_000 }} {{ 0x1F }} {{ 0b101 }} {{ 0o17 }} {{ 00 }} {{ 1.5 }} {{ 1e3 }} {{ 1.5e-7 }} {{ 2E+2 }} {{ 1_0.5_0 }}",
        "{{ true }} {{ True }} {{ false }} {{ none }} {{ None }} {{ [] }} {{ {} }} {{ () }} {{ (1,) }} {{ (1, 2) }} {{ 1, 2 }}",
        "{{ [1, 'a', none, true, 1.5, [2], {'k': (1,)}] }} {{ {'a': 1, 2: 'b', none: [], 1.5: true,} }}",
        "{{ {'a': 1, 'b': 2, 'a': 3} }} {{ {1: 'a', true: 'b', 1.0: 'c'} }}",
        "{{ f }}",
        "{{ l }} {{ d }} {{ messages }} {{ u }} {{ [u] }}",
        "{{ [\"it's\", 'say \"x\"', \"both ' and \\\"\", 'back\\\\slash', 'tab\\t', '\\x7f\\x00é'] }}",
        "{{ big }} {{ big + 1 }} {{ 9223372036854775807 }} {{ -9223372036854775807 - 1 }}",
    ],
    "arithmetic": [
        "{{ 7 + 2 }} {{ 7 - 2 }} {{ 7 * 2 }} {{ 7 / 2 }} {{ 7 // 2 }} {{ 7 % 2 }} {{ 7 ** 2 }} {{ 2 ** -1 }} {{ 4 / 2 }}",
        "{{ -7 // 2 }} {{ -7 % 2 }} {{ 7 // -2 }} {{ 7 % -2 }} {{ -7 // -2 }} {{ 7.5 // 2 }} {{ -7.5 % 2 }} {{ 7.5 % -2 }}",
        "{{ 1 + 2 * 3 ** 2 }} {{ (1 + 2) * 3 }} {{ -2 ** 2 }} {{ 2 ** 3 ** 2 }} {{ - 3 }} {{ +3 }} {{ --3 }} {{ 10 - 3 - 2 }}",
        "{{ true + true }} {{ true * 3 }} {{ 1 + 1.0 }} {{ 0.1 + 0.2 }} {{ 1 / 3 }} {{ 2 ** 0.5 }} {{ 1e308 * 10 }}",
        "{{ 'a' + 'b' }} {{ 'ab' * 3 }} {{ 3 * 'ab' }} {{ 'x' * -1 }}| {{ [1] + [2] }} {{ [1] * 2 }} {{ (1,) + (2,) }}",
        "{{ 1 ~ 'a' ~ none ~ 1.5 ~ [1] ~ undefined_name ~ true }} {{ 2 * 3 ~ 4 * 5 }}",
        "{{ '%s and %d and %5.2f|%-5s|%05d|%x|%r|%%|%c' % ('a', 3, 2.5, 'b', 42, 255, 'q', 'z') }}",
        "{{ '%s' % 'a' }} {{ '%s' % 1 }} {{ '%s' % none }} {{ '%(a)s-%(b)d' % {'a': 1, 'b': 2} }} {{ '%+d % d %e %g' % (1, 2, 1234.5, 0.00001) }}",
    ],
    "comparison": [
        "{{ 1 == 1.0 }} {{ 1 == true }} {{ 'a' == 'a' }} {{ [1, 2] == [1, 2] }} {{ (1,) == [1] }} {{ {'a': 1} == {'a': 1.0} }} {{ none == false }}",
        "{{ 1 < 2 }} {{ 2 <= 2 }} {{ 'a' < 'b' }} {{ 'Z' < 'a' }} {{ [1, 2] < [1, 3] }} {{ 1 < 2 < 3 }} {{ 1 < 3 < 2 }} {{ 3 > 2 >= 2 != 1 }}",
        "{{ 'a' in 'cat' }} {{ 'x' not in 'cat' }} {{ 1 in [1, 2] }} {{ 'b' in d }} {{ 3 in d.z }} {{ '' in 'a' }} {{ 1 in undefined_name }}",
        "{{ not true }} {{ not '' }} {{ true and 'a' }} {{ '' or 'b' }} {{ 0 and 1 }} {{ not 1 == 2 }} {{ not 'a' in 'b' }} {{ 1 and 0 or 3 }}",
        "{{ 'yes' if true else 'no' }} {{ 'yes' if false else 'no' }} [{{ 'yes' if false }}] {{ 1 if 0 else 2 if 0 else 3 }} {{ ('a' if true) ~ 'b' }}",
        "{{ undefined_name == other_undefined }} {{ undefined_name == none }} {{ undefined_name is defined }} {{ not undefined_name }}",
        "{{ 1 == '1' }} {{ none in [none] }} {{ 2 in (1, 2) }} {{ 'k' in d.z[2] }} {{ range(3) == range(0, 3) }}",
    ],
    "items": [
        "{{ l[0] }} {{ l[-1] }} {{ l[99] }} {{ d['b'] }} {{ d.b }} {{ d.nothing }} {{ d['items'] }} {{ s[0] }} {{ s[-1] }} {{ l.0 }} {{ d.z.1.0 }}",
        "{{ n[1:] }} {{ n[:2] }} {{ n[-2:] }} {{ n[::-1] }} {{ n[::2] }} {{ n[3:0:-1] }} {{ n[:] }} {{ n[5:] }} {{ n[-99:99] }} {{ n[1:-1] }}",
        "{{ s[4:9] }} {{ s[::-1] }} {{ s[-4:] }} {{ s[:3] }} {{ messages[2].content[:7] }} {{ messages[2]['content'][::-2] }}",
        "{{ messages[1:] | length }} {{ messages[0]['role'] }} {{ messages[-1].role }} {{ (1, 2, 3)[1:] }} {{ range(10)[2:8:3] | list }}",
        "{{ messages[0].content.upper() }} {{ d.items() | length }} {{ d.keys() }} {{ d.values() }} {{ d.items() }} {{ d.get('b') }} {{ d.get('q') }} {{ d.get('q', 5) }}",
        "{{ 'abc'['upper']() }} {{ d['get']('b') }} {{ d[none] }} {{ d[[]] }} {{ l['x'] }} {{ s.nothing }}",
        "{{ 5['x'] }} {{ none.x }} {{ true.x }} {{ 'a'.0 }}",
    ],
    "if": [
        "{% if 0 %}a{% elif '' %}b{% elif [] %}c{% elif {} %}d{% elif none %}e{% elif undefined_name %}f{% else %}g{% endif %}",
        "{% if 1 %}a{% elif 1 %}b{% endif %}{% if 0.0 %}x{% endif %}{% if ' ' %}y{% endif %}{% if (0,) %}z{% endif %}",
        "{% if 1 %}{% if 0 %}a{% else %}b{% endif %}{% else %}c{% endif %}",
        "{% if d.b is defined and d.b == 1 %}a{% endif %}{% if d.q %}b{% endif %}{% if 1: %}c{% endif %}",
    ],
    "for": [
        "{% for x in n %}{{ loop.index }}/{{ loop.index0 }}/{{ loop.revindex }}/{{ loop.revindex0 }}/{{ loop.first }}/{{ loop.last }}/{{ loop.length }}={{ x }};{% endfor %}",
        "{% for x in [] %}a{% else %}none{% endfor %}{% for x in undefined_name %}a{% else %}none{% endfor %}",
        "{% for x in n %}{{ loop.previtem }}<{{ x }}<{{ loop.nextitem }} {% endfor %}{% for x in n %}{{ loop.cycle('a', 'b') }}{% endfor %}",
        "{% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %}{% for k in d %}{{ k }}{% endfor %}{% for c in 'Hé😀' %}[{{ c }}]{% endfor %}",
        "{% for x in n if x > 2 %}{{ loop.index }}:{{ x }} {% else %}no{% endfor %}{% for x in n if x > 99 %}x{% else %}no{% endfor %}",
        "{% for x in n %}{% if x == 9 %}{% break %}{% endif %}{% if x == 3 %}{% continue %}{% endif %}{{ x }}{% endfor %}",
        "{% for x in n %}{% for y in w %}{{ loop.index }}{{ x }}{{ y }}{% if loop.index == 2 %}{% break %}{% endif %}{% endfor %}|{{ loop.index }}{% endfor %}",
        "{% for a, (b, c) in [(1, (2, 3)), [4, [5, 6]]] %}{{ a }}{{ b }}{{ c }}{% endfor %}{% for i in range(3) %}{{ i }}{% endfor %}{% for i in range(5, 0, -2) %}{{ i }}{% endfor %}",
        "{% set x = 1 %}{% for i in n %}{% set x = x + i %}{{ x }} {% endfor %}{{ x }}",
        "{% for i in n %}{% if loop.first %}{% set y = i %}{% endif %}[{{ y }}]{% endfor %}[{{ y }}]",
        "{% for x in [1, 1, 2, 2, 1] %}{% if loop.changed(x) %}{{ x }}{% endif %}{% endfor %}{{ loop }}",
        "{% for x in [[1, [2, [3]]], 4] recursive %}{{ loop.depth }}{{ loop.depth0 }}{% if x is iterable %}<{{ loop(x) }}>{% else %}{{ x }}{% endif %}{% endfor %}",
        "{% for x in 1, 2, 3 %}{{ x }}{% endfor %}{% for x in (4, 5) %}{{ x }}{% endfor %}{% for (a, b) in [(1, 2)] %}{{ a }}{{ b }}{% endfor %}",
        "{% for m in messages %}{{ m['role'] }}{{ '' if loop.last else ',' }}{% endfor %}{% for x in n | sort %}{{ x }}{% endfor %}{{ x }}",
    ],
    "set": [
        "{% set a = 1 %}{% set b, c = 2, 3 %}{% set d2 = 1, 2 %}{{ a }}{{ b }}{{ c }}{{ d2 }}",
        "{% set x %}a {{ 1 + 1 }}\n{% endset %}[{{ x }}]{% set y | upper | trim %} abc {% endset %}[{{ y }}]",
        "{% set ns = namespace(a=1, b='x') %}{% for i in n %}{% set ns.a = ns.a + i %}{% endfor %}{{ ns.a }}{{ ns.b }}{{ ns.c }}{{ ns }}",
        "{% set ns = namespace({'a': 1}, b=2) %}{% set ns.c = [1] %}{{ ns.a }}{{ ns['b'] }}{{ ns.c }}{% set ns.c = ns.c + [2] %}{{ ns.c }}",
        "{% set x = 5 %}{% if true %}{% set x = 6 %}{% endif %}{{ x }}{% set messages = messages[1:] %}{{ messages | length }}",
        "{% with a = 1, b = 2 %}{{ a }}{{ b }}{% set a = 3 %}{{ a }}{% endwith %}[{{ a }}]{% with %}x{% endwith %}",
        "{% set bos_token = 'other' %}{{ bos_token }}{% set range = 5 %}{{ range }}",
    ],
    "macro": [
        "{% macro m(a, b=2, c='x' ~ b) %}[{{ a }}|{{ b }}|{{ c }}]{% endmacro %}{{ m(1) }}{{ m(1, 3) }}{{ m(b=5, a=4) }}{{ m() }}{{ m(1, c=none) }}",
        "{% macro f(n) %}{{ n }}{% if n > 0 %}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(5) }}{% set x = f(1) %}{{ x | length }}{{ x is string }}",
        "{% macro v() %}{{ varargs }}{{ kwargs }}{% endmacro %}{{ v(1, 2, a=3) }}{{ v() }}{{ v(*[1, 2], **{'k': 'v'}) }}",
        "{% macro c(t) %}<{{ t }}>{{ caller() }}</{{ t }}>{% endmacro %}{% call c('b') %}inner {{ bos_token }}{% endcall %}",
        "{% macro each(l) %}{% for x in l %}{{ caller(x, loop.index) }};{% endfor %}{% endmacro %}{% call(x, i) each(w) %}{{ i }}{{ x }}{% endcall %}",
        "{% set outer = 'o' %}{% macro m() %}{{ outer }}{{ later }}{% set outer = 'i' %}{{ outer }}{% endmacro %}{% set later = 'l' %}{{ m() }}{{ outer }}",
        "{% macro a() %}{{ b() }}{% endmacro %}{% macro b() %}B{% endmacro %}{{ a() }}{{ a.name }}{{ a.arguments }}",
        "{%- macro sp(x) -%}\n  {{- x }}\n{%- endmacro -%}\n[{{ sp(1) }}]",
        "{% for i in n %}{% macro g() %}{{ i }}{% endmacro %}{{ g() }}{% endfor %}",
        "{% macro m(a) %}{{ a is defined }}{{ a }}{% endmacro %}{{ m() }}{{ m(undefined_name) }}{{ m('') }}",
    ],
    "blocks": [
        "{% filter upper %}abc {{ bos_token }}{% endfilter %}{% filter trim | replace('a', 'b') %} aXa {% endfilter %}",
        "a{% generation %}b{% set q = 1 %}{{ q }}{% endgeneration %}c{{ q }}",
        "{% for m in messages %}{% generation %}{{ m.role }}{% endgeneration %},{% endfor %}",
        "{% block title %}x{{ bos_token }}{% endblock %}{% block other %}y{% endblock other %}{% print 1 + 1 %}",
    ],
    "functions": [
        "{{ strftime_now('%Y-%m-%d %H:%M:%S %d %b %B %a %A %j %y %p %I %% %e') }} {{ strftime_now('') }}",
        "{{ range(5) }} {{ range(1, 10, 3) }} {{ range(5) | list }} {{ range(0) | list }} {{ range(-3, 3) | sum }} {{ range(3) | length }}",
        "{{ dict(a=1, b=2) }} {{ dict([('a', 1), ['b', 2]]) }} {{ dict({'x': 1}, y=2) }} {{ dict() }} {{ namespace(a=[]) }}",
        "{{ namespace is defined }} {{ raise_exception is callable }} {{ 'a' is callable }} {{ range is defined }}",
    ],
    "tests": [
        "{{ d is mapping }} {{ l is mapping }} {{ l is sequence }} {{ 'a' is sequence }} {{ 5 is sequence }} {{ d is sequence }} {{ none is sequence }} {{ undefined_name is sequence }}",
        "{{ l is iterable }} {{ 'a' is iterable }} {{ 5 is iterable }} {{ d.items() is iterable }} {{ none is iterable }} {{ range(2) is iterable }} {{ (n | map('abs')) is iterable }}",
        "{{ 1 is number }} {{ 1.5 is number }} {{ true is number }} {{ '1' is number }} {{ 1 is integer }} {{ true is integer }} {{ 1.0 is integer }} {{ 1.0 is float }} {{ true is boolean }} {{ 1 is boolean }}",
        "{{ none is none }} {{ 0 is none }} {{ none is not none }} {{ d.q is none }} {{ d.q is undefined }} {{ d.C is defined }} {{ d.C is none }} {{ 'a' is string }} {{ 1 is not string }}",
        "{{ true is true }} {{ 1 is true }} {{ false is false }} {{ 0 is false }} {{ 3 is odd }} {{ 4 is even }} {{ 9 is divisibleby 3 }} {{ 9 is divisibleby(2) }}",
        "{{ 1 is eq 1 }} {{ 1 is equalto(2) }} {{ 1 is ne 2 }} {{ 1 is lt 2 }} {{ 1 is ge 1 }} {{ 3 is gt(2) }} {{ 2 is le 2 }} {{ 1 is in [1, 2] }} {{ 3 is not in [1, 2] }} {{ 'a' is in 'abc' }}",
        "{{ 'abc' is lower }} {{ 'ABC' is upper }} {{ 'aBc' is lower }} {{ '123' is lower }} {{ none is sameas none }} {{ 1 is sameas true }} {{ 'upper' is filter }} {{ 'defined' is test }} {{ 'nope' is filter }}",
        "{{ 'a' | safe is escaped }} {{ 'a' is escaped }} {{ 1 is defined and 2 is number or 3 is string }} {{ not 1 is string }}", "{% raw %}", "a{#", "a{#-",
    ],
    "filters of text": [
        "{{ s | upper }} {{ s | lower }} {{ s | title }} {{ s | capitalize }} {{ 'ǆ ŉ ß ﬁ' | upper }} {{ 'İ' | lower }} {{ 'ﬁx ǆx' | title }} {{ 'ΌΣΟΣ ΣΑΣ. Σ' | lower }}",
        "[{{ messages[1].content | trim }}] [{{ '  a ' | trim }}] [{{ 'xxaxx' | trim('x') }}] [{{ '\\u3000a\\x1c' | trim }}] [{{ none | trim }}] [{{ 5 | trim }}]",
        "{{ 'a-b-a' | replace('a', 'x') }} {{ 'aaa' | replace('a', 'b', 2) }} {{ 'abc' | replace('', '-') }} {{ 12.5 | replace('.', ',') }}",
        "{{ '<a href=\"x\">&\\'' | escape }} {{ '<' | e }} {{ '<' | safe | e }} {{ '<' | escape | forceescape }} {{ ('<' | safe) + '<' }} {{ '>' + ('<' | safe) }} {{ ('<' | safe) ~ '<' }}",
        "{{ 'a\\nb\\n\\nc' | indent }}|{{ 'a\\nb\\n\\nc' | indent(2, true) }}|{{ 'a\\nb\\n\\nc' | indent(2, blank=true) }}|{{ 'a\\nb' | indent('>> ', first=true) }}|{{ '' | indent }}|{{ 'a\\n' | indent(3) }}",
        "{{ 'foo bar baz qux' | truncate(9) }} {{ 'foo bar baz qux' | truncate(9, true) }} {{ 'foo bar baz qux' | truncate(11) }} {{ 'foo bar baz' | truncate(9, false, '..', 0) }}",
        "{{ 'a b, c_d 3' | wordcount }} [{{ 'ab' | center(6) }}] {{ 'a b/ü&=' | urlencode }} {{ {'a b': 'c&d', 'e': 1} | urlencode }} {{ '%s-%d' | format('a', 3) }} {{ '%(x)s' | format(x=1) }}",
        "{{ 5 | string }} {{ [1] | string }} {{ none | string }} {{ 'x' | string is string }} {{ 1.0 | string }} {{ undefined_name | string }}|{{ true | upper }}",
    ],
    "filters of numbers": [
        "{{ '42' | int }} {{ '42.9' | int }} {{ 'x' | int }} {{ 'x' | int(7) }} {{ 3.99 | int }} {{ -3.99 | int }} {{ true | int }} {{ ' 12 ' | int }} {{ '1_000' | int }} {{ '0x1A' | int(base=16) }} {{ 'ff' | int(0, 16) }} {{ none | int }} {{ '-5' | int }} {{ [] | int }}",
        "{{ '1.5' | float }} {{ 'x' | float }} {{ 'x' | float(2) }} {{ 3 | float }} {{ '1e3' | float }} {{ 'inf' | float }} {{ ' 2 ' | float }} {{ none | float }}",
        "{{ -5 | abs }} {{ -5.5 | abs }} {{ 2.5 | round }} {{ 3.5 | round }} {{ 2.675 | round(2) }} {{ 42.55 | round(1) }} {{ 42.55 | round(1, 'floor') }} {{ 42.1 | round(method='ceil') }} {{ 7 | round }} {{ 1234 | round(-2) }} {{ 42.5 | round | int }}",
        "{{ 1 | filesizeformat }} {{ 999 | filesizeformat }} {{ 1500 | filesizeformat }} {{ 1048576 | filesizeformat(true) }} {{ n | sum }} {{ n | min }} {{ n | max }} {{ w | min }} {{ w | max }} {{ [] | max }} {{ n | sum(start=10) }}",
    ],
    "filters of lists": [
        "{{ n | first }} {{ n | last }} {{ [] | first }} {{ n | length }} {{ n | count }} {{ 'héé' | length }} {{ d | length }} {{ undefined_name | length }} {{ 'abc' | first }} {{ 'abc' | last }} {{ d | first }}",
        "{{ w | join }} {{ w | join(', ') }} {{ l | join('|') }} {{ messages | join(',', attribute='role') }} {{ 'abc' | join('-') }} {{ d | join(' ') }} {{ [] | join(',') }}",
        "{{ n | sort }} {{ n | sort(reverse=true) }} {{ w | sort }} {{ w | sort(case_sensitive=true) }} {{ messages | sort(attribute='role') | map(attribute='role') | list }} {{ [(2, 'a'), (1, 'b'), (1, 'a')] | sort }}",
        "{{ w | unique | list }} {{ w | unique(true) | list }} {{ [1, 2, 1.0, true] | unique | list }} {{ messages | map(attribute='role') | unique | join(',') }} {{ n | reverse | list }} {{ 'abc' | reverse }}",
        "{{ d | dictsort }} {{ {'b': 2, 'A': 3, 'c': 1} | dictsort }} {{ {'b': 2, 'A': 3} | dictsort(true) }} {{ {'b': 2, 'A': 3} | dictsort(by='value') }} {{ {'b': 2, 'A': 3} | dictsort(reverse=true) }}",
        "{{ messages | selectattr('role', 'equalto', 'user') | list | length }} {{ messages | selectattr('n') | list }} {{ messages | selectattr('n', 'defined') | list | length }} {{ messages | rejectattr('role', 'in', ['user', 'system']) | map(attribute='role') | list }}",
        "{{ n | select('odd') | list }} {{ n | reject('gt', 4) | list }} {{ l | select('string') | list }} {{ l | select | list }} {{ ['', 'a', none] | reject | list }}",
        "{{ w | map('upper') | list }} {{ messages | map(attribute='content') | map('trim') | join('/') }} {{ messages | map(attribute='n', default=0) | list }} {{ [[1, 2], [3]] | map('first') | list }} {{ n | map('round', 1) | list }} {{ d | map('upper') | join }}",
        "{{ n | map('string') | join('+') }} {% if (n | select('gt', 99)) %}generators are true{% endif %} {% set g = n | map('abs') %}{{ g | list }}{{ g | list }}{{ g | first }}{% set h = n | map('abs') %}{{ h | first }}{{ h | list }}",
        "{{ n | batch(3) | list }} {{ n | batch(3, 0) | list }} {{ n | slice(3) | list }} {{ n | slice(3, 'x') | list }} {{ 'abc' | list }} {{ d | list }} {{ d.items() | list }} {{ range(3) | list }} {{ (1, 2) | list }}",
        "{{ d | items | list }} {{ undefined_name | items | list }} {% for k, v in d | items %}{{ k }}{% endfor %} {% for role, ms in messages | groupby('role') %}{{ role }}:{{ ms | length }} {% endfor %}",
        "{{ undefined_name | default('x') }} {{ '' | default('x') }} {{ '' | default('x', true) }} {{ none | default('x') }} {{ none | d('x', boolean=true) }} {{ d.q | default([]) | length }} {{ undefined_name | default }} {{ d | attr('get') is callable }}",
    ],
    "json": [
        "{{ d | tojson }} {{ messages | tojson }} {{ l | tojson }} {{ f | tojson }}",
        "{{ tools | tojson(indent=2) }} {{ d | tojson(indent=4) }} {{ [] | tojson(indent=2) }} {{ {} | tojson(indent=2) }} {{ d | tojson(indent=0) }}",
        "{{ messages[2] | tojson(ensure_ascii=true) }} {{ u | tojson }} {{ u | tojson(true) }} {{ '\\\\ \" \\b\\f\\n\\r\\t\\x01\\x7f/<>&\\'' | tojson }}",
        "{{ d | tojson(separators=(',', ':')) }} {{ {'b': 1, 'a': {'d': 1, 'c': 2}} | tojson(sort_keys=true) }} {{ d | tojson(indent='\\t', separators=(', ', ' = ')) }}",
        "{{ (1, 2) | tojson }} {{ {1: 'a', none: 2, true: 3, 1.5: 4} | tojson }} {{ 'a' | tojson | length }} {{ ['<'] | tojson | safe }} {{ 1e400 | tojson if false else 1e16 | tojson }} {{ big | tojson }}",
    ],
    "methods": [
        "[{{ '  a ' .strip() }}] [{{ '  a '.lstrip() }}] [{{ '  a '.rstrip() }}] [{{ 'xyax'.strip('xy') }}] [{{ 'xyax'.lstrip('xy') }}] [{{ 'xyax'.rstrip('x') }}] [{{ 'éaé'.strip('é') }}]",
        "{{ 'a,b,,c'.split(',') }} {{ ' a  b '.split() }} {{ 'a b c'.split(' ', 1) }} {{ 'a  b c '.split(none, 1) }} {{ 'a,b,c'.rsplit(',', 1) }} {{ ' a b  c '.rsplit(none, 1) }} {{ ''.split() }} {{ ''.split(',') }} {{ 'a<x>b<x>c'.split('<x>')[-1] }}",
        "{{ 'abc'.startswith('ab') }} {{ 'abc'.endswith('bc') }} {{ 'abc'.startswith(('x', 'a')) }} {{ 'abc'.startswith('b', 1) }} {{ 'abc'.endswith('b', 0, 2) }} {{ 'abc'.startswith('') }} {{ 'a'.endswith('abc') }}",
        "{{ 'aXbX'.replace('X', '--') }} {{ 'aXbX'.replace('X', '', 1) }} {{ 'abc'.replace('', '.') }} {{ ''.replace('', 'x') }} {{ 'aaa'.replace('aa', 'b') }}",
        "{{ 'ab'.upper() }} {{ 'AB'.lower() }} {{ 'they\\'re bill\\'s'.title() }} {{ 'ABC def'.capitalize() }} {{ 'aB'.swapcase() }} {{ ', '.join(['a', 'b']) }} {{ '-'.join('abc') }} {{ ','.join(d) }}",
        "{{ 'hello'.find('l') }} {{ 'hello'.rfind('l') }} {{ 'hello'.find('z') }} {{ 'héllo'.find('l') }} {{ 'hello'.find('l', 3) }} {{ 'hello'.index('e') }} {{ 'hello'.count('l') }} {{ 'aaa'.count('aa') }} {{ 'ab'.count('') }}",
        "{{ 'a=b=c'.partition('=') }} {{ 'a=b=c'.rpartition('=') }} {{ 'abc'.partition('=') }} {{ 'abc'.rpartition('=') }} {{ 'prefix'.removeprefix('pre') }} {{ 'suffix'.removesuffix('fix') }} {{ 'x'.removeprefix('y') }}",
        "[{{ 'a'.ljust(3) }}] [{{ 'a'.rjust(3, '*') }}] [{{ 'ab'.center(5) }}] [{{ 'abc'.center(6, '-') }}] {{ '42'.zfill(5) }} {{ '-42'.zfill(5) }} {{ 'a\\nb\\r\\nc\\x0bd'.splitlines() }} {{ 'a\\n\\nb\\n'.splitlines(true) }}",
        "{{ 'abc'.isalpha() }} {{ '12'.isdigit() }} {{ '²'.isdigit() }} {{ '²'.isdecimal() }} {{ '½'.isnumeric() }} {{ 'a1'.isalnum() }} {{ ' \\t'.isspace() }} {{ ''.isspace() }} {{ 'abc'.islower() }} {{ 'ABC'.isupper() }} {{ 'Ab Cd'.istitle() }} {{ 'é'.isascii() }} {{ 'a\\n'.isprintable() }}",
        "{{ '{} {}'.format(1, 'a') }} {{ '{1} {0}'.format(1, 'a') }} {{ '{x} {y.b} {y[b]} {z[1]}'.format(x=1, y=d, z=n) }} {{ '{{}}'.format() }} {{ '{!r} {!s}'.format('a', 'b') }}",
        "{{ '{:5}|{:<5}|{:>5}|{:^5}|{:*^7}|{:05d}|{:+d}|{:,}|{:_}|{:x}|{:#x}|{:b}|{:c}'.format('a', 'b', 'c', 'd', 'e', 42, 5, 1234567, 1234567, 255, 255, 5, 65) }}",
        "{{ '{:.2f}|{:8.3f}|{:e}|{:g}|{:%}|{:.1%}|{:.3}|{:>6}|{:,.2f}'.format(3.14159, 2.5, 1234.5, 0.00001, 0.25, 0.256, 'abcdef', 1.5, 1234567.891) }}",
        "{{ [1, 2, 1].count(1) }} {{ [1, 2].index(2) }} {{ (1, 2).index(1) }} {{ d.copy() == d }} {{ 'x'.upper().lower().strip() }} {{ d.items() is mapping }}",
    ],
    "fails": [
        "{{ raise_exception('No ' ~ bos_token) }}", "{{ undefined_name.x }}", "{{ undefined_name() }}", "{{ d.q.r }}", "{{ 1 + 'a' }}", "{{ 'a' + 1 }}",
        "{{ undefined_name + 1 }}", "{{ 1 / 0 }}", "{{ 1 % 0 }}", "{{ 1 < 'a' }}", "{{ none < 1 }}", "{{ l | sort }}", "{{ 5 | length }}", "{{ none | length }}",
        "{% for x in 5 %}{% endfor %}", "{% for x in none %}{% endfor %}", "{% for a, b in [1] %}{% endfor %}", "{% for a, b in [(1, 2, 3)] %}{% endfor %}",
        "{{ 'a' | nofilter }}", "{{ 1 is notest }}", "{% if %}{% endif %}", "{% if 1 %}", "{% endif %}", "{% for x in l %}", "{{ ", "{{ 1", "{% set x = %}", "{{ 1 + }}",
        "{# no end", "{% raw %} ", "{{ 1 is number if true else 2 }}", "{{ 'a }}", "{{ a b }}", "{{ (1 }}", "{{ 1) }}", "{{ [1, }}", "{% unknown %}", "{{ $ }}", "{% set 1 = 2 %}", "{% set a.b = 1 %}",
        "{% set true = 1 %}", "{{ l.append(1) }}", "{{ d.update({}) }}", "{{ d.pop('a') }}", "{% macro m(a) %}{% endmacro %}{{ m(1, 2) }}",
        "{% macro m(a) %}{% endmacro %}{{ m(b=1) }}", "{% macro m(a) %}{% endmacro %}{{ m(1, a=2) }}", "{{ m() }}", "{{ 'a'() }}", "{{ undefined_name | tojson }}", "{{ range(1000000) }}",
        "{{ range(0, 5, 0) }}", "{{ [[]] | unique | list }}", "{{ {[]: 1} }}", "{{ 1 in 5 }}", "{{ 1 in 'a' }}", "{% set ns = namespace(_a=1) %}",
        "{% set ns = namespace() %}{% set ns._a = 1 %}", "{{ 'a'.index('b') }}", "{{ 'a'.split('') }}", "{{ ','.join([1]) }}", "{{ 'a' * 'b' }}", "{{ -'a' }}",
        "{{ '%d' % 'a' }}", "{{ '%s %s' % 'a' }}", "{{ '%s' % (1, 2) }}", "{{ '{}'.format() }}", "{{ '{' .format(1) }}", "{{ '{:d}'.format('a') }}",
        "{{ (n | map('abs')) | length }}", "{{ (n | map('abs')) | last }}", "{{ n | map | list }}", "{{ n | selectattr | list }}", "{{ 'a' is 'b' }}", "{% include 'x' %}",
        "{{ undefined_name | int }}", "{{ d | dictsort(by='x') }}", "{{ 2.5 | round(1, 'x') }}", "{{ l | dictsort }}", "{{ l | items | list }}", "{{ n[::0] }}", "{{ n['a':] | list }}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "{{ caller() }}", "{% for x in n %}{{ loop(n) }}{% endfor %}", "{{ '\\N{DIGIT ONE' }}", "{{ 0777 }}",
    ],
}


def rendered(text):
    try:
        template = chat_template_utils._compile_jinja_template(text)
        return {"output": template.render(**copy.deepcopy(VARIABLES))}
    except RecursionError:
        return {"fails": "RecursionError"}
    except Exception as error:  # whatever Python raises, the template fails
        return {"fails": type(error).__name__}


def main():
    cases = [{"feature": feature, "template": text, **rendered(text)} for feature, texts in FEATURES.items() for text in texts]
    wrong = [case for case in cases if ("fails" in case) != (case["feature"] == "fails")]
    assert not wrong, "\n".join(map(str, wrong))
    json.dump({"made_by": f"scripts/golden/make_chat.py, transformers {transformers.__version__}, jinja2 {jinja2.__version__}",
               "now": NOW.strftime("%Y-%m-%dT%H:%M:%S"), "variables": VARIABLES, "cases": cases}, sys.stdout, indent=1, ensure_ascii=True)
    print()


main()
