"""The scripts of examples/ import each other as scripts do."""

import sys

from tests.documents import ROOT

if str(ROOT / "examples") not in sys.path:
    sys.path.append(str(ROOT / "examples"))
