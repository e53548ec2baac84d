"""Measure the source tree: imports and circles, private names of third parties, sizes, docstrings and shapes.

``python -m striate.tests.helpers.house`` prints the table of docs/design.md.
"""

import ast
import importlib
import inspect
import io
import re
import textwrap
import tokenize
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import striate

ROOT = Path(striate.__file__).parent
PARTS = ("models", "datamodules", "tasks", "callbacks", "experiments", "benchmarks")
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
SHAPE = re.compile(r"\[[^\[\]\n]*\b([A-Z]\w*|\d+)\b[^\[\]\n]*\]|``\[[^\[\]\n]+\]``")
"""A shape such as ``[B, 3, H, W]``: brackets around a capitalized name or a number, or any as code, ``[n, k]``."""
TENSOR = re.compile(r"\b(Tensor|ndarray)\b")

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Module:
    """One source file.

    Attributes:
        name: Dotted name, such as ``striate.models.fcn``; a package's ``__init__`` has the name of the package.
        path: Location of the file.
    """

    name: str
    path: Path

    @cached_property
    def text(self) -> str:
        return self.path.read_text(encoding="utf-8")

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)

    @property
    def package(self) -> str:
        """The package that relative imports start from."""
        return self.name if self.path.name == "__init__.py" else self.name.rpartition(".")[0]


def modules_below(folder: Path, package: str) -> list[Module]:
    """All modules of a package that lies in `folder`."""
    found = []
    for path in sorted(folder.rglob("*.py")):
        parts = path.relative_to(folder).with_suffix("").parts
        found.append(Module(".".join([package, *parts]).removesuffix(".__init__"), path))
    return found


def modules() -> list[Module]:
    """All modules of striate but its tests."""
    top = [Module("striate", ROOT / "__init__.py"), Module("striate.__main__", ROOT / "__main__.py")]
    return top + [module for part in PARTS for module in modules_below(ROOT / part, f"striate.{part}")]


# ---------------------------------------------------------------------------------------------------- imports


def imports(module: Module) -> Iterator[tuple[str, str | None]]:
    """Yield a module's imports, those in functions included: ``(module, name)``, or ``(module, None)``."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = module.package.split(".")[: len(module.package.split(".")) - node.level + 1]
                base = ".".join([*above, *filter(None, [node.module])])
            yield from ((base, alias.name) for alias in node.names)


def bound_names(tree: ast.Module) -> set[str]:
    """Names that the top level of a module defines or imports from elsewhere than its own submodules."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, Function | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.update(alias.asname or alias.name for alias in node.names)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
    return names


def import_graph(modules: Iterable[Module]) -> dict[str, set[str]]:
    """The modules that each module imports.

    ``from ..package import name`` leads to ``package.name`` if that is a module, and to the ``__init__`` of the package
    if the name is defined or re-exported there. The ``__init__`` files that Python runs on the way to a submodule
    do not count.
    """
    known = {module.name: module for module in modules}
    graph: dict[str, set[str]] = {name: set() for name in known}
    for module in known.values():
        for base, name in imports(module):
            submodule = f"{base}.{name}"
            target = submodule if submodule in known and name not in bound_names(known[base].tree) else base
            if target in known and target != module.name:
                graph[module.name].add(target)
    return graph


def find_circle(graph: Mapping[str, Iterable[str]]) -> list[str]:
    """A circle of imports, from a module back to itself; empty if there is none.

    >>> find_circle({"a": ["b"], "b": ["c"], "c": ["b"], "d": []})
    ['b', 'c', 'b']
    """
    done: set[str] = set()

    def search(name: str, path: list[str]) -> list[str]:
        if name in path:
            return [*path[path.index(name) :], name]
        if name in done:
            return []
        for target in sorted(graph[name]):
            if circle := search(target, [*path, name]):
                return circle
        done.add(name)
        return []

    return next((circle for name in sorted(graph) if (circle := search(name, []))), [])


# ----------------------------------------------------------------------------------------------- private names


DOCUMENTED_PRIVATE = ("_replace", "_make", "_asdict", "_fields", "_exit")
"""Public names of named tuples and of ``os``."""


def is_private(name: str) -> bool:
    """Whether a name has a leading underscore and is not ``_``, a dunder or part of a named tuple's interface."""
    return name.startswith("_") and name.strip("_") != "" and not name.endswith("__") and name not in DOCUMENTED_PRIVATE


