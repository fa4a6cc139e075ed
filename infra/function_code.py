"""What Lambda gets to run: the files of `infra.rotation`, and of the packages that it needs, as installed here.

Without a folder built before: what goes up is what the lock file has pinned, and the same each time.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import distribution
from pathlib import Path

import pulumi

from infra import rotation

PACKAGES = ("pg8000", "scramp", "asn1crypto", "python-dateutil", "six")
"""pg8000 and what it needs, all pure Python. boto3 is at Lambda already."""
ENTRY = "rotation.entry.rotate"


def archive() -> pulumi.AssetArchive:
    return pulumi.AssetArchive({name: pulumi.FileAsset(str(path)) for name, path in files().items()})


def files() -> Mapping[str, Path]:
    """Name in the archive to file, sorted."""
    own = Path(rotation.__file__).parent
    found = {f"rotation/{path.name}": path for path in own.glob("*.py")}
    for package in PACKAGES:
        for file in distribution(package).files or ():
            # Some ask for their own version when they are imported: METADATA.
            if not file.is_absolute() and ".." not in file.parts and (file.suffix == ".py" or file.name == "METADATA"):
                found[file.as_posix()] = Path(str(file.locate())).resolve()
    return dict(sorted(found.items()))
