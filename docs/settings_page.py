"""Make the settings page from `apmkit.config.Settings` when the documentation is built."""

from __future__ import annotations

import dataclasses
import inspect
from typing import TYPE_CHECKING

from griffe import Docstring, DocstringSectionAttributes
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File

from apmkit.config import PREFIX, Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files

PAGE = "reference/settings.md"
HEAD = """\
# Settings

A setting is a keyword argument of `apmkit.Agent` and `apmkit.instrument`, a key of `apmkit.toml`,
and an environment variable. Where two variables are named, the first one wins.
[Use environment variables](../how-to/environment-variables.md) tells how the places rank.

| setting | environment variable | default | what it is | what it may be |
| --- | --- | --- | --- | --- |
"""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the page to the site; MkDocs calls this once it has found the other files."""
    files.append(File.generated(config, PAGE, content=HEAD + table()))
    return files


def table() -> str:
    """One row a setting, in the order of the class, with the text of its docstring."""
    meanings = _meanings()
    rows = []
    for field in dataclasses.fields(Settings):
        if not field.metadata:
            continue
        if field.name not in meanings:
            raise PluginError(f"the docstring of apmkit.config.Settings lacks {field.name!r}")
        own = field.metadata["own"]
        cells = [
            _code(field.name) if own else "(only the variable)",
            ", ".join(_code(name) for name in _variables(field)),
            _code(_shown(field.default)),
            meanings[field.name],
            field.metadata["may_be"],
        ]
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(rows) + "\n"


def _variables(field: dataclasses.Field[object]) -> Iterator[str]:
    if field.metadata["standard"]:
        yield field.metadata["standard"]
    if field.metadata["own"]:
        yield PREFIX + field.name.upper()


def _shown(default: object) -> str:
    if isinstance(default, tuple):
        return ",".join(str(item) for item in default)
    return str(default)


def _meanings() -> dict[str, str]:
    docstring = Docstring(inspect.getdoc(Settings) or "")
    return {
        attribute.name: " ".join(attribute.description.split())
        for section in docstring.parse("google", warnings=False)
        if isinstance(section, DocstringSectionAttributes)
        for attribute in section.value
    }


def _code(text: str) -> str:
    return f"`{text}`"
