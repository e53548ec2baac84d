"""Hooks of the documentation site: pages that are not in this folder, and links between names and their reference.

mkdocs calls the functions ``on_…``. The front page is README.md, and the changelog CHANGELOG.md. The reference has one
entry for every name that a package of striate exports, on the page of the first package that exports it, so that
nothing is documented twice. Nothing of striate is imported.
"""

import ast
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import griffe
from mkdocs.plugins import event_priority
from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]
PARTS = {"models": "Models", "datamodules": "Data modules", "tasks": "Tasks", "callbacks": "Callbacks"}
OUTSIDE = {"../README.md": "index.md", "CHANGELOG.md": "changelog.md", "../CHANGELOG.md": "changelog.md"}
"""Links in the sources to pages that have another name here."""


class PublicName(NamedTuple):
    """A name that a package exports."""

    package: str
    """The first package that exports it, such as ``striate.models``."""
    name: str
    group: str
    """The folder or file below the package that it comes from."""

    @property
    def path(self) -> str:
        """Where users import it from."""
        return f"{self.package}.{self.name}"


def exported(package: str) -> Iterator[tuple[str, str]]:
    """Yield the names in ``__all__`` of a package, each with the module that it is imported from."""
    path = ROOT.joinpath(*package.split(".")[1:], "__init__.py")
    tree = ast.parse(path.read_text(encoding="utf-8")) if path.is_file() else ast.Module([], [])
    origin = {
        alias.asname or alias.name: f"{package.rsplit('.', node.level - 1)[0]}.{node.module}"
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and node.level
        for alias in node.names
    }
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            for name in ast.literal_eval(node.value):
                yield name, origin.get(name, package)


def defining_module(package: str, name: str) -> str:
    """The module that defines an exported name, through any number of packages that pass it on."""
    module = dict(exported(package)).get(name, package)
    return package if module == package else defining_module(module, name)


def public_names() -> list[PublicName]:
    """All exported names, each once, under the highest package that exports it."""
    found: dict[tuple[str, str], PublicName] = {}
    inits = [path for part in PARTS for path in (ROOT / part).rglob("__init__.py")]
    for init in [ROOT / "__init__.py", *sorted(inits, key=lambda path: (len(path.parts), path))]:
        package = ".".join(["striate", *init.parent.relative_to(ROOT).parts])
        for name, module in exported(package):
            group = module.removeprefix(package).strip(".").partition(".")[0]
            found.setdefault((defining_module(package, name), name), PublicName(package, name, group))
    return list(found.values())


def reference_pages() -> dict[str, tuple[str, list[str]]]:
    """The pages of the reference: path -> title, and the names on the page, in alphabetical order.

    A large package has a page per folder, which its smaller packages share.
    """
    pages: dict[str, tuple[str, list[str]]] = {}
    for public in sorted(public_names(), key=lambda public: public.name.lower()):
        part, *rest = public.package.split(".")[1:] or ["striate"]
        group = (*rest, public.group)[0] if part in ("models", "datamodules") or rest else ""
        file, title = (f"{part}-{group}", f"striate.{part}: {group}") if group else (part, f"striate.{part}")
        title = "striate" if part == "striate" else title
        pages.setdefault(f"reference/{file}.md", (title, []))[1].append(public.path)
    return dict(sorted(pages.items()))


def page_text(title: str, names: list[str]) -> str:
    """The Markdown of a page of the reference."""
    return "\n\n".join([f"# {title.replace('_', ' ')}", *(f"::: {name}" for name in names)]) + "\n"


def relinked(text: str) -> str:
    """A page with links between the sources turned into links between pages; a link to code becomes its text."""

    def replace(match: re.Match[str]) -> str:
        label, target, anchor = match[1], match[2], match[3] or ""
        if target.endswith(".py"):
            return f"`{label}`"
        return f"[{label}]({OUTSIDE.get(target, target.removeprefix('docs/'))}{anchor})"

    return re.sub(r"\[([^\]]*)\]\(([\w./-]+)(#[\w-]+)?\)", replace, text)


class Examples(griffe.Extension):
    """Shows the code of docstrings as code: griffe knows the section "Examples", and would quote other ``>>>``."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rename the section of an object's docstring, or add it to code that has none."""
        if obj.docstring is not None:
            text = re.sub(r"(?m)^Example:$", "Examples:", obj.docstring.value)
            obj.docstring.value = re.sub(r"(?m)(?<=\n\n)(?:(?:>>>|\.\.\.).*\n?(?:\S.*\n?)*)+", _as_section, text)


def _as_section(code: re.Match[str]) -> str:
    return "Examples:\n" + "".join(f"    {line}" for line in code[0].splitlines(keepends=True))


# -- hooks ---------------------------------------------------------------------------------------------------------


@event_priority(100)
def on_config(config: Any) -> Any:
    """Let the handler of docstrings find striate under any name of the checkout, and list the reference in the menu."""
    folder = Path(tempfile.mkdtemp(prefix="striate-docs-"))
    (folder / "striate").symlink_to(ROOT, target_is_directory=True)
    # before the plugin reads its configuration
    config.plugins["mkdocstrings"].config["handlers"]["python"]["paths"] = [str(folder)]
    entries: dict[str, list[dict[str, str]]] = {}
    for path, (title, _) in reference_pages().items():
        part = title.partition(":")[0].removeprefix("striate").strip(".") or "striate"
        entries.setdefault(PARTS.get(part, part), []).append({title.rpartition(": ")[2].replace("_", " "): path})
    config.nav.insert(-1, {"Reference": [{part: pages} for part, pages in entries.items()]})
    return config


def on_files(files: Any, config: Any) -> Any:
    """Add the pages whose text is elsewhere."""
    texts = {
        "index.md": relinked((ROOT / "README.md").read_text(encoding="utf-8")),
        "changelog.md": relinked((ROOT / "CHANGELOG.md").read_text(encoding="utf-8")),
    }
    texts |= {path: page_text(*content) for path, content in reference_pages().items()}
    for path, text in texts.items():
        files.append(File.generated(config, path, content=text))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Turn links between the sources into links between pages."""
    return relinked(markdown)


def on_page_content(html: str, **_: Any) -> str:
    """Link names in code to their reference."""
    known = {public.name: public.path for public in public_names()}
    code = re.compile(r"(?<!>)<code>(?:striate\.\w+\.)?(\w+)</code>(?!</a>)")
    return code.sub(
        lambda match: (
            f'<autoref identifier="{known[match[1]]}" optional>{match[0]}</autoref>' if match[1] in known else match[0]
        ),
        html,
    )