def own_private_names(modules: Iterable[Module]) -> set[str]:
    """Private names that the modules define: functions, classes, variables, fields, attributes and parameters."""
    names = set()
    for module in modules:
        for node in ast.walk(module.tree):
            if isinstance(node, Function | ast.ClassDef):
                names.add(node.name)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                names.add(node.id)
            elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and _is_self(node.value):
                names.add(node.attr)
            elif isinstance(node, ast.Call) and _called(node) == "register_buffer" and node.args:
                names.add(getattr(node.args[0], "value", ""))
    return {name for name in names if is_private(name)}


def _is_self(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id in ("self", "cls")


def _called(node: ast.Call) -> str:
    return getattr(node.func, "id", getattr(node.func, "attr", ""))


def foreign_private_names(modules: Iterable[Module]) -> set[tuple[str, str]]:
    """Private names of third parties that modules import, read or override: ``(module, name)``.

    Modules named ``compat`` are exempt: they are the place for such names.
    """
    modules = list(modules)
    own = own_private_names(modules)
    found = set()
    for module in modules:
        if module.name.endswith(".compat"):
            continue
        for base, name in imports(module):
            words = [*base.split("."), *filter(None, [name])]
            if not base.startswith("striate"):
                found.update((module.name, word) for word in words if is_private(word))
        for node in ast.walk(module.tree):
            name = None
            if isinstance(node, ast.Attribute):
                name = node.attr
            elif isinstance(node, ast.Call) and _called(node) in ("getattr", "hasattr", "setattr", "delattr"):
                name = getattr(node.args[1], "value", None)
            if isinstance(name, str) and is_private(name) and name not in own:
                found.add((module.name, name))
        found.update((module.name, name) for name in _overridden(module))
    return found


def _overridden(module: Module) -> set[str]:
    """Private methods and attributes of foreign base classes that the classes of a module define or use on ``self``."""
    found = set()
    classes = [node for node in ast.walk(module.tree) if isinstance(node, ast.ClassDef)]
    if module.name.endswith("__main__") or not classes:
        return found
    namespace = vars(importlib.import_module(module.name))
    for node in classes:
        cls = namespace.get(node.name)
        if not isinstance(cls, type):  # defined in a function
            continue
        used = {
            inner.name if isinstance(inner, Function) else inner.attr
            for inner in ast.walk(node)
            if isinstance(inner, Function) or (isinstance(inner, ast.Attribute) and _is_self(inner.value))
        }
        for base in cls.__mro__:
            if not base.__module__.startswith(("striate", "builtins")):
                found |= used & private_attributes(base)
    return found


def private_attributes(cls: type) -> set[str]:
    """Private names in a class body and those that its methods set on ``self``."""
    try:
        source = textwrap.dedent(inspect.getsource(cls))
    except (OSError, TypeError):
        source = ""
    names = {*vars(cls), *re.findall(r"self\.(_\w+)(?: *:[^=\n]+)? *=[^=]", source)}
    return {name for name in names if is_private(name)}


# ------------------------------------------------------------------------------------------- sizes and docstrings


def functions(tree: ast.AST, owner: ast.ClassDef | None = None) -> Iterator[tuple[Function, ast.ClassDef | None]]:
    """All functions below a node, each with the class it is a method of."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ClassDef):
            yield from functions(node, node)
        elif isinstance(node, Function):
            yield node, owner
            yield from functions(node)
        else:
            yield from functions(node, owner)


def length(node: Function) -> int:
    """Lines of a function, from ``def`` to its end."""
    return (node.end_lineno or node.lineno) - node.lineno + 1


def long_functions(modules: Iterable[Module], limit: int = 60) -> list[str]:
    """Functions of more than `limit` lines."""
    return [
        f"{module.name}.{node.name}: {length(node)} lines"
        for module in modules
        for node, _ in functions(module.tree)
        if length(node) > limit
    ]


def long_files(modules: Iterable[Module], limit: int = 400) -> list[str]:
    """Files of more than `limit` lines."""
    counts = ((module.name, module.text.count("\n")) for module in modules)
    return [f"{name}: {count} lines" for name, count in counts if count > limit]


def docstrings(modules: Iterable[Module]) -> list[tuple[str, str]]:
    """All docstrings: ``(module.name, text)``."""
    return [
        (f"{module.name}.{getattr(node, 'name', '')}".rstrip("."), text)
        for module in modules
        for node in ast.walk(module.tree)
        if isinstance(node, DOCUMENTED) and (text := ast.get_docstring(node))
    ]


def short_docstrings(modules: Iterable[Module], least: int = 30) -> list[str]:
    """Docstrings of fewer than `least` characters."""
    return [f"{name}: {text}" for name, text in docstrings(modules) if len(text) < least]


def takes_tensors(node: Function) -> bool:
    """Whether an argument or the result is annotated as a tensor or array. Dictionaries of them do not count."""
    annotations = [arg.annotation for arg in node.args.args + node.args.kwonlyargs] + [node.returns]
    texts = [ast.unparse(annotation) for annotation in annotations if annotation is not None]
    return any(TENSOR.search(text) and "Mapping[str" not in text and "dict[str" not in text for text in texts)


def states_shape(node: Function, owner: ast.ClassDef | None, comments: Mapping[int, str]) -> bool:
    """Whether the docstring of a function gives a shape or says ``scalar``.

    For ``forward`` the docstring of the class counts too, and for private and nested functions the comments.
    """
    texts = [ast.get_docstring(node) or ""]
    if node.name == "forward" and owner is not None:
        texts.append(ast.get_docstring(owner) or "")
    if node.name.startswith("_") or texts == [""]:  # a nested function has no docstring
        texts += [text for line, text in comments.items() if node.lineno <= line <= (node.end_lineno or 0)]
    return any(SHAPE.search(text) or "scalar" in text.lower() for text in texts)


def comments(module: Module) -> dict[int, str]:
    """Comments of a module by line number."""
    tokens = tokenize.generate_tokens(io.StringIO(module.text).readline)
    return {token.start[0]: token.string for token in tokens if token.type == tokenize.COMMENT}


def tensor_functions(modules: Iterable[Module]) -> dict[str, bool]:
    """Functions that take or return tensors or arrays, and whether they state a shape."""
    stated = {}
    for module in modules:
        remarks = comments(module)
        for node, owner in functions(module.tree):
            if takes_tensors(node):
                name = ".".join(filter(None, [module.name, owner and owner.name, node.name]))
                stated[f"{name}:{node.lineno}"] = states_shape(node, owner, remarks)
    return stated


def code_lines(module: Module) -> int:
    """Lines that are neither blank, nor a comment, nor part of a docstring."""
    documentation: set[int] = set()
    for node in ast.walk(module.tree):
        if isinstance(node, DOCUMENTED) and ast.get_docstring(node):
            documentation.update(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
    lines = enumerate(module.text.splitlines(), 1)
    return sum(bool(line.strip()) and not line.lstrip().startswith("#") and n not in documentation for n, line in lines)


def small_helpers(modules: Iterable[Module], limit: int = 4) -> list[str]:
    """Private functions of fewer than `limit` lines, docstring apart, that are named in one place only."""
    modules = list(modules)
    words = Counter(word for module in modules for word in re.findall(r"\w+", module.text))
    found = []
    for module in modules:
        for node, _ in functions(module.tree):
            start = node.body[bool(ast.get_docstring(node)) and len(node.body) > 1]
            lines = (node.end_lineno or 0) - start.lineno + 1
            if is_private(node.name) and lines < limit and words[node.name] == 2 and not node.decorator_list:
                found.append(f"{module.name}.{node.name}")
    return found


def measure() -> dict[str, str]:
    """The numbers of docs/design.md."""
    source = modules()
    lines = {module.name: module.text.count("\n") for module in source}
    code, remarks = sum(map(code_lines, source)), sum(len(comments(module)) for module in source)
    stated = tensor_functions(source)
    return {
        "files": str(len(source)),
        "lines": f"{sum(lines.values()):,}",
        "lines of `datamodules/doctor`": f"{sum(n for name, n in lines.items() if '.doctor' in name):,}",
        "private helpers under 4 lines, named once": str(len(small_helpers(source))),
        "tensor functions that state a shape": f"{sum(stated.values())} of {len(stated)}",
        "docstrings under 30 characters": f"{len(short_docstrings(source))} of {len(docstrings(source))}",
        "functions above 60 lines": str(len(long_functions(source))),
        "files above 400 lines": str(len(long_files(source))),
        "comments per 100 lines of code": f"{100 * remarks / code:.1f}",
        "lines of tests": f"{sum(m.text.count(chr(10)) for m in modules_below(ROOT / 'tests', 'striate.tests')):,}",
    }


if __name__ == "__main__":
    for label, value in measure().items():
        print(f"| {label} | {value} |")
