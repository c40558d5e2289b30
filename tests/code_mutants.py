"""Small faults in the code of a module, one at a time: tests that miss one do not check what that line does.

Docstrings, annotations, imports, decorators, f-strings and the messages of errors stay as they are. So does what any
test would mind that runs the line at all: the only assignment to a name, the name of a key, `len` of a list.
"""

from __future__ import annotations

import ast
import copy
import hashlib
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

COMPARISONS = {
    "<": ("<=", ">="),
    "<=": ("<", ">"),
    ">": (">=", "<="),
    ">=": (">", "<"),
    "==": ("!=",),
    "!=": ("==",),
    "is": ("is not",),
    "is not": ("is",),
    "in": ("not in",),
    "not in": ("in",),
}
OPERATORS = {"+": "-", "-": "+", "*": "/", "/": "*", "//": "/", "%": "*", "**": "*", "|": "&", "&": "|"}
FUNCTIONS = {
    "all": "any",
    "any": "all",
    "argmax": "argmin",
    "cumsum": "cumprod",
    "exp": "expm1",
    "expm1": "exp",
    "log": "log1p",
    "log2": "log",
    "max": "min",
    "maximum": "minimum",
    "mean": "sum",
    "min": "max",
    "minimum": "maximum",
    "new_zeros": "new_ones",
    "ones": "zeros",
    "repeat": "tile",
    "sum": "mean",
    "zeros": "ones",
}
TRIVIAL = ("len", "from_numpy", "numpy", "range", "enumerate", "zip", "__init__")
REMOVED = (ast.Assign, ast.AnnAssign, ast.AugAssign, ast.Expr, ast.Raise, ast.Return, ast.Continue, ast.Break)
ROLES = {
    (ast.If, "test"): "condition",
    (ast.IfExp, "test"): "condition",
    (ast.comprehension, "ifs"): "condition",
    (ast.For, "iter"): "loop",
    (ast.arguments, "defaults"): "default",
    (ast.arguments, "kw_defaults"): "default",
}


def _operator(symbol: str) -> ast.AST:
    """The node that stands for `symbol` between two operands."""
    node = ast.parse(f"a {symbol} b", mode="eval").body
    return node.ops[0] if isinstance(node, ast.Compare) else node.op


SYMBOLS = {type(_operator(symbol)): symbol for symbol in (*COMPARISONS, *OPERATORS, "and", "or")}
SYMBOLS |= {ast.Not: "not", ast.USub: "unary -", ast.Invert: "~"}


class Mutant(NamedTuple):
    """One fault.

    Attributes:
        where: the function, `Class.method`, class or constant that it is in.
        line: the line of code that it is in, stripped. column: where in it.
        change: what happens there, in words.
        start, end, text: these bytes of the source become this.
    """

    where: str
    line: str
    column: int
    change: str
    start: int
    end: int
    text: str

    @property
    def key(self) -> tuple[str, str, int, str]:
        """What names it as long as the code around it stays."""
        return self[:4]

    def of(self, source: str) -> str:
        """The module's source with the fault in it."""
        data = source.encode()
        return (data[: self.start] + self.text.encode() + data[self.end :]).decode()


def digests(source: str) -> dict[str, str]:
    """A digest of each definition's code, without its comments, docstrings, annotations and imports."""
    return {
        where: hashlib.sha256("\n".join(ast.unparse(_Bare().visit(node)) for node in nodes).encode()).hexdigest()[:12]
        for where, nodes in _definitions(ast.parse(source))
    }


