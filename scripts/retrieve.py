"""Look one person up in the other modality: who is nearest, and where the person's own partner ranks.

python scripts/retrieve.py --subject sub-0007
python scripts/retrieve.py --subject sub-0007 --from genetics --gallery test --format json
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:] = [str(ROOT)] + [p for p in sys.path if Path(p or ".").resolve() not in (ROOT, ROOT / "scripts")]

from align.report_config import Retrieve
from encoders.runs import Study, command


def main(argv: list[str] | None = None) -> int:
    """`from` is a Python keyword and cannot name a field, so --from is handed on as --from_modality, and --to alike."""
    argv = sys.argv[1:] if argv is None else argv
    return retrieve([re.sub(r"^--(from|to)(?==|$)", r"--\1_modality", word) for word in argv])


@command
def retrieve(config: Retrieve) -> int:
    """Open the index, look the person up, print."""
    study = Study(config.study)
    folder, source = study.need("index"), study.need("aligned")

    from align.index import open_index
    from align.lookup import ENTRY_OF, USUAL_OTHER, as_table, look_up

    sides = config.from_modality, config.to_modality or USUAL_OTHER.get(config.from_modality, "fmri")
    names = [f"{ENTRY_OF.get(m, m)}_{config.vectors}" for m in sides]
    asked, searched = open_index(folder, *names, source=source, rebuild=f"{study.maker('index')} --redo=true")
    found = look_up(
        asked,
        searched,
        config.subject,
        modality=sides[0],
        sought=sides[1],
        k=config.k,
        vectors=config.vectors,
        gallery=config.gallery,
    )
    if config.format == "json":
        import json

        print(json.dumps(found, indent=1, ensure_ascii=False))
    else:
        print(as_table(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
