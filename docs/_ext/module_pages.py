"""``{modules} PACKAGE…``: a section with the public names of each module of packages, by autodoc."""

import importlib
import pkgutil
import re

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.util.docutils import SphinxDirective

CODE_OR_BAR = re.compile(r"``.*?``|\|")


class Modules(SphinxDirective):
    """Modules are found, not listed: a new one is in the reference as it is in the package."""

    required_arguments = 1
    optional_arguments = 20

    def run(self):
        return [self.section(module) for package in self.arguments for module in modules(package)]

    def section(self, module):
        text = nodes.title("", "", nodes.literal("", module.removeprefix("ztfzarr.")))
        section = nodes.section("", text, ids=[nodes.make_id(module)], names=[module])
        lines = ["```{eval-rst}", f".. automodule:: {module}", "   :members:", "```"]
        self.state.nested_parse(StringList(lines, module), 0, section)
        return section


def modules(package):
    """Names of the modules of a package."""
    path = importlib.import_module(package).__path__
    return sorted(f"{package}.{found.name}" for found in pkgutil.iter_modules(path))


def without_substitutions(_app, _what, _name, _object, _options, lines):
    """Leave bars of absolute values, |x - m|, as they are: reStructuredText means substitutions by them."""
    lines[:] = [CODE_OR_BAR.sub(lambda found: r"\|" if found[0] == "|" else found[0], line) for line in lines]


def setup(app):
    app.connect("autodoc-process-docstring", without_substitutions)
    app.add_directive("modules", Modules)
    return {"parallel_read_safe": True}