def mutants(source: str) -> list[Mutant]:
    """Every fault that is made of this module, in the order of the code."""
    tree = ast.parse(source)
    imported = {
        (alias.asname or alias.name).split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    lines = source.encode().splitlines(keepends=True)
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line))
    found: list[Mutant] = []
    times: Counter[tuple] = Counter()
    for where, nodes in _definitions(tree):
        for top in nodes:
            assigned = Counter(n.id for n in ast.walk(top) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store))
            assigned += Counter(n.arg for n in ast.walk(top) if isinstance(n, ast.arg))
            for node, role in _walk(top):
                if isinstance(node, ast.Assign) and _names(node) and all(assigned[name] == 1 for name in _names(node)):
                    continue
                for change, at, text in _changes(node, role, imported):
                    line = lines[at.lineno - 1].decode()
                    start = starts[node.lineno - 1] + node.col_offset
                    end = starts[node.end_lineno - 1] + node.end_col_offset
                    column = at.col_offset - (len(line) - len(line.lstrip()))
                    mutant = Mutant(where, line.split("  #")[0].strip(), column, change, start, end, text)
                    times[mutant.key] += 1  # the same may be done to two lines that read alike
                    if times[mutant.key] > 1:
                        mutant = mutant._replace(change=f"{change} ({times[mutant.key]})")
                    found.append(mutant)
    return found


class _Bare(ast.NodeTransformer):
    """Takes away what is not code, and f-strings, which Python's versions write differently."""

    def visit_Import(self, node: ast.Import) -> None:
        return None

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        return None

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        return None if _is_docstring(node) else self.generic_visit(node)

    def visit_JoinedStr(self, node: ast.JoinedStr) -> ast.AST:
        return ast.Name("text")

    def visit_arg(self, node: ast.arg) -> ast.AST:
        return ast.arg(node.arg)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        return self.generic_visit(ast.Assign([node.target], node.value or ast.Constant(None), lineno=node.lineno))

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.returns = None
        self.generic_visit(node)
        node.body = node.body or [ast.Pass()]
        return node


def _definitions(tree: ast.Module) -> Iterator[tuple[str, list[ast.AST]]]:
    """Functions, methods, the rest of each class, constants: a name and the code that goes by it."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            yield node.name, [node]
        elif isinstance(node, ast.ClassDef):
            methods = [part for part in node.body if isinstance(part, ast.FunctionDef)]
            yield node.name, [part for part in node.body if part not in methods and not _is_docstring(part)]
            for method in methods:
                yield f"{node.name}.{method.name}", [method]
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            yield ast.unparse(target), [node]


def _names(node: ast.Assign) -> list[str]:
    """What it gives a value to, if these are plain names."""
    targets = node.targets[0].elts if isinstance(node.targets[0], ast.Tuple) else node.targets
    return [target.id for target in targets if isinstance(target, ast.Name)] if len(node.targets) == 1 else []


def _is_docstring(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _walk(node: ast.AST, role: str = "") -> Iterator[tuple[ast.AST, str]]:
    """The node and all below it, each with what it is to the one above: a condition, a loop's values, a default."""
    yield node, role
    if isinstance(node, ast.Raise):  # what it says is not code
        return
    for field, value in ast.iter_fields(node):
        for child in value if isinstance(value, list) else [value]:
            if not isinstance(child, ast.AST) or field in ("annotation", "returns", "decorator_list"):
                continue
            if not isinstance(child, ast.Import | ast.ImportFrom | ast.JoinedStr) and not _is_docstring(child):
                key = isinstance(node, ast.Subscript) and isinstance(getattr(child, "value", None), str)
                yield from _walk(child, "key" if key else ROLES.get((type(node), field), ""))


