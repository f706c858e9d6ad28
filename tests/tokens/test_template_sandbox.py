"""What a template may do and cost: operators, filters and methods that chat templates use give what Jinja gives; no
template takes seconds or gigabytes, however it goes about it; a long conversation is far from the bound."""

import json
import subprocess
import sys
import time

import pytest
from jinja2.exceptions import SecurityError, TemplateSyntaxError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from templates import ANSWER, ASK, CALL, FAMILIES, TOOLS

from llmwright.tokens import template_budget, template_sandbox
from llmwright.tokens.template_budget import TooMuch

BIG = '{% set x = "a" * 9999999 %}'
WIDE = '{% set x = "中" * 9999999 %}'
EACH, END = "{% for i in range(99999) %}", "{% endfor %}"


def often(body: str, before: str = "") -> str:
    return before + EACH + EACH + body + END + END


def keeps(body: str, start: str = "none") -> str:
    return "{% set n = namespace(l=" + start + ") %}" + EACH + "{% set n.l = " + body + " %}" + END


def stacked(times: int, opening: str = "[", closing: str = "]") -> str:
    """b = [a, a, …], c = [b, b, …], …: some bytes of which each name stands for ten times what the last one does."""
    sets = [f"{{% set a = {opening}'aaaa',{closing} %}}"]
    for number in range(times):
        last, name = chr(97 + number), chr(98 + number)
        sets.append(f"{{% set {name} = {opening}{(last + ',') * 10}{closing} %}}")
    return "".join(sets)


LAUGHS = stacked(10)
TUPLES = stacked(4, "(", ")")
LISTS = stacked(4) + "{% set f = e * 999 %}{% set g = e * 999 %}"
HOSTILE = {
    # a text or list grows
    "a linked list": keeps('[n.l, "a" * 9999999]'),
    "a list of lists": "{% set n = namespace(l=[]) %}" + EACH + '{% set n.l = n.l + [["a" * 9999999]] %}' + END,
    "lists of characters": '{% set x = "中" * 49999 %}{% set n = namespace(l=[]) %}' + EACH
                           + "{% set n.l = n.l + [x | list] %}" + END,
    "namespaces": '{% set x = "中" * 49999 %}{% set n = namespace() %}' + EACH
                  + '{% set m = namespace(p=n.l, t=x + "a") %}{% set n.l = m %}' + END,
    "lists of lists, printed": LAUGHS + "{{ k }}",
    "compared": LAUGHS + "{{ k == k }}", "shared many times": LISTS + "{{ f ~ g }}",
    "joined with": '{{ ("a" * 999999).join("b" * 999999) }}',
    "each": '{{ range(99999) | map("string") | join("a" * 999999) }}',
    "replaced": '{{ ("a" * 99999).replace("a", "b" * 99999) }}',
    "indented": '{{ ("a\n" * 999999) | indent("b" * 9999) }}',
    "a wide list": WIDE + "{{ x | list | length }}", "wide arguments": WIDE + "{{ dict(*x) }}",
    "wide words": '{{ ("中 " * 4999999).split() | length }}',
    "wide lines": '{{ ("中\n" * 4999999).splitlines() | length }}',
    "separators": '{{ ([1] * 299999) | tojson(separators=("a" * 900, "b")) }}',
    "a block": BIG + '{% set s = x | safe %}{% set z %}' + often("{{ s }}") + "{% endset %}",
    "JSON's width": "{{ ([[[[[[1]]]]]] * 9999) | tojson(indent=1000) }}",
    # a width
    "%*d": '{{ "%*d" % (3000000000, 1) }}', "format": '{{ "{:{w}}".format(1, w=3000000000) }}',
    "markup's %": '{{ ("%*d" | safe) % (3000000000, 1) }}', "a test's %": '{{ "%9999999999d" is odd }}',
    "a test's % with a tuple": '{{ "%*d" is divisibleby((3000000000, 1)) }}',
    "a date": '{{ strftime_now("%9999999999Y") }}',
    # time
    "long texts made": EACH + '{% set x = "a" * 9999999 %}' + END,
    "looked for": '{{ (("a" * 9999999) | list | select("in", "b" * 9999999) | list) | length }}',
    "found backwards": BIG + '{{ x.rfind("b" + "a" * 999) }}' + often('{% set y = x.rfind("ab" * 99) %}'),
    "found": '{% set n = "a" * 49 + "b" + "a" * 49 %}{% set x = "a" * 29000 %}' + often("{% if n in x %}{% endif %}"),
    "stripped": '{% set x = "a" * 99999 %}{% set n = "b" * 9999 ~ "a" %}' + often("{% set y = x | trim(n) %}"),
    "in capitals": '{% set x = "ΐ" * 99999 %}' + often("{% set y = x | upper %}"),
    "titles": '{{ ("a " * 4999999) | title }}',
    "turned": '{% set x = "a" * 99999 %}' + often("{% set y = x[::-1] %}"),
    "equal texts": '{% set x = "a" * 999999 ~ "b" %}{% set y = "a" * 999999 ~ "c" %}'
                   + often("{% if x == y %}{% endif %}"),
    "equal, by a test": LISTS + often("{% if f is eq(g) %}{% endif %}"),
"a key": TUPLES + often("{{ {}[e] }}"),
    "sums": "{{ ([[1] * 999] * 9999) | sum(start=[]) | length }}",
    "dots": '{{ ([1] * 9999) | map(attribute="." * 999999, default=5) | list | length }}',
    "powers": "{% set x = 10 ** 300 %}" + often("{% set y = x ** 10 %}"),
    "a root": '{{ 5 | round(9999999999, "ceil") }}',
    "digits": '{{ ("z" * 9999999) | int(0, 36) }}', "what is not there": often("{% if q %}{% endif %}" * 900),
    "what a message lacks": often("{% if messages[0].q %}{% endif %}" * 900), "nothing": often("", ""),
    "loops that call themselves": "{% set n = namespace() %}{% for a in [1] if a == 1 recursive %}{% set n.l = loop %}"
                                  + EACH + "{% set y = n.l(range(2, 99999)) %}" + END + END,
    "generators of generators": "{% set n = namespace(l=['a']) %}" + EACH + '{% set n.l = n.l | map("string") %}' + END,
    # the source
    "long": "{{ a }}" * 100_000, "dense": "{% set a = a.b | trim %}" * 40_000, "commented": "{##}" * 240_000,
    "nested": "{% for a in b %}" * 15 + "{% set c = 1 %}" * 2700 + END * 15,
    "a long chain": "{{ " + "1<" * 9500 + "1 }}",
    "deep": "{{ " + "(" * 100_000 + "1 }}", "deep sum": "{{ " + "1+" * 100_000 + "1 }}", "line ends": "\n" * 999_999,
}

