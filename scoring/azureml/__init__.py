"""The Azure ML entry-script contract: scripts with `init()` and `run()` answer unmodified.

`ScriptSettings` says where the script is, `EntryScript` loads it and turns requests into
responses. There is no server here, and nothing of Azure, Flask or numpy is imported unless the
script needs it.
"""

from scoring.azureml.entry import EntryScript
from scoring.azureml.settings import ScriptSettings

__all__ = ["EntryScript", "ScriptSettings"]
