"""How Sphinx makes the site of docs/: offline, every warning an error. ``make docs``."""

import os
import sys
from importlib.metadata import version as installed
from pathlib import Path

# Commands of the tutorial are this environment's.
os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "ztfzarr"
author = "the ztfzarr developers"
copyright = author
release = version = installed("ztfzarr")

extensions = [
    "myst_nb",  # Markdown and notebooks written as Markdown
    "sphinx.ext.autodoc",
    "numpydoc",
    "sphinx_click",
    "sphinx_copybutton",
    "repository_links",
    "mathml",
    "schema_tables",
    "command_examples",
    "module_pages",
]
exclude_patterns = ["slurm", "_ext"]
html_theme = "furo"
html_title = f"ztfzarr {release}"
html_math_renderer = "mathml"
html_copy_source = False
html_show_sphinx = False

myst_enable_extensions = ["dollarmath", "deflist"]
myst_heading_anchors = 4  # as code hosts make them

nb_execution_mode = "force"
nb_execution_in_temp = True
nb_execution_timeout = 600  # seconds a cell, on a busy machine
nb_execution_raise_on_error = True
nb_merge_streams = True

autodoc_typehints = "signature"
autodoc_member_order = "bysource"
numpydoc_show_class_members = False
numpydoc_xref_param_type = False
copybutton_prompt_text = "$ "