# CPU time, since other tests run beside this one
RUN = """
import json, resource, sys, time
resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
from llmwright.tokens import template_sandbox
for name, source in json.load(sys.stdin).items():
    start = time.process_time()
    try:
        said = template_sandbox.render(template_sandbox.compile(source), {"messages": [{"role": "user"}]})[:9]
    except MemoryError:
        said = "memory"
    except Exception as error:
        said = type(error).__name__
    print(json.dumps([name, said, time.process_time() - start]), flush=True)
"""


def test_no_template_takes_two_seconds_or_a_gigabyte():
    pytest.importorskip("resource")
    done = subprocess.run([sys.executable, "-c", RUN], input=json.dumps(HOSTILE), capture_output=True, text=True)
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [name for name, _, _ in found] == list(HOSTILE), done.stderr
    assert [row for row in found if row[1] == "memory" or row[2] > 2] == []


SAME = [
    "{{ 'a' ~ 1 ~ none ~ [1, 'b'] ~ x }}", "{{ [1, 2.5, true, none, ('a', \"b'\"), {'k': [x]}] }}",
    "{{ 7 // 2, 7 % 3, -7 / 2, 2 ** 9 }}",
    "{{ 1 < 2 < 3, 1 == 1.0, 'a' != x, x >= x, [1] == [1], x <= 'z', t > t }}",
    "{{ 'a' in x, 'b' not in x, x in ['abc'], 1 in (1, 2), 'k' in d, t in [t], x in d.values(), 3 in range(5) }}",
    "{{ x[1:], t[::-1], t[:2], x[-1], t[t[0]], d['k'], d.k, d.none is defined }}",
    "{{ x | upper | lower | capitalize | title | trim }}|{{ '  a ' | trim }}|{{ 'xax' | trim('x') }}",
    "{{ t | join }}{{ t | join(', ') }}{{ [d, d] | join('-', attribute='k') }}{{ [['a']] | join }}",
    "{{ 'aXbX' | replace('X', 'Y') }}{{ 'aXbX' | replace('X', 'Y', 1) }}{{ 5 | replace(5, 6) }}"
    "{{ x.replace('', '-') }}",
    "{{ 'a\nb\n\nc' | indent }}{{ 'a\nb' | indent(2, true) }}{{ 'a\n\nb' | indent('>', blank=true) }}",
    "{{ x | reverse }}{{ t | reverse | list }}{{ t | sort(reverse=true) }}{{ d | dictsort }}"
    "{{ [1, 1, 2] | unique | list }}",
    "{{ t | map('string') | list }}{{ [d] | map(attribute='k') | list }}{{ ['a'] | map('upper') | first }}"
    "{{ ['a b'] | map('replace', ' ', '_') | join }}",
    "{{ [d, {}] | selectattr('k') | list }}{{ [d] | selectattr('k', 'equalto', 'v') | list | length }}"
    "{{ [d, {}] | rejectattr('k', 'defined') | list }}",
    "{{ t | select('odd') | list }}{{ t | reject('in', [1]) | list }}{{ t | sum }}{{ [d] | groupby('k') }}"
    "{{ t | min }}{{ t | max }}",
    "{{ 2.567 | round(1) }}{{ 2.5 | round }}{{ 2.1 | round(method='ceil') }}{{ '12' | int }}{{ 'x' | int(7) }}"
    "{{ 'ff' | int(0, 16) }}{{ '1.5' | float }}{{ -3 | abs }}",
    "{{ '<a>' | e }}{{ '<a>' | safe }}{{ ('<' | safe) + '<' }}{{ ('<' | safe) ~ '<' }}"
    "{{ ('<' | safe).join(['>', 'b']) }}{{ '<' | escape | string | upper }}",
    "{{ y | default('no') }}{{ '' | d('no', true) }}{{ y | length }}{{ y }}{{ t | first }}{{ t | last }}"
    "{{ d | items | list }}{{ x | list }}{{ x | count }}",
    "{{ x.split('b'), x.rsplit('b', 1), 'a b'.split(), 'a\nb'.splitlines(), x.partition('b'), x.find('c'), "
    "x.count('a'), x.index('b') }}",
    "{{ ' a '.strip(), 'xa'.lstrip('x'), 'ax'.rstrip('x'), x.startswith('a'), x.endswith(('b', 'c')), "
    "x.upper(), x.title(), x.isdigit() }}",
    "{{ d.get('k'), d.get('z', 4), d.items() | list, d.keys() | list, d.values() | list, t.index(2), "
    "t.count(1), ','.join(['a', 'b']) }}",
    "{{ x.removeprefix('a'), x.removesuffix('c'), t is sequence, x is string, d is mapping, y is undefined, "
    "4 is even, 6 is divisibleby(3) }}",
    "{% for a, b in d.items() if b %}{{ loop.index, loop.last, loop.length, a, b }}{% else %}none{% endfor %}",
    "{% for a in [1, [2, [3]]] recursive %}{% if a is iterable %}{{ loop(a) }}{% else %}{{ a }}{% endif %}{% endfor %}",
    "{% for a in t %}{{ loop.cycle('a', 'b') }}{{ loop.changed(a) }}{{ loop.previtem }}{{ loop.nextitem }}"
    "{{ loop.revindex0 }}{% endfor %}",
    "{% for a in t | map('string') %}{{ loop.length }}{{ a }}{% endfor %}{% if t | select('odd') %}yes{% endif %}",
    "{% macro m(a, b=[1]) %}{{ a }}{{ b }}{{ varargs }}{{ kwargs }}{% endmacro %}{{ m(1) }}{{ m(*t) }}"
    "{{ m(1, z=2) }}{{ m(**{'a': d}) }}",
    "{% macro m() %}<{{ caller(1) }}>{% endmacro %}{% call(a) m() %}in{{ a }}{% endcall %}"
    "{% filter upper %}a{{ x }}{% endfilter %}",
    "{% set n = namespace(l=[], c=0) %}{% for a in t %}{% set n.l = n.l + [a] %}{% set n.c = n.c + a %}"
    "{% endfor %}{{ n.l, n.c }}",
    "{% set z %}a{{ x }}{% endset %}{{ z }}{% with q = 3 %}{{ q }}{% endwith %}{{ 'yes' if t else 'no' }}"
    "{{ dict(a=1, **d) }}{{ range(3) | list }}",
]


