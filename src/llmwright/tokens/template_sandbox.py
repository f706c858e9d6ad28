"""Jinja for templates that strangers wrote: its sandbox keeps them from the machine; what they cost is bounded here.

Little is allowed (template_prices.py), and everything pays (template_budget.py), so a template that would run forever
or fill the memory ends in an error. Where Jinja runs an operation without asking its environment (a comparison, a
slice, a list), the template is rewritten to do it through a filter or test that pays. It renders as transformers does
(trimmed blocks, `break` and `continue`, JSON as it is, `raise_exception`, `strftime_now`).
"""

import jinja2
import jinja2.ext
from jinja2 import nodes
from jinja2.exceptions import SecurityError, TemplateSyntaxError
from jinja2.runtime import Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment

from . import template_prices as prices
from .template_budget import BITS, ENTRY, STEP, Budget, TooMuch, concat, counted, entries, limit, spend, weigh

LONGEST = 1_000_000  # characters of a template; the longest published ones have some 20,000
TOKENS = 20_000  # words and marks of it; published ones have some 5,000

STATEMENTS = (
    nodes.Template, nodes.Output, nodes.If, nodes.For, nodes.Macro, nodes.CallBlock, nodes.FilterBlock, nodes.With,
    nodes.Assign, nodes.AssignBlock, nodes.ExprStmt, nodes.Scope, nodes.Break, nodes.Continue,
)


# Characters that cost as much as a node of the tree where it runs: so a loop's turn pays for its body.
NODE = 10
NODES = {nodes.Getattr: 100, nodes.Getitem: 100, nodes.Name: 30, nodes.Test: 30}


def compile(source: str) -> jinja2.Template:
    """What comes back is for `render`. Raises jinja2.TemplateSyntaxError, or RecursionError for one nested too deep."""
    if len(source) > LONGEST:
        raise TemplateSyntaxError(f"it has {len(source):,} characters; at most {LONGEST:,} are allowed", 1)
    if sum(map(source.count, ("{{", "{%", "{#"))) > TOKENS:
        raise TemplateSyntaxError(f"it has more than {TOKENS:,} blocks", 1)
    environment = _Environment()
    try:
        tree = environment.parse(source)
        _rewrite(tree)
        return environment.from_string(tree.set_environment(environment))
    except ValueError as error:  # a number with more digits than Python reads
        raise TemplateSyntaxError(str(error), 1) from None


def render(template: jinja2.Template, variables: dict) -> str:
    """The text of a `compile`d template. Raises jinja2.TemplateError, and what Python raises where a template takes the
    wrong type or goes too deep."""
    messages = variables.get("messages")
    with Budget(len(messages) if isinstance(messages, list) else 0):
        return template.render(variables)


# how a template is rewritten


def _rewrite(node: nodes.Node) -> tuple[nodes.Node, int]:
    """What takes the node's place, and what it costs where it runs."""
    cost = NODES.get(type(node), NODE)
    for field, value in node.iter_fields():
        if isinstance(value, nodes.Node):
            new, inside = _rewrite(value)
            setattr(node, field, new)
            cost += inside
        elif isinstance(value, list):
            before = cost
            for i, part in enumerate(value):
                if isinstance(part, nodes.Node):
                    value[i], inside = _rewrite(part)
                    cost += inside
            if isinstance(node, nodes.If) and field != "elif_" and cost - before > STEP:  # paid for where it is taken
                value.insert(0, _turn(node, cost - before))
                cost = before
    _check(node)
    return _paying(node, cost), cost


def _check(node: nodes.Node) -> None:
    def refuse(what):
        raise TemplateSyntaxError(f"the template uses {what}, which is not allowed here", node.lineno)

    if isinstance(node, nodes.Filter) and node.name not in prices.FILTERS:
        refuse(f"the filter {node.name}")
    if isinstance(node, nodes.Test) and node.name not in prices.TESTS:
        refuse(f"the test {node.name}")
    if isinstance(node, nodes.Stmt) and not isinstance(node, STATEMENTS):
        refuse(type(node).__name__.lower())
    if isinstance(node, nodes.Const) and isinstance(node.value, int) and node.value.bit_length() > BITS:
        refuse("a number without end")
    if isinstance(node, nodes.Compare) and len(node.ops) > 1 and any("in" in operand.op for operand in node.ops):
        refuse("a chain of comparisons with in")


def _paying(node: nodes.Node, cost: int) -> nodes.Node:
    for field in ("dyn_args", "dyn_kwargs"):  # f(*values)
        if getattr(node, field, None) is not None:
            setattr(node, field, _filter(getattr(node, field), "_entries"))
    if isinstance(node, nodes.Compare):
        return _compared(node)
    if isinstance(node, nodes.Concat):  # a ~ b
        return _filter(nodes.List(node.nodes, lineno=node.lineno), "_concatenated")
    if isinstance(node, (nodes.List, nodes.Tuple, nodes.Dict)):
        plain = getattr(node, "ctx", "load") != "load" or all(map(_constant, node.items))
        return node if plain else _filter(node, "_weighed")
    if isinstance(node, nodes.Getitem):
        if isinstance(node.arg, nodes.Slice):
            return _filter(node, "_sliced")
        if not _constant(node.arg):
            node.arg = _filter(node.arg, "_key")
    elif isinstance(node, nodes.For):
        node.iter = _filter(node.iter, "_counted", cost)
        if node.recursive:  # what it calls itself with passes no filter
            if node.test is not None:
                node.test = nodes.And(_filter(nodes.Const(True), "_turn", 0), node.test, lineno=node.lineno)
            node.body.insert(0, _turn(node, cost))
    elif isinstance(node, (nodes.Macro, nodes.CallBlock)):
        node.body.insert(0, _turn(node, cost))
    return node


