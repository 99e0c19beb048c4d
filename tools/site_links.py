"""A hook of MkDocs: links from docs/ to the rest of the repository lead to GitHub."""

from __future__ import annotations

import re
from typing import Any


def on_page_markdown(markdown: str, *, config: Any, **_: Any) -> str:
    """Returns the page with links such as ../README.md changed; MkDocs only knows docs/."""
    return re.sub(r"\]\(\.\./", f"]({config.repo_url.rstrip('/')}/blob/main/", markdown)
