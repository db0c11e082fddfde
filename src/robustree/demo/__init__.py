"""The local page of `robustree demo`: attack one image step by step, and watch it in the tree.

`serving.serve(bench)` runs it; `page` lays it out; everything else turns models, images and audits into pictures and is
tested without a browser. Only `page` and `serving` import gradio."""
