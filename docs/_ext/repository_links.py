"""Links that lead out of docs/, as code hosts show them: files are offered by the site, folders are only named."""

import re
from pathlib import Path

from sphinx.util import logging

LINK = re.compile(r"\[([^\]\n]+)\]\((\.\./[^)#\s]+)\)")
PAGES = {"../CHANGELOG.md": "changelog.md", "../LICENSE": "license.md"}
logger = logging.getLogger(__name__)


def rewritten(app, docname, source):
    """Lead links to what the site has."""

    def target(match):
        text, path = match.groups()
        place = Path(app.srcdir, path)
        if not place.exists():
            logger.warning("%s leads nowhere", path, location=docname)
        if path in PAGES:
            return f"[{text}]({PAGES[path]})"
        return text if place.is_dir() else f"{{download}}`{text.strip('`')} <{path}>`"

    source[0] = LINK.sub(target, source[0])


def setup(app):
    app.connect("source-read", rewritten)
    return {"parallel_read_safe": True}