def _compared(node: nodes.Compare) -> nodes.Node:
    """A comparison as a test that pays; one with a constant costs no more than the constant is long."""
    [first, *more], left = node.ops, node.expr
    if more:
        node.expr = _filter(left, "_weighed")
        for operand in node.ops:
            operand.expr = _filter(operand.expr, "_weighed")
        return node
    right, line = first.expr, node.lineno
    if first.op in ("in", "notin"):
        if isinstance(right, (nodes.List, nodes.Tuple)) and all(map(_constant, right.items)):
            return node
        test = nodes.Test(left, "in", [right], [], None, None, lineno=line)
        return test if first.op == "in" else nodes.Not(test, lineno=line)
    if _constant(left) or _constant(right):
        return node
    name = {"gteq": "ge", "lteq": "le"}.get(first.op, first.op)
    return nodes.Test(left, name, [right], [], None, None, lineno=line)


def _constant(node: nodes.Node) -> bool:
    if isinstance(node, nodes.Pair):
        return _constant(node.key) and _constant(node.value)
    return isinstance(node, nodes.Const)


def _filter(node: nodes.Node, name: str, *arguments) -> nodes.Filter:
    given = [nodes.Const(value, lineno=node.lineno) for value in arguments]
    return nodes.Filter(node, name, given, [], None, None, lineno=node.lineno)


def _turn(node: nodes.Node, cost: int) -> nodes.ExprStmt:
    return nodes.ExprStmt(_filter(nodes.Const(True, lineno=node.lineno), "_turn", cost), lineno=node.lineno)


# the filters that it is rewritten to


def _weighed(value):
    spend(STEP)
    weigh(value)
    return value


def _concatenated(parts: list) -> str:
    size = STEP
    for part in parts:
        size += len(part) if type(part) is str else weigh(part, printed=True)
    limit(size)
    spend(size)
    return "".join(map(str, parts))


def _sliced(value):
    spend(STEP + len(value) * (1 if isinstance(value, str) else ENTRY))
    return value


def _key(value):
    """A tuple of tuples is hashed anew each time."""
    if type(value) is not str:
        weigh(value)
    return value


def _turned(value: bool, cost: int) -> bool:
    spend(STEP + cost)
    return value


OWN = {"_weighed": _weighed, "_concatenated": _concatenated, "_sliced": _sliced, "_key": _key, "_turn": _turned,
       "_counted": counted, "_entries": entries}


def _printed(value):
    """What {{ … }} writes."""
    if type(value) is not str and value is not None:
        weigh(value, printed=True)
    return value


class _Generation(jinja2.ext.Extension):
    """{% generation %} … {% endgeneration %} marks what the model wrote, for training; the text is what is inside."""

    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        return nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True), lineno=line)

    def filter_stream(self, stream):
        for count, token in enumerate(stream):
            if count > TOKENS:
                raise TemplateSyntaxError(f"it has more than {TOKENS:,} words and marks", token.lineno)
            yield token


class _Environment(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset(("+", "-", "*", "/", "//", "%", "**"))

    def __init__(self):
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, jinja2.ext.loopcontrols],
                         finalize=_printed)
        self.filters = {**prices.FILTERS, **OWN}
        self.tests = prices.TESTS
        self.globals = dict(prices.GLOBALS)

    concat = staticmethod(concat)

    def getattr(self, obj, attribute):
        if type(obj) is dict and attribute not in _OF_DICT:
            return obj[attribute] if attribute in obj else self.undefined(obj=obj, name=attribute)
        return super().getattr(obj, attribute)

    def is_safe_attribute(self, obj, attribute, value):
        kind = prices.owner_kind(obj)
        if kind in (str, dict, list, tuple):
            return attribute in prices.METHODS[kind]
        return super().is_safe_attribute(obj, attribute, value)

    def call(self, context, function, *arguments, **named):
        if type(function) is Macro:
            spend(STEP)
            return context.call(function, *arguments, **named)
        named.pop("_loop_vars", None)
        named.pop("_block_vars", None)
        return function(*prices.call(function, arguments, named), **named)

    def call_binop(self, context, operator, left, right):
        if operator == "+" and type(left) is type(right) is str:
            size = len(left) + len(right)
            limit(size)
            spend(STEP + size)
            return left + right
        _pay(operator, left, right)
        return super().call_binop(context, operator, left, right)


_OF_DICT = frozenset(dir(dict))
_SOME = (str, list, tuple)


def _pay(operator: str, left, right) -> None:
    spend(STEP)
    if isinstance(left, (int, float)) and isinstance(right, (int, float)):
        if isinstance(left, int) and isinstance(right, int):
            bits = max(left.bit_length(), right.bit_length()) * (abs(right) if operator == "**" else 1)
            if bits > BITS:
                raise TooMuch("it makes numbers without end")
            spend(bits * bits // 10_000)
    elif isinstance(left, jinja2.Undefined) or isinstance(right, jinja2.Undefined):
        return  # which says itself what it is
    elif operator == "*":
        for some, times in ((left, right), (right, left)):
            if isinstance(some, _SOME) and isinstance(times, int):
                limit(len(some) * times)
                spend(max(0, times) * len(some) * (1 if isinstance(some, str) else ENTRY))
    elif operator == "+":
        size = sum(len(value) for value in (left, right) if isinstance(value, _SOME))
        limit(size)
        spend(size * ENTRY)  # of lists, or escaped
    elif operator == "%" and isinstance(left, str):
        raise SecurityError("it writes values into a text with %, which is not allowed: join them with ~")
    else:
        names = type(left).__name__, type(right).__name__
        raise TypeError(f"unsupported operand type(s) for {operator}: {names[0]!r} and {names[1]!r}")
