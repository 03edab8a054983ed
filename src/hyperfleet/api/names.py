"""Names that users give: of machines, snapshots, disks, processes."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

Name = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$", max_length=63)]
NAME = "a DNS label: 1 to 63 characters of a-z, 0-9 and inner dashes"
