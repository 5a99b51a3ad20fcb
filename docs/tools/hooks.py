"""Hooks of mkdocs: execute the code of the pages, and typeset their formulas.

All pages are executed before the first is rendered, two at a time. The cache is in the folder SDETOOLS_DOCS_CACHE, by default `.cache/docs`.
A block that fails is an error of the build, reported like a broken link: `mkdocs build --strict` names all of them, then fails.
"""

from __future__ import annotations

import hashlib
import logging
import os
import posixpath
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

sys.path.insert(0, str(Path(__file__).parent))
from execute import TOP, Outcome, PageError, execute, rendered
from mathml import MathML

LOG = logging.getLogger("mkdocs.plugins.sdetools")
_outcomes: dict[str, Outcome] = {}


def cache_folder() -> Path:
    """Return the folder of the cache."""
    return Path(os.environ.get("SDETOOLS_DOCS_CACHE") or TOP / ".cache" / "docs")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Add the extension for formulas."""
    config.markdown_extensions.append(MathML())  # type: ignore[arg-type]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Execute all pages whose result is not in the cache."""
    pages = {file.src_uri: file.content_string for file in files.documentation_pages()}
    _outcomes.clear()

    def outcome(name: str) -> Outcome | PageError:
        try:
            return execute(pages[name], name, cache_folder())
        except PageError as error:
            return error

    with ThreadPoolExecutor(min(2, os.cpu_count() or 1)) as pool:
        for name, found in zip(pages, pool.map(outcome, pages)):
            if isinstance(found, PageError):
                LOG.error("%s", found)
            else:
                _outcomes[name] = found
                if found.outputs and not found.cached:
                    LOG.info("%s: executed in %s s", name, found.seconds)
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Place the outputs after the blocks; a figure becomes a file of the site, named by its content."""
    name = page.file.src_uri
    if name not in _outcomes or not _outcomes[name].outputs:
        return markdown

    def figure_name(svg: str) -> str:
        address = f"assets/figures/{hashlib.sha256(svg.encode()).hexdigest()[:16]}.svg"
        if files.get_file_from_path(address) is None:
            files.append(File.generated(config, address, content=svg))
        return posixpath.relpath(address, posixpath.dirname(name) or ".")

    try:
        return rendered(markdown, _outcomes[name], figure_name, name)
    except PageError as error:
        LOG.error("%s", error)
        return markdown
