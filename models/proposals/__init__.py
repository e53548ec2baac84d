"""Boxes in which an image may have an object, of any class: selective search."""

from .proposer import Proposer
from .selective_search import SearchStrategy, search_strategies, selective_search
from .sliding_windows import sliding_windows

__all__ = ["Proposer", "SearchStrategy", "search_strategies", "selective_search", "sliding_windows"]
