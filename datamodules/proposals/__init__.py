"""Stored proposals: boxes in which an object may be, computed once for all images of a data set."""

from .attach import SampleProposals, image_fingerprint, open_proposals
from .compute import ProposalJob, compute_proposals
from .stored import ProposalTable, read_proposals, write_proposals

__all__ = [
    "ProposalJob",
    "ProposalTable",
    "SampleProposals",
    "compute_proposals",
    "image_fingerprint",
    "open_proposals",
    "read_proposals",
    "write_proposals",
]
