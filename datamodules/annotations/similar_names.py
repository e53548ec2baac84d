"""Class names that differ only in case, blanks or Unicode form, and how they are merged."""

from collections.abc import Iterable, Sequence

from ..images.file_names import composed


def canonical(name: str) -> str:
    """Return a name as it is compared with others: composed, without outer or repeated blanks, in one case.

    >>> canonical(" Traffic  Light") == canonical("traffic light")
    True
    """
    return " ".join(composed(name).split()).casefold()


def similar_names(names: Iterable[str]) -> list[list[str]]:
    """Return the groups of different names that mean the same, each sorted, in the order of their first names.

    >>> similar_names(["cat", "dog", "Cat", "dog "])
    [['Cat', 'cat'], ['dog', 'dog ']]
    """
    groups: dict[str, set[str]] = {}
    for name in names:
        groups.setdefault(canonical(name), set()).add(name)
    return sorted(sorted(group) for group in groups.values() if len(group) > 1)


def describe_similar(groups: Sequence[Sequence[str]]) -> str:
    """Format groups of names for a message: ``'Cat' and 'cat'; 'dog' and 'dog '``."""
    return "; ".join(" and ".join(map(repr, group)) for group in groups[:5]) + ("; …" if len(groups) > 5 else "")


def merged_names(names: Iterable[str]) -> dict[str, str]:
    """Return the name of the class that each name means: the first of its group in sorted order, without outer blanks.

    >>> merged_names(["cat", "dog ", "Cat"])
    {'cat': 'Cat', 'dog ': 'dog', 'Cat': 'Cat'}
    """
    names = list(names)
    first: dict[str, str] = {}
    for name in sorted(name.strip() for name in names):
        first.setdefault(canonical(name), name)
    return {name: first[canonical(name)] for name in names}
