"""The report of an audit: figures into one HTML page, Markdown and JSON, without torch.

`page.write_report(folder)` makes all three from the files of the folder; the other modules are its parts."""
