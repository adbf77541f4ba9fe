"""How the documentation site is built.

sphinx-build -W --keep-going -n -b html docs docs/_build
"""

import os
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE / "_ext"), str(HERE.parent)]
os.environ["HF_HUB_OFFLINE"] = "1"  # importing the package asks no server for anything

from hf_kakurenbo import __version__  # noqa: E402

project = "hf_kakurenbo"
author = "The hf_kakurenbo authors"
copyright = author  # noqa: A001
version = release = __version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "markdown_docstrings",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_design",
]
exclude_patterns = ["_build", "comparison", "images"]
toc_object_entries_show_parents = "hide"

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 4
myst_links_external_new_tab = True

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True

nitpick_ignore_regex = [
    # Types of other libraries, which this site has no pages of.
    ("py:.*", r"(?!hf_kakurenbo\.).*"),
    # What signatures name and users do not make themselves.
    (
        "py:class",
        r".*\.(DataParallelWorld|EpochRecord|Family|FamilyClass|HasParamGroups|MethodSummary|PolicyClass|Prediction"
        r"|RandomState|Rows|SampleRecord|SchedulerStart|Self|SizedSampler)",
    ),
]

html_theme = "pydata_sphinx_theme"
html_title = "hf_kakurenbo"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {
    "header_links_before_dropdown": 8,
    "navigation_with_keys": False,
    "show_prev_next": True,
    "show_toc_level": 2,
    "pygments_light_style": "default",
    "pygments_dark_style": "github-dark",
    "navbar_align": "left",
    "footer_start": ["copyright"],
    "footer_end": ["theme-version"],
    "secondary_sidebar_items": ["page-toc"],
}
# Pages that are a section by themselves have nothing to show beside them.
html_sidebars = {name: [] for name in ("index", "quickstart", "does_it_pay")}
