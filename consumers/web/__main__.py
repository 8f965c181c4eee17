"""`python -m consumers.web` writes the OpenAPI document anew."""

from __future__ import annotations

from pathlib import Path

import contracts.schema
from consumers.web.openapi import render
from consumers.web.table import ROUTES

Path(contracts.schema.__file__).with_name("openapi.json").write_bytes(render(ROUTES))
