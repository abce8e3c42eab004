"""Make the settings page from `apmkit.config.Settings` when the documentation is built."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

from griffe import Docstring, DocstringSectionAttributes
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File

from apmkit.config import Settings

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files

PAGE = "reference/settings.md"
HEAD = """\
# Settings

Each setting is a keyword argument of `apmkit.Agent` and `apmkit.instrument`, an environment
variable, and a key of `apmkit.toml`.
[Use environment variables](../how-to/environment-variables.md) tells which one wins.

| setting | environment variable | type | default | meaning |
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
    for name, parameter in inspect.signature(Settings).parameters.items():
        if name not in meanings:
            raise PluginError(f"apmkit.config.Settings: the docstring's Attributes lack {name!r}.")
        required = parameter.default is inspect.Parameter.empty
        default = "required" if required else _code(repr(parameter.default))
        kind = _code(inspect.formatannotation(parameter.annotation).strip("'"))
        variable = _code(f"APMKIT_{name.upper()}")
        rows.append(f"| {_code(name)} | {variable} | {kind} | {default} | {meanings[name]} |")
    return "\n".join(rows) + "\n"


def _meanings() -> dict[str, str]:
    docstring = Docstring(inspect.getdoc(Settings) or "")
    return {
        attribute.name: " ".join(attribute.description.split()).replace("|", "\\|")
        for section in docstring.parse("google", warnings=False)
        if isinstance(section, DocstringSectionAttributes)
        for attribute in section.value
    }


def _code(text: str) -> str:
    return f"`{text}`"
