"""Images: the embedded emoji drawings, and folders of the user's."""

from robustree.data.catalog import CATALOG, AuditImages, DataSet, emoji, folder_data, open_data
from robustree.data.drawings import compose, quickstart_classes, quickstart_drawings, stratified
from robustree.data.folder import Folder, png_bytes, read_folder, read_image

__all__ = [
    "CATALOG",
    "AuditImages",
    "DataSet",
    "Folder",
    "compose",
    "emoji",
    "folder_data",
    "open_data",
    "png_bytes",
    "quickstart_classes",
    "quickstart_drawings",
    "read_folder",
    "read_image",
    "stratified",
]
