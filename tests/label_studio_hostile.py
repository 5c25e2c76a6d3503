"""Names of categories that try to be more than text, as a model could give them."""

MUTATION = "<math><mtext><mglyph><style></math><img src onerror=alert(10)></style></mglyph></mtext></math>"
"""Runs in a tile's HTML when it is not escaped (label_studio.md §5)."""

HOSTILE = [
    "<img src=x onerror=alert(1)>",
    MUTATION,
    '"><script>alert(2)</script>',
    "' onmouseover='alert(3)",
    "</b><style>* { display: none }</style>",
    "$page_id and {{idx}} &lt;b&gt;",
]
