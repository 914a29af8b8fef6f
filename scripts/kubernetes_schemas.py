#!/usr/bin/env python3
"""Makes JSON schemas of the kinds of one Kubernetes version for kubeconform:

    scripts/kubernetes_schemas.py MODULE.zip DIRECTORY

MODULE.zip is the Go module k8s.io/kubernetes, which has the OpenAPI documents of the API server. Each kind
gets a file KIND-GROUP-VERSION.json. The schemas are strict: a field that the API does not know is an error.
scripts/kubernetes_schemas.sh fetches the modules; scripts/lint_manifests.sh uses the schemas.
"""

import json
import pathlib
import re
import sys
import zipfile

DOCUMENT = re.compile(r"[^/]+/kubernetes@[^/]+/api/openapi-spec/v3/apis?__.+_openapi\.json")
PREFIX = "#/components/schemas/"
# What kubeconform does not need. Most of a document are descriptions.
DROPPED = {"description", "default", "format"}


def plain(schema):
    """The schema without texts and extensions, with unknown fields forbidden where fields are listed."""
    if isinstance(schema, list):
        return [plain(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    result = {}
    for key, value in schema.items():
        if key == "properties":  # names of fields: "description" and "default" are some of them
            result[key] = {name: plain(field) for name, field in value.items()}
        elif key == "$ref":
            result[key] = "#/definitions/" + value.removeprefix(PREFIX)
        elif key not in DROPPED and not key.startswith("x-"):
            result[key] = plain(value)
    if "properties" in result:
        result.setdefault("additionalProperties", False)
    return result


def needed(schema, definitions, found):
    """Adds what `schema` refers to, directly or not, to `found`."""
    for name in re.findall(r'"#/definitions/([^"]+)"', json.dumps(schema)):
        if name not in found:
            found[name] = definitions[name]
            needed(found[name], definitions, found)
    return found


def file_name(kind):
    """As the template {{.ResourceKind}}{{.KindSuffix}} of kubeconform: of a group only the first part."""
    parts = [kind["kind"], kind["group"].split(".")[0], kind["version"]]
    return "-".join(part.lower() for part in parts if part) + ".json"


def main(module, directory):
    count = 0
    with zipfile.ZipFile(module) as archive:
        for name in filter(DOCUMENT.fullmatch, archive.namelist()):
            document = json.loads(archive.read(name))["components"]["schemas"]
            definitions = {key: plain(schema) for key, schema in document.items()}
            for key, schema in document.items():
                # Types of many groups, such as DeleteOptions, are no kinds that a manifest can have.
                kinds = schema.get("x-kubernetes-group-version-kind", [])
                if len(kinds) != 1:
                    continue
                used = needed(definitions[key], definitions, {})
                text = json.dumps({**definitions[key], "definitions": used}, separators=(",", ":"))
                (directory / file_name(kinds[0])).write_text(text)
                count += 1
    if not count:
        sys.exit(f"{module} has no OpenAPI documents")
    print(f"{count} kinds", file=sys.stderr)


if __name__ == "__main__":
    main(sys.argv[1], pathlib.Path(sys.argv[2]))