@pytest.mark.parametrize("source", SAME)
def test_what_templates_use_gives_what_jinja_gives(source):
    variables = {"x": "abc", "t": [1, 2, 3], "d": {"k": "v", "n": 1}}
    wanted = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True).from_string(source).render(variables)
    assert template_sandbox.render(template_sandbox.compile(source), variables) == wanted


@pytest.mark.parametrize("name", ["center", "format", "wordwrap", "truncate", "urlize", "xmlattr", "batch", "slice",
"attr",
                                  "pprint", "striptags", "random", "nonsense", "_counted"])
def test_a_filter_that_templates_do_not_need_is_refused_with_its_name(name):
    with pytest.raises(TemplateSyntaxError, match=f"uses the filter {name}, which is not allowed here"):
        template_sandbox.compile("{{ 'a' | " + name + " }}")


@pytest.mark.parametrize("source, said", [
    *[("{{ 'a'." + call + " }}", "attribute|calls a function") for call in (
        "format(1)", "format_map({})", "translate({})", "center(9)", "ljust(9)", "rjust(9)", "zfill(9)",
        "expandtabs(9)",
        "encode()")],
    ("{{ {}.update(a=1) }}", "'update'"), ("{{ {}.fromkeys([1]) }}", "'fromkeys'"),
    ("{{ ('a' | safe).striptags() }}", "'striptags'"),
    ("{{ [1].append(1) }}", "'append'"), ("{{ 1() }}", "calls a int"), ("{{ (['a'] | map('upper')).send(none) }}",
    "send"),
    ("{{ 'a %s' % 'b' }}", "into a text with %"), ("{{ namespace() }}", "writes a Namespace"), ("{{ range }}",
    "a function"),
    ("{{ [namespace()] ~ 'a' }}", "writes a Namespace"), ("{{ 'a'.strip }}", "writes a builtin_function"),
    ("{{ ['a'] | map('upper') }}", "writes a generator"),
])
def test_what_a_template_may_not_do_is_said(source, said):
    with pytest.raises(SecurityError, match=said):
        template_sandbox.render(template_sandbox.compile(source), {})


