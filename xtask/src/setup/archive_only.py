"""Stands in for a package's build system while pip fetches its source archive.

pip asks the build system for a package's name before it hands the archive over. Asked through this module it gets the
name from the archive itself, and no code of the package is run.
"""

import email.parser
import os


def _described():
    """Name and version as the archive's own PKG-INFO has them."""
    with open("PKG-INFO", encoding="utf-8") as text:
        about = email.parser.Parser().parse(text, headersonly=True)
    return about["Name"], about["Version"]


def get_requires_for_build_wheel(config_settings=None):
    return []


def prepare_metadata_for_build_wheel(metadata_directory, config_settings=None):
    name, version = _described()
    folder = f"{name}-{version}.dist-info"
    os.makedirs(os.path.join(metadata_directory, folder))
    with open(os.path.join(metadata_directory, folder, "METADATA"), "w", encoding="utf-8") as metadata:
        metadata.write(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    return folder


def build_wheel(*_):
    raise RuntimeError("only the source archive is wanted")


class __legacy__:
    """For packages that name no build system."""

    get_requires_for_build_wheel = staticmethod(get_requires_for_build_wheel)
    prepare_metadata_for_build_wheel = staticmethod(prepare_metadata_for_build_wheel)
    build_wheel = staticmethod(build_wheel)
