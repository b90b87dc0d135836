"""Before any training starts: every label map has the size of its photo, and the pairs can be read."""

from contextlib import nullcontext, suppress

from trainer.data.dataset import Dataset
from trainer.data.decode import BrokenFile
from trainer.data.loader import Streams

READ_WHOLE = 50
"""How many pairs are decoded; of all others, and of the unpaired samples, the heads of the files are read (about 0.1 ms each)."""


def refuse_unsound(dataset: Dataset, streams: Streams, *, skip_broken: bool = False) -> None:
    """Raises UserError on a label whose size differs from its photo's, or that holds a class which the table lacks.

    Files that cannot be read raise BrokenFile, unless they may be skipped.
    """
    lender = streams.labels_from or dataset
    paired = {(sample.photo, sample.label) for sample in streams.pairs}
    for place, sample in enumerate(streams.pairs):
        with suppress(BrokenFile) if skip_broken else nullcontext():
            if place < READ_WHOLE:
                dataset.read_photo(sample)
                dataset.read_label(sample)  # which compares its size with the photo's
            else:
                dataset.refuse_sizes(sample)
    for sample in streams.photos:
        with suppress(BrokenFile) if skip_broken else nullcontext():
            dataset.size(sample, "photo")
    for sample in streams.labels:
        if lender is not dataset or (sample.photo, sample.label) not in paired:
            with suppress(BrokenFile) if skip_broken else nullcontext():
                lender.refuse_sizes(sample)
