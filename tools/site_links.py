"""A hook of MkDocs: links from docs/ to the rest of the repository lead to its page on GitHub."""

from __future__ import annotations

import re
from typing import Any


def on_page_markdown(markdown: str, *, config: Any, **_: Any) -> str:
    """Returns the page with links such as ../README.md changed; MkDocs only knows docs/."""
    if not config.repo_url:
        return re.sub(r"(?<!!)\[([^\]]*)\]\(\.\./[^)]*\)", r"\1", markdown)
    return re.sub(r"\]\(\.\./", f"]({config.repo_url.rstrip('/')}/blob/main/", markdown)
