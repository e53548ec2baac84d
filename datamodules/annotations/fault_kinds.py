"""The closed set of faults of a data set: one table from code to sentence, severity, advice and correction."""

from .fault_kind import Kind as Kind
from .fault_kind import Severity as Severity
from .proposal_kinds import PROPOSAL_KINDS

_DROP_SAMPLE = "left out, with its objects"
_DROP_OR_MASK = "dropped; taken from the mask where there is one"

KINDS: dict[str, Kind] = {
    "unopened-split": Kind(
        "splits that cannot be opened",
        "error",
        "Training would stop before its first step. The message says what is wrong; fix it and check again.",
        sentence="{found}",
    ),
    "annotation-file": Kind(
        "annotation files that cannot be used",
        "error",
        "Their images are not checked any further. Write the files again, or remove their images from the list.",
        "the images are left out",
        "annotation file cannot be used: {found}",
        excludes_sample=True,
    ),
    "no-objects": Kind(
        "splits without a usable object",
        "error",
        "There is nothing to train on, or nothing to measure. The message says why.",
        sentence="{found}",
    ),
    "box-corners": Kind(
        "boxes that are two corners where a corner and a size are expected",
        "error",
        "Training rejects them: read as x, y, width, height, they would extend beyond their objects and images.",
        sentence="boxes look like two corners, x1, y1, x2, y2: {found}",
    ),
    "keypoints": Kind(
        "labels with keypoints where polygons are expected",
        "error",
        "Training rejects them: read as polygons, they would give wrong boxes. The message says what to do.",
        sentence="labels look like boxes with keypoints, not like polygons: {found}",
    ),
    "maybe-keypoints": Kind(
        "labels that may be boxes with keypoints, too few to tell",
        "warning",
        "They are read as polygons. Set points: polygons if they are, or points: keypoints.",
        sentence="labels may be boxes with keypoints: {found}",
    ),
    "many-crowds": Kind(
        "annotation files that mark many objects as crowds",
        "warning",
        "Never trained on. Some tools mark every brush mask as one; set crowds: objects if they are single objects.",
        sentence="{found}",
    ),
    "bad-area": Kind(
        "objects with an impossible area",
        "warning",
        "The area is zero, negative or larger than the image. It is computed from the mask or the box instead, but "
        "other tools would use it, and would report metrics by size that are wrong or NaN.",
        "computed from the mask or the box",
        "area is zero, negative or beyond the image",
    ),
    "missing-image": Kind(
        "images that do not exist",
        "error",
        "The annotations list them, but they are not in the folder. Download or unlist them.",
        _DROP_SAMPLE,
        "image does not exist",
        excludes_sample=True,
    ),
    "unreadable-image": Kind(
        "images that cannot be read",
        "error",
        "Empty, truncated or not an image. Training skips and counts them. Download them again.",
        _DROP_SAMPLE,
        excludes_sample=True,
    ),
    "damaged-image": Kind(
        "images with damaged data",
        "error",
        "The decoder reports missing or wrong data: parts are gray or displaced. Download them again.",
        _DROP_SAMPLE,
        excludes_sample=True,
    ),
    "bit-depth": Kind(
        "images with more than 8 bits, without a scaling",
        "error",
        "Training would stop at them: their scaling is unknown. Set scale_16bit, for all images alike.",
    ),
    "flat-image": Kind(
        "images without contrast",
        "note",
        "Their darkest and brightest pixels differ by less than 16 of 255 levels. They are empty "
        "scenes, or images with more bits that were saved with 8.",
    ),
    "unread-file": Kind(
        "files among the images that are not read",
        "warning",
        "Their format is not supported (HEIC, SVG, video …), they have no suffix, or they are outside the class "
        "folders. Convert images to JPEG or PNG, and move other files away.",
        sentence="left out: {found}",
    ),
    "same-stem": Kind(
        "images whose names differ only in the suffix",
        "warning",
        "They share an annotation file, which belongs to one of them. Keep that one, or rename the other.",
        sentence="{found}",
    ),
    "skipped-file": Kind(
        "files and folders that are left out",
        "note",
        "Files of systems and tools (@eaDir, __MACOSX, ._*), text files, and links to folders that are read already.",
        sentence="left out: {found}",
    ),
    "size-mismatch": Kind(
        "images whose annotations are for another size",
        "error",
        "Image and annotation belong to different versions, one was rotated (EXIF), or width and height are swapped. "
        "Training leaves these images out, since boxes and masks would be misplaced.",
        "left out, with their objects; if only the stated size is wrong, fix that instead",
        excludes_sample=True,
    ),
    "missing-annotation": Kind(
        "images without their annotation",
        "error",
        "Annotate them, or remove them from the set.",
        "left out",
        "annotation is missing: {found}",
        excludes_sample=True,
    ),
    "bad-target": Kind(
        "targets that the reader rejects",
        "error",
        "Training would stop at them. The message says what is wrong.",
        "left out",
        "{found}",
        excludes_sample=True,
    ),
    "label-outside": Kind(
        "labels outside the classes",
        "error",
        "A class is missing from the list, ids count from 1, or a mask has undeclared values.",
        "the object is dropped (objects), or the image left out (masks, classification)",
        "label is not a class, got {found}",
        excludes_sample="objectless",
    ),
    "similar-classes": Kind(
        "class names that are the same, or differ only in case, blanks or Unicode form",
        "error",
        "Probably one class, which would be learned as several. Rename them, or set merge_similar_classes: true.",
        sentence="{found}",
    ),
    "binary-mask": Kind(
        "masks of 0 and 255 whose 255 is ignored",
        "error",
        "The second class would not be learned, and a perfect score reported. Set classes: {0: 0, 255: 1}.",
        sentence="{found}",
    ),
    "absent-class": Kind(
        "classes without a training sample",
        "warning",
        "They cannot be learned. Annotate some, or remove these classes; for masks, look at their values and classes.",
    ),
    "unused-class": Kind(
        "classes without any sample",
        "note",
        "This is intended if the list of classes is that of a larger data set. They cannot be learned.",
    ),
    "turned-mask": Kind(
        "images that EXIF turns, but not their masks",
        "warning",
        "Masks must match the displayed image. One that was drawn on the pixels as they are stored lies upside down: "
        "look at the pictures, and if it does, save the image without its EXIF orientation.",
        sentence="{found}",
    ),
    "turned-image": Kind(
        "images with boxes or masks that EXIF turns",
        "note",
        "Boxes and masks must match the displayed image. If they were drawn on the pixels as they are stored, save the "
        "images without their EXIF orientation.",
    ),
    "merged-objects": Kind(
        "masks of one value with several separate parts",
        "warning",
        "They are trained as one object. If each part is an object, set split_components: true.",
        sentence="{found}",
    ),
    "no-background": Kind(
        "instance masks that may have another background than 0",
        "warning",
        "No pixel is 0, so that the background is trained on as an object. Write 0 where there is no object.",
        sentence="{found}",
    ),
    "smoothed-mask": Kind(
        "masks with smoothed edges",
        "error",
        "Gray values along edges are trained on as objects or classes. Save them without antialiasing or resizing.",
        sentence="{found}",
    ),
    "class-name": Kind(
        "class names that may be mistakes",
        "warning",
        "Each name is a class of its own. Correct the annotations, or list the classes in class_names.",
        sentence="{found}",
    ),
    "unknown-image": Kind(
        "annotations of images that are not listed",
        "error",
        "Training rejects such a file. List the image, or remove the annotation.",
        "dropped",
        "image is not listed, got {found}",
    ),
    "box-not-finite": Kind(
        "boxes with a coordinate that is NaN or infinite",
        "error",
        "Training drops these objects, and their pixels become background. Draw the boxes again.",
        _DROP_OR_MASK,
        "box has a coordinate that is NaN or infinite",
    ),
    "box-zero-area": Kind(
        "boxes of zero width or height",
        "error",
        "Training drops these objects. Often a click instead of a drag; draw them again.",
        _DROP_OR_MASK,
        "box has zero width or height",
    ),
    "box-inverted": Kind(
        "boxes with swapped corners",
        "error",
        "Training drops these objects. Corners were swapped, or another format (x, y, width, height) was meant.",
        "corners are reordered; dropped if that leaves nothing usable",
        "box has swapped corners",
    ),
    "box-outside": Kind(
        "boxes outside their image",
        "error",
        "Training drops these objects. Often the image was cropped or resized after it was annotated.",
        _DROP_OR_MASK,
        "box lies outside its image",
    ),
    "box-far-beyond": Kind(
        "boxes with a coordinate beyond ten times the side of their image",
        "error",
        "Training rejects them: clipped, they would cover their images. Correct them, or remove these objects.",
        _DROP_OR_MASK,
        "box has a coordinate beyond ten times its image{found}",
    ),
    "box-beyond": Kind(
        "boxes that extend beyond their image by a pixel or more",
        "warning",
        "Training clips them. Harmless if few; if many, boxes and images may be of different sizes.",
        "clipped",
        "box extends beyond its image",
    ),
    "box-tiny": Kind(
        "boxes below 2 pixels, or far below the sizes of the others",
        "warning",
        "Often a click instead of a drag. They are trained on and evaluated. Draw them again, or delete them.",
    ),
    "box-normalized": Kind(
        "boxes in fractions of the image where pixels are expected",
        "error",
        "Training rejects them: read as pixels, each would be a speck in the corner. The message says what to do.",
        sentence="boxes are fractions of the image, but must be in pixels: {found}",
    ),
    "box-percent": Kind(
        "boxes that may be percentages of their images",
        "warning",
        "Read as pixels, all objects would lie in the upper left corner. If they are percentages, write pixels.",
        sentence="boxes may be percentages of their images: {found}",
    ),
    "box-in-pixels": Kind(
        "boxes in pixels where fractions of the image are expected",
        "error",
        "Training rejects them: read as fractions, none would lie in its image. The message says what to do.",
        sentence="boxes are in pixels, but must be fractions of the image: {found}",
    ),
    "box-mixed-units": Kind(
        "boxes in another unit than the others of their file",
        "error",
        "Some are in pixels and some are fractions of the image, so some are read wrong. Write all in one unit.",
        sentence="boxes are in several units: {found}",
    ),
    "bad-mask": Kind(
        "objects whose mask cannot be used",
        "error",
        "Training drops these objects.",
        "dropped",
        "mask cannot be used: {found}",
    ),
    "empty-mask": Kind(
        "masks without a pixel",
        "error",
        "There is nothing to learn from: an object whose polygon covers no pixel, or an image that is all ignored.",
        "the object is dropped (objects), or the image left out (semantic masks)",
        excludes_sample="objectless",
    ),
    "mask-box": Kind(
        "masks that disagree with their boxes",
        "warning",
        "Box (red) and mask (yellow) lie apart: one of them belongs to another object, or was edited alone.",
        "the box is taken from the mask",
    ),
    "duplicate-object": Kind(
        "objects annotated twice",
        "warning",
        "Same image, class and box. One of them can never be matched: a perfect detector would miss it.",
        "the later ones are dropped",
    ),
    "duplicate-image": Kind(
        "images that occur twice in a split, pixel for pixel",
        "warning",
        "They count double, and may carry different annotations. Keep one.",
        "the first is kept, unless their labels differ; entries of one file are merged, with all objects",
        "image is listed before, got {found}",
    ),
    "leaked-image": Kind(
        "images that occur in two splits, pixel for pixel",
        "warning",
        "Leakage: the model is evaluated on images that it was trained on.",
        "left out of the training split (of val, if the image is in val and test)",
    ),
    "leaked-split": Kind(
        "splits that contain the training images",
        "warning",
        "The model is evaluated on images that it was trained on. Hold out a part of the data.",
    ),
    "near-duplicate": Kind(
        "images of a split that look the same",
        "note",
        "Copies in another size or quality, or neighboring frames. They count double.",
    ),
    "near-leak": Kind(
        "images that look the same as one of another split",
        "warning",
        "Leakage by copies in another size or quality, or by frames of one film: split by film, place or patient.",
    ),
    "orphan-image": Kind(
        "image files that no annotation lists",
        "warning",
        "They lie among the images and are never read. Annotate, list or delete them.",
    ),
    "orphan-annotation": Kind(
        "annotation files without an image",
        "warning",
        "They lie among the annotations and are never read. Download their images, or delete them.",
    ),
    "unused-image": Kind(
        "image files that no split of this configuration reads",
        "note",
        "This is intended if the configuration selects a part of the data.",
    ),
    "crash": Kind(
        "images at which the reading process died",
        "error",
        "A decoder crashed, or memory ran out. In training this kills a loader's worker, and with it the run.",
        _DROP_SAMPLE,
        excludes_sample=True,
    ),
    "unlabeled-task": Kind(
        "tasks without an annotation",
        "warning",
        "Their images are left out. Annotate them, or submit an empty annotation for an image without objects.",
        sentence="left out: no annotation, or only cancelled ones",
    ),
    "unusable-annotation": Kind(
        "annotations that cannot be read",
        "error",
        "Training drops them, with one counted warning, or stops at the first.",
        "dropped",
        "{found}",
    ),
    **PROPOSAL_KINDS,
}
