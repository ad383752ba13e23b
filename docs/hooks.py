"""What MkDocs has to know of files outside docs/: manuals become pages of the site, links to other files plain text."""

import posixpath
import re
from pathlib import Path

from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]
PAGES = {  # file of the repository: page of the site
    "config/README.md": "reference/config.md",
    "profiles/README.md": "reference/profiles.md",
    "tests/benchmarks/README.md": "reference/benchmarks.md",
}
LINK = re.compile(r"(?<!!)\[([^\]]+)\]\(([^)\s]+)\)")


def on_files(files, config):
    """Add the manuals to the pages."""
    for source, page in PAGES.items():
        files.append(File.generated(config, page, abs_src_path=str(ROOT / source)))
    return files


def on_page_markdown(markdown, page, config, files):
    """Make links between docs/ and the rest of the repository right for the site; a broken one stays, and is an error."""
    own = page.file.src_uri
    source = next((file for file, name in PAGES.items() if name == own), f"docs/{own}")

    def rewritten(match):
        text, target = match.groups()
        path, hash_sign, anchor = target.partition("#")
        if not path or ":" in path:
            return match[0]
        file = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
        if file in PAGES or file.startswith("docs/"):
            goal = PAGES.get(file, file.removeprefix("docs/"))
            return f"[{text}]({posixpath.relpath(goal, posixpath.dirname(own) or '.')}{hash_sign}{anchor})"
        return text if (ROOT / file).exists() else match[0]

    return LINK.sub(rewritten, markdown.replace("\\<", "&lt;"))  # which Python-Markdown does not know
