"""One folder a table or figure: ``config.py`` (options), ``run.py`` (what is done), ``report.py``.

Each ``config.py`` has ``COMMANDS``, each ``report.py`` a function ``blocks(runs)``.
"""

# Folders, in the order of the commands; and what the records are called that each report draws.
EXPERIMENTS = {
    "location": ("location",),
    "augshift": ("augshift",),
    "consistency": ("consistency",),
    "segmentation": ("segment",),
    "removal": ("rank", "ablate", "ablate-classify", "figure4", "figure5", "figure6"),
    "detection": ("detect", "detect-ablate", "table-s1"),
    "decode": ("decode",),
    "atlas": ("atlas",),
    "explore": ("explore",),
}