def _changes(node: ast.AST, role: str, imported: set[str]) -> Iterator[tuple[str, ast.AST, str]]:
    """What to change in a node: in words, the node whose place names it, the text that takes this node's place."""
    if isinstance(node, REMOVED) and getattr(node, "value", node) is not None and node.col_offset:
        yield "statement gone", node, "pass"
    if role == "condition":
        if not (isinstance(node, ast.Compare) and len(node.ops) == 1):  # else that is another comparison
            yield "negated", node, f"(not ({ast.unparse(node)}))"
        yield "always true", node, "True"
        yield "always false", node, "False"
    elif role == "loop":
        yield "no round", node, "()"
    elif role == "default" and isinstance(node, ast.Constant) and node.value is None:
        yield "default None → 1", node, "1"
    if isinstance(node, ast.Compare):
        for i, (operator, right) in enumerate(zip(node.ops, node.comparators)):
            symbol = SYMBOLS[type(operator)]
            for other in COMPARISONS[symbol]:
                changed = copy.deepcopy(node)
                changed.ops[i] = _operator(other)
                yield f"{symbol} → {other}", right, f"({ast.unparse(changed)})"
    elif isinstance(node, ast.BinOp | ast.AugAssign) and (symbol := SYMBOLS.get(type(node.op))) in OPERATORS:
        changed, other, binary = copy.deepcopy(node), OPERATORS[symbol], isinstance(node, ast.BinOp)
        changed.op = _operator(other)
        text = f"({ast.unparse(changed)})" if binary else ast.unparse(changed)
        yield f"{symbol} → {other}", node.right if binary else node.value, text
    elif isinstance(node, ast.BoolOp):
        changed, symbol = copy.deepcopy(node), SYMBOLS[type(node.op)]
        other = "or" if symbol == "and" else "and"
        changed.op = _operator(other)
        yield f"{symbol} → {other}", node, f"({ast.unparse(changed)})"
        for i, value in enumerate(node.values):
            rest = node.values[:i] + node.values[i + 1 :]
            text = f" {symbol} ".join(f"({ast.unparse(part)})" for part in rest)
            yield "condition left out", value, f"({text})"
    elif isinstance(node, ast.UnaryOp) and type(node.op) in SYMBOLS:
        yield f"{SYMBOLS[type(node.op)]} gone", node, f"({ast.unparse(node.operand)})"
    elif isinstance(node, ast.Constant) and role != "key":
        for text in _other_constants(node.value):
            yield f"{node.value!r} → {text}", node, text
    elif isinstance(node, ast.Slice):
        for bound in ("lower", "upper", "step"):
            if getattr(node, bound) is not None:
                changed = copy.deepcopy(node)
                setattr(changed, bound, None)
                yield f"{bound} bound gone", getattr(node, bound), ast.unparse(changed)
    elif isinstance(node, ast.Attribute) and node.attr == "T":
        yield "transposition gone", node, f"({ast.unparse(node.value)})"
    elif isinstance(node, ast.Call):
        yield from _other_calls(node, imported)


def _other_constants(value: object) -> list[str]:
    if isinstance(value, bool):
        return [str(not value)]
    if isinstance(value, int):
        return [str(value + 1), f"({value - 1})"]
    if isinstance(value, float):
        return [str(value * 2 or 1.0)]
    return ['"mutant"'] if isinstance(value, str) else []


def _other_calls(node: ast.Call, imported: set[str]) -> Iterator[tuple[str, ast.AST, str]]:
    """A keyword left out, another function of the same shape, or what it is called on in place of its result."""
    for i, keyword in enumerate(node.keywords):
        if keyword.arg is not None:
            changed = copy.deepcopy(node)
            del changed.keywords[i]
            yield f"without {keyword.arg}", keyword, f"({ast.unparse(changed)})"
    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    if name in FUNCTIONS:
        changed, other = copy.deepcopy(node), FUNCTIONS[name]
        setattr(changed.func, "attr" if isinstance(node.func, ast.Attribute) else "id", other)
        yield f"{name} → {other}", node, f"({ast.unparse(changed)})"
    if name in TRIVIAL:
        return
    of_module = isinstance(node.func, ast.Name) or _root(node.func) in imported
    if of_module and node.args and not isinstance(node.args[0], ast.Starred):
        yield f"{name} gone", node, f"({ast.unparse(node.args[0])})"
    elif not of_module and isinstance(node.func, ast.Attribute):
        yield f"{name} gone", node, f"({ast.unparse(node.func.value)})"


def _root(node: ast.AST) -> str:
    """`np` of `np.random.default_rng`; nothing where something is called or indexed on the way."""
    while isinstance(node, ast.Attribute):
        node = node.value
    return node.id if isinstance(node, ast.Name) else ""
