"""``{schemas}``: tables of every variable and attribute of a store's groups, from the schemas that check them."""

from functools import cache
from pathlib import Path

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

from ztfzarr.schemas import load
from ztfzarr.store.products import PRODUCTS, fixed_labels, row_coordinates
from ztfzarr.store.raw import VARIABLES

SCHEMAS = Path(__file__).parents[2] / "schemas"
CODING = {"file_owned": "pcodec, sharded", "numbers_table": "zstd", "strings_table": "zstd"}
HEAD = ("variable", "dimensions", "type", "units", "absent", "what", "coding")


def kinds():
    """Kinds of groups that have a schema; raw first."""
    found = [path.stem for path in SCHEMAS.glob("*.json") if path.stem != "common"]
    return sorted((kind for kind in found if "consolidated_metadata" in load(kind)["required"]), key="raw".__ne__)


def descriptions(kind):
    """What each variable is, in the words that the store itself carries as ``long_name``."""
    if kind == "raw":
        return VARIABLES
    product = PRODUCTS[kind]
    return row_coordinates(kind) | fixed_labels(kind) | product.tables | product.pixels


@cache
def variables(kind):
    """Rows of the table of a kind: name, dimensions, type, units, fill, description, coding."""
    arrays = load(kind)["properties"]["consolidated_metadata"]["properties"]["metadata"]["properties"]
    said = descriptions(kind)
    if missing := said.keys() ^ arrays.keys():
        raise LookupError(f"schemas/{kind}.json and the store's template differ in {', '.join(sorted(missing))}")
    return [row(name, array, said[name].long_name) for name, array in arrays.items()]


def row(name, array, long_name):
    fields = array["properties"]
    attributes = fields["attributes"].get("properties", {})
    units = attributes.get("units", {}).get("const", "")
    flags = dict(
        zip(
            attributes.get("flag_meanings", {}).get("const", "").split(),
            attributes.get("flag_masks", {}).get("const", ()),
            strict=True,
        )
    )
    bits = "; bits: " + ", ".join(f"{meaning} {mask}" for meaning, mask in flags.items()) if flags else ""
    coding = CODING[fields["codecs"]["$ref"].rsplit("/", 1)[1]]
    fill = repr(fields["fill_value"]["const"]).strip("'")
    return name, dimensions(array), fields["data_type"]["const"], units, fill, long_name + bits, coding


def dimensions(array):
    over = load("common")["$defs"][array["allOf"][1]["$ref"].rsplit("/", 1)[1]]
    return " ".join(over["properties"]["dimension_names"]["const"])


def attributes(kind):
    """Rows of the table of a group's attributes: name, what the schema asks of it."""
    wanted = load(kind)["properties"]["attributes"]
    return [(name, asked(rule)) for name, rule in wanted["properties"].items() if name in wanted["required"]]


def asked(rule):
    if "const" in rule:
        return repr(rule["const"])
    if "pattern" in rule:
        return f"a string that matches {rule['pattern']}"
    needs = ", ".join(rule.get("required", ()))
    return f"{rule['type']}, with {needs} and others" if needs else rule["type"]


def table(head, rows):
    """A table whose first column is code."""
    group = nodes.tgroup("", *(nodes.colspec(colwidth=1) for _ in head), cols=len(head))
    body = nodes.tbody("", *(line(cells, code=True) for cells in rows))
    group += [nodes.thead("", line(head, code=False)), body]
    return nodes.table("", group, classes=["schema"])


def line(cells, code):
    row = nodes.row()
    for i, cell in enumerate(cells):
        text = nodes.literal("", cell) if code and not i else nodes.Text(cell)
        row += nodes.entry("", nodes.paragraph("", "", text))
    return row


class Schemas(SphinxDirective):
    """A section a kind of group."""

    def run(self):
        return [self.section(kind) for kind in kinds()]

    def section(self, kind):
        self.env.note_dependency(str(SCHEMAS / f"{kind}.json"))
        path = "raw" if kind == "raw" else f"{kind}/vN"
        title = nodes.title("", "", nodes.literal("", path))
        section = nodes.section("", title, ids=[f"group-{kind}"], names=[path])
        required = nodes.paragraph("", "Attributes of the group:")
        section += [table(HEAD, variables(kind)), required, table(("attribute", "value"), attributes(kind))]
        return section


def setup(app):
    app.add_directive("schemas", Schemas)
    return {"parallel_read_safe": True}