def test_a_key_of_a_message_may_be_named_as_a_method():
    source = "{{ m.format }}{{ m.center }}{{ m['update'] }}"
    assert template_sandbox.render(template_sandbox.compile(source), {"m": {"format": 1, "center": 2}}) == "12"


def test_a_conversation_of_four_hundred_turns_leaves_nine_tenths_of_the_budget():
    """With schemas of tools and 200 kB of text."""
    messages = [{**turn, "content": "The quick brown fox.\n" * 25} for turn in (ASK, ANSWER)] * 100
    messages += [ASK, CALL, {"role": "tool", "content": "x" * 2000}, ANSWER] * 50
    variables = {"messages": messages, "tools": TOOLS * 20, "bos_token": "<s>", "eos_token": "</s>",
    "add_generation_prompt": True}
    for template in (FAMILIES["llama3"][0], FAMILIES["mistral"][0]):
        with template_budget.Budget() as budget:
            assert len(template_sandbox.compile(template).render(variables)) > 200_000
        assert budget.left > 0.9 * template_budget.STEPS * template_budget.STEP


EACH_SEES_ALL = """{%- for message in messages -%}{%- set ns = namespace(n=0) -%}
{%- for other in messages[loop.index0:] -%}{%- if other.role == 'tool' -%}{%- set ns.n = ns.n + 1 -%}{%- endif -%}{%- endfor -%}
{{ message.role }} {{ ns.n }} {% endfor -%}"""


def test_a_template_that_goes_through_all_messages_at_each_takes_long_conversations():
    """As where results of tools are matched with their calls; 320 calls of a tool and their results cost 1.7 million steps, so one budget is too little."""
    made = template_sandbox.compile(EACH_SEES_ALL)
    messages = [ASK, *[{"role": "assistant", "content": ""}, {"role": "tool", "content": "y" * 200}] * 320]
    text = template_sandbox.render(made, {"messages": messages})
    assert text.startswith("user 320 assistant 320 tool 320 assistant 319") and text.endswith("tool 1 ")


def test_the_budget_grows_with_the_messages_and_not_without_end():
    budgets = [template_budget.Budget(n).left for n in (0, 1, 199, 200, 640, 1000, 10**6)]
    assert [b // budgets[0] for b in budgets] == [1, 1, 1, 2, 6, 10, 10]
    assert template_budget.Budget(10**6).seconds == 15 and template_budget.Budget(3).seconds == 5


def test_the_budget_is_new_for_each_text():
    made = template_sandbox.compile("{% for i in range(50000) %}{% endfor %}")
    assert [template_sandbox.render(made, {}) for _ in range(20)] == [""] * 20


def test_what_nothing_else_stops_ends_at_a_time():
    with template_budget.Budget() as budget, pytest.raises(TooMuch, match="more than 5 seconds"):
        budget.end = time.thread_time()
        template_budget.spend(1)
