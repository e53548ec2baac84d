"""Boxes in which an image may have an object, of any class: selective search."""

from .proposer import Proposer
from .selective_search import SearchStrategy, search_strategies, selective_search

__all__ = ["Proposer", "SearchStrategy", "search_strategies", "selective_search"]
