"""The faults of stored proposals, which `KINDS` includes."""

from .fault_kind import Kind

PROPOSAL_KINDS: dict[str, Kind] = {
    "proposals-file": Kind(
        "files of proposals that cannot be used",
        "error",
        "Training would stop before its first step. The message says what to do.",
        sentence="{found}",
    ),
    "missing-proposals": Kind(
        "images without proposals in the file",
        "warning",
        "Nothing is detected in them, and only their ground truth is trained on. Compute theirs, or correct the names.",
        sentence="the file of proposals does not have this image",
    ),
    "proposal-outside": Kind(
        "images with proposals that lie outside, or have no area",
        "error",
        "Training stops at them. Often the boxes are of a resized image, or in another order (x, y, width, height).",
    ),
    "no-proposals": Kind(
        "images for which there are no proposals",
        "note",
        "Nothing can be detected in them. Lower the minimum side of a proposal if the images are small.",
    ),
}
