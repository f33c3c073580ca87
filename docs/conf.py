"""Sphinx configuration; the API pages, tables and pictures are generated from the package itself."""

import inspect
import itertools
import sys
from pathlib import Path

from sphinx.util.inspect import stringify_signature

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS))

import generate  # noqa: E402  (beside this file)

import fusionblocks  # noqa: E402

project = "fusionblocks"
author = "The fusionblocks maintainers"
copyright = "2026, The fusionblocks maintainers"
version = release = fusionblocks.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.mathjax",
    "sphinx.ext.viewcode",
]
exclude_patterns = ["_build"]
nitpicky = True
nitpick_ignore_regex = [
    # documented elsewhere; the build needs no network
    (r"py:.*", r"(torch|numpy|np|PIL|huggingface_hub|diffusers|timm|collections|os|pathlib|typing|types|nn)\..*"),
    (r"py:class", r"fusionblocks\.models\.(swapping\.(Model|Block)|base\.Output)"),  # type variables
    (r"py:.*", r"(matplotlib|pandas)\..*"),
    (
        r"py:.*",
        r"(Accelerator|Any|ThermalRange|Callable|Figure|Iterator|Iterable|Mapping|Path|Sequence|Tensor|optional|callable)",
    ),
    (r"py:.*", r"(bool|bytes|dict|float|int|list|object|slice|str|tuple|type|None|ellipsis|Ellipsis)"),
    (r"py:.*", r"\w+(Error|Warning)"),
    (r"py:class", r"fusionblocks\.optimization\.Module"),  # a type variable
    (r"py:class", r"fusionblocks\.models\.sgdfuse\.unet\.StrictLoading"),  # a mixin of no use alone
    (r"py:class", r"SchedulerMixin"),
]

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented_params"
autodoc_preserve_defaults = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_custom_sections = [("Reference", "References")]

html_theme = "furo"
html_title = f"fusionblocks {version}"
html_static_path = ["_static"]
html_css_files = ["custom.css"]
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#a63d00", "color-brand-content": "#a63d00"},
    "dark_css_variables": {"color-brand-primary": "#ffa35c", "color-brand-content": "#ffa35c"},
}


HOMES = generate.homes()


def resolve_public(app, env, node, contnode):
    """Lead a reference to a public name, by whatever module it is called, to the page that documents it."""
    if node.get("refdomain") != "py":
        return None
    home = HOMES.get(node["reftarget"].rpartition(".")[2])
    if home is None or home == node["reftarget"]:
        return None
    return env.domains["py"].resolve_xref(env, node["refdoc"], app.builder, "obj", home, node, contnode)


def network_signature(app, what, name, obj, options, signature, return_annotation):
    """Show a network's own arguments, where the hub mixin's ``__new__`` hides them."""
    if what != "class" or not issubclass(obj, fusionblocks.FusionModel):
        return None
    shown = stringify_signature(inspect.signature(obj), show_annotation=False, show_return_annotation=False)
    return shown, return_annotation


def returned_sentence(app, what, name, obj, options, lines):
    """Keep ``Returns:`` a sentence: types come from the hints, so a colon in it does not set off a type."""
    for header, first in itertools.pairwise(range(len(lines))):
        if lines[header].strip() == "Returns:":
            lines[first] = lines[first].replace(": ", " -- ", 1)


def setup(app):
    generate.write_all(DOCS)
    app.connect("autodoc-process-signature", network_signature)
    app.connect("autodoc-process-docstring", returned_sentence, priority=400)  # before napoleon
    app.connect("missing-reference", resolve_public)
