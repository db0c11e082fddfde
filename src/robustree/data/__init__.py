"""Images: records of data sets by name, readers of files, and the embedded emoji drawings."""

from robustree.data.catalog import DataSet, data_over, emoji, named_record, nothing_there, open_data, streamed
from robustree.data.decoding import Decoded, Pixels, batches, png_bytes, read_image
from robustree.data.drawings import compose, quickstart_classes, quickstart_drawings
from robustree.data.encoded import EncodedImages
from robustree.data.images import AuditImages, Augmented, audited
from robustree.data.readers import read_folder, read_images
from robustree.data.record import Record
from robustree.data.records import CATALOG
from robustree.data.shards import Shards, Streamed, open_shards
from robustree.data.splits import stratified

__all__ = [
    "CATALOG",
    "AuditImages",
    "Augmented",
    "DataSet",
    "Decoded",
    "EncodedImages",
    "Pixels",
    "Record",
    "Shards",
    "Streamed",
    "audited",
    "batches",
    "compose",
    "data_over",
    "emoji",
    "named_record",
    "nothing_there",
    "open_data",
    "open_shards",
    "png_bytes",
    "quickstart_classes",
    "quickstart_drawings",
    "read_folder",
    "read_image",
    "read_images",
    "stratified",
    "streamed",
]
